import io
import json
import logging
import subprocess
import sys
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
import structlog
from structlog.testing import CapturingLogger

from token_keeper._errors import ConfigError
from token_keeper._model import Secret, fingerprint_of
from token_keeper._redact import TEXT_MAX, describe, redact_text, redact_value
from token_keeper.logs import RedactingFilter, keeper_logger, redact
from token_keeper.testing import mint

CANARY = "canary-7f3a9c5e1b"
JWT = mint(sub=CANARY, expires_at=1_700_003_600)
MARK = f"<token {fingerprint_of(JWT)}>"


def redacted(value, key="value"):
    return redact(None, "info", {key: value})[key]


@pytest.fixture
def records():
    """A standard logger, and the list of the records that it emits."""
    seen = []
    logger = logging.getLogger("app.tokens")
    logger.setLevel(logging.DEBUG)
    handler = logging.Handler()
    handler.emit = seen.append
    logger.addHandler(handler)
    yield logger, seen
    logger.removeHandler(handler)
    logger.filters.clear()


def caught(error):
    """Return *error* as one that was raised."""
    try:
        raise error
    except type(error) as raised:
        return raised


# Strings.


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {CANARY}",
        f"authorization=Bearer {CANARY}; path=/",
        f"sent bearer {CANARY}",
        f"Cookie: sid={CANARY}; other={CANARY}",
        f"X-Api-Key: {CANARY}",
        f"https://backend.example/token?access_token={CANARY}&x=1",
        f"grant_type=client_credentials&client_secret={CANARY}",
        f'{{"access_token": "{CANARY}", "expires_in": 60}}',
        f"{{'client_secret': '{CANARY}'}}",
        f'{{"password": "with \\" quote {CANARY}"}}',
        f'{{"refresh_token": "{CANARY}',
        f"Settings(api_key='{CANARY}', retries=3)",
        f"https://user:{CANARY}@backend.example/",
    ],
)
def test_credentials_in_text_are_masked(text):
    clean = redact_text(text)

    assert CANARY not in clean
    assert "<redacted>" in clean


def test_basic_credentials_are_masked():
    assert redact_text("sent Basic YWxpY2U6Y2FuYXJ5MQ==") == "sent Basic <redacted>"


@pytest.mark.parametrize("around", ["{}", "got {}.", '"{}"', "token%3D{}&x", "<{}>", "x={},", "({})"])
def test_a_jwt_in_text_is_replaced_by_its_fingerprint(around):
    assert redact_text(around.format(JWT)).replace("<redacted>", MARK) == around.format(MARK)


@pytest.mark.parametrize("length", [20, 40, len(JWT) - 5])
def test_a_piece_of_a_jwt_is_masked_too(length):
    assert JWT[:length] not in redact_text(f"got {JWT[:length]}")


def test_a_jwt_whose_header_has_blanks_is_masked():
    raw = "eyAidHlwIjogIkpXVCIgfQ.eyJzdWIiOiJ4In0.c2ln"

    assert redact_text(raw) == f"<token {fingerprint_of(raw)}>"


@pytest.mark.parametrize(
    "text",
    [
        "tokenUpdated keeper=chat generation=3 fingerprint=ab12cd34",
        "the backend refused to issue a token (invalid_grant); check the credentials, then call refresh()",
        "token_path=data.token is wrong",
        "Basic authentication is needed",
        "the bearer of bad news",
        "2026-01-02T03:04:05Z https://backend.example:8443/token?user=alice",
        "token_type=Bearer",
    ],
)
def test_plain_prose_stays_as_it_is(text):
    assert redact_text(text) == text


def test_a_long_text_is_cut_and_the_cut_leaves_no_token_bare():
    text = "x " * (TEXT_MAX // 2 - 20) + JWT * 100

    clean = redact_text(text)

    assert len(clean) < TEXT_MAX + 100
    assert "more characters" in clean
    assert JWT[:60] not in clean


@pytest.mark.parametrize(
    "unit", ["eyJ", "ewo", "a-", "token", "token=", '"token":"', "bearer ", "://a:", "cookie:", "\\"]
)
def test_hostile_text_costs_little_time(unit):
    started = time.process_time()
    redact_text(unit * 100_000)

    assert time.process_time() - started < 1.0


# Values.


@pytest.mark.parametrize(
    "key",
    [
        *("token", "access_token", "accessToken", "refresh-token", "id_token", "jwt", "Authorization"),
        *("client_secret", "password", "db_password_old", "api_key", "X-Api-Key", "apiKey", "Set-Cookie"),
        *("private_key", "passphrase", "credentials", "client_assertion", "proxy-authorization"),
    ],
)
def test_values_under_telling_names_are_masked(key):
    assert redacted(CANARY, key) == "<redacted>"
    assert redacted({"a": [CANARY]}, key) == {"a": "<redacted>"}
    assert redacted([CANARY], key) == "<redacted>"


@pytest.mark.parametrize(
    "key",
    ["fingerprint", "generation", "token_type", "token_path", "keeper", "expires_at", "url", "tokens_max"],
)
def test_values_under_other_names_are_shown(key):
    assert redacted("ab12cd34", key) == "ab12cd34"


@pytest.mark.parametrize(
    ("key", "value"), [("token", None), ("password", ""), ("tokens", 3), ("has_token", True)]
)
def test_what_cannot_be_a_secret_is_shown_even_there(key, value):
    assert redacted(value, key) == value


def test_a_secret_shows_its_fingerprint_under_any_name():
    assert (
        redacted(Secret(CANARY)) == redacted(Secret(CANARY), "token") == f"<secret {fingerprint_of(CANARY)}>"
    )


@dataclass
class Settings:
    password: str


class Chatty:
    def __repr__(self):
        return "<Chatty>"

    def __str__(self):
        return f"Bearer {CANARY}"


class Login(NamedTuple):
    user: str
    password: str


@pytest.mark.parametrize(
    "value",
    [
        {"a": {"b": [{"token": CANARY}]}},
        [[("x", {"password": CANARY})]],
        OrderedDict(headers={"Authorization": CANARY}),
        {f"Bearer {CANARY}": 1},
        {"body": f"access_token={CANARY}".encode()},
        bytearray(f"Bearer {CANARY}".encode()),
        ValueError(f"no good: Bearer {CANARY}"),
        {"error": RuntimeError({"token": CANARY})},
        Settings(password=CANARY),
        Login("alice", CANARY),
        {"deep": Chatty()},
        {Secret(CANARY)},
        (f"sid={JWT}",),
    ],
)
def test_secrets_in_nested_places_are_masked(value):
    shown = f"{redacted(value)!r} {redacted(value)}"

    assert CANARY not in shown
    assert JWT not in shown


@pytest.mark.parametrize(
    "value", [1.5, 7, None, True, b"plain", Path("/run/x"), [1, "two"], {"a": {"b": (1,)}}]
)
def test_harmless_values_come_out_as_they_went_in(value):
    assert redacted(value) == value


class Broken:
    def __repr__(self):
        raise RuntimeError(CANARY)


class BrokenError(Exception):
    def __str__(self):
        raise RuntimeError(CANARY)


def test_values_that_cannot_be_shown_raise_nothing():
    loop = []
    loop.append(loop)

    assert redacted(Broken()) == "<unprintable Broken>"
    assert "BrokenError" in redacted(BrokenError())
    assert "<redacted>" in repr(redacted(loop))
    assert CANARY not in repr(redacted([Broken(), BrokenError()]))


def test_huge_values_are_bounded():
    started = time.process_time()
    clean = redact_value({"rows": [{"token": CANARY, "text": "x" * 100_000}] * 100_000})

    assert len(clean["rows"]) < 1000
    assert CANARY not in repr(clean)
    assert time.process_time() - started < 2.0


def test_an_exception_becomes_a_traceback_without_the_secret():
    error = caught(ValueError(f"Bearer {CANARY}"))
    event = redact(None, "error", {"event": "x", "exc_info": error})

    assert event["exception"].startswith("Traceback")
    assert "ValueError: Bearer <redacted>" in event["exception"]
    assert CANARY not in repr(event)
    assert "exc_info" not in event
    assert describe(error) == "ValueError: Bearer <redacted>"


def test_the_exception_being_handled_is_found_as_structlog_finds_it():
    try:
        caught(ValueError("x")).args[1]
    except IndexError:
        event = redact(None, "error", {"event": "x", "exc_info": True})

    assert "IndexError" in event["exception"]
    assert "exception" not in redact(None, "error", {"event": "x", "exc_info": True})


# Under the standard logging.


def test_the_default_logger_is_the_standard_one_and_the_host_decides_what_is_shown(caplog):
    log = keeper_logger(name="chat")
    with caplog.at_level("WARNING", "token_keeper"):
        log.info("tokenUpdated", generation=3)
        log.warning("refreshFailed", failures=2)

    assert [(r.name, r.levelname, r.message) for r in caplog.records] == [
        ("token_keeper", "WARNING", "refreshFailed keeper=chat failures=2")
    ]


def test_keys_are_in_the_message_and_are_attributes_of_the_record(records):
    logger, seen = records
    keeper_logger(logger, name="chat").info("tokenUpdated", generation=3, fingerprint="ab12cd34", wait_s=1.5)

    assert seen[0].getMessage() == "tokenUpdated keeper=chat generation=3 fingerprint=ab12cd34 wait_s=1.5"
    assert (seen[0].event, seen[0].keeper, seen[0].generation) == ("tokenUpdated", "chat", 3)


def test_a_record_says_where_it_was_logged(records):
    logger, seen = records
    keeper_logger(logger, name="chat").error("tokenExpired")

    assert (seen[0].funcName, seen[0].filename) == (
        "test_a_record_says_where_it_was_logged",
        "test_logs.py",
    )


def test_keys_that_a_record_has_already_get_another_name(records):
    logger, seen = records
    keeper_logger(logger, name="chat").info("x", name="n", message="m", module="o")

    assert seen[0].getMessage() == "x keeper=chat name=n message=m module=o"
    assert (seen[0].keeper_name, seen[0].keeper_message, seen[0].name) == ("n", "m", "app.tokens")


@pytest.mark.parametrize(
    "hostile",
    [
        "a\nERROR forged",
        "a\r\nb",
        "\x1b[31mred",
        "a\u2028b",
        "\u202eabc",
        "x\x00y",
        "a b=c",
        'say "hi"',
        "%s %(x)s",
    ],
)
def test_values_cannot_forge_a_line_or_a_key(records, hostile):
    logger, seen = records
    keeper_logger(logger, name="chat").info("refreshFailed", error=hostile)
    text = logging.Formatter("%(message)s | %(error)s").format(seen[0])

    assert text.isprintable()
    assert " b=c" not in text.split(" | ")[0].replace('"a b=c"', "")


def test_an_adapter_of_the_standard_logging_is_a_logger_too(records):
    logger, seen = records
    keeper_logger(logging.LoggerAdapter(logger), name="chat").info("tokenUpdated")

    assert seen[0].getMessage() == "tokenUpdated keeper=chat"


def test_canaries_in_any_key_do_not_reach_a_record(records):
    logger, seen = records
    keeper_logger(logger, name="chat").warning(
        "refreshFailed", token=CANARY, error=ValueError(JWT), nested={"a": [f"Bearer {CANARY}"]}
    )

    assert CANARY not in repr(seen[0].__dict__)
    assert JWT not in repr(seen[0].__dict__)


def test_a_logging_that_raises_is_counted_and_harms_nobody(records):
    logger, _ = records
    logger.addFilter(lambda _: 1 / 0)
    log = keeper_logger(logger, name="chat")

    log.info("tokenUpdated")

    assert log.failures == 1


def test_the_filter_redacts_records_of_other_programs():
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logging.Formatter("%(message)s %(headers)s"))
    handler.addFilter(RedactingFilter())
    error = caught(ValueError(f"access_token={CANARY}"))
    logger = logging.getLogger("app.other")
    logger.addHandler(handler)
    logger.error("sent %s", f"Bearer {CANARY}", exc_info=error, extra={"headers": {"Authorization": CANARY}})
    logger.error("does not fit %d", f"Bearer {CANARY}", extra={"headers": ""})
    logger.removeHandler(handler)

    assert CANARY not in out.getvalue()
    assert "ValueError: access_token=<redacted>" in out.getvalue()
    assert "cannot be rendered" in out.getvalue()


# Under structlog.


def test_a_structlog_logger_gets_the_keys_bound_and_redacted():
    sink = CapturingLogger()
    theirs = structlog.wrap_logger(sink, processors=[structlog.processors.JSONRenderer()]).bind(app="x")
    keeper_logger(theirs, name="chat").info(
        "tokenUpdated", generation=3, note=f"Bearer {CANARY}", token=CANARY
    )

    assert [json.loads(call.args[0]) for call in sink.calls] == [
        {
            "app": "x",
            "keeper": "chat",
            "generation": 3,
            "note": "Bearer <redacted>",
            "token": "<redacted>",
            "event": "tokenUpdated",
        }
    ]


def test_a_structlog_logger_that_passes_keys_to_the_standard_logging_works(records):
    logger, seen = records
    theirs = structlog.wrap_logger(
        logger,
        processors=[structlog.stdlib.render_to_log_kwargs],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    log = keeper_logger(theirs, name="chat")
    log.info("tokenUpdated", generation=3)

    assert log.failures == 0
    assert (seen[0].getMessage(), seen[0].keeper, seen[0].generation) == ("tokenUpdated", "chat", 3)


def test_a_structlog_logger_decides_by_itself_what_is_shown():
    sink = CapturingLogger()
    quiet = structlog.wrap_logger(sink, wrapper_class=structlog.make_filtering_bound_logger("ERROR"))
    keeper_logger(quiet, name="chat").info("tokenUpdated")

    assert sink.calls == []


def test_structlog_stays_as_the_host_configured_it():
    assert not structlog.is_configured()
    keeper_logger(name="chat").debug("tokenUpdated")

    assert not structlog.is_configured()
    assert logging.getLogger("token_keeper").handlers == []


def test_a_logger_that_is_none_is_an_error_that_says_so():
    with pytest.raises(ConfigError, match="structlog"):
        keeper_logger(print, name="chat")


def test_structlog_is_loaded_with_the_first_logger_only():
    program = (
        "import sys, token_keeper.logs as logs; assert 'structlog' not in sys.modules;"
        "logs.keeper_logger(name='x'); assert 'structlog' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
