"""The command `token-keeper inspect`, and what all commands have in common."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import rsa
from minting import ACCOUNT, AUTH_TOKEN, CHAT, KEY, NOW, SECRET, SERVICE, VOICE, altered, forged, minted

import token_keeper
from token_keeper.cli._group import COMMANDS, cli
from token_keeper.cli._output import printable, span

AT = ("--now", str(NOW))


def run(*args, stdin="", env=None):
    return CliRunner().invoke(cli, list(args), input=stdin, env={"TOKEN_KEEPER_SECRET": None, **(env or {})})


def inspected(value, *args, **options):
    return json.loads(run("inspect", "--json", *AT, *args, stdin=value, **options).stdout)


def codes(document):
    return {finding["code"] for finding in document["findings"]}


def test_a_good_token_exits_0_and_is_described_for_programs():
    result = run("inspect", "--json", *AT, stdin=minted())
    document = json.loads(result.stdout)

    assert (result.exit_code, result.stderr) == (0, "")
    assert list(document) == [
        *("profile", "valid", "fingerprint", "header", "claims", "expires_at", "expires_in", "findings"),
    ]
    assert (document["profile"], document["valid"]) == ("twilio", True)
    assert (document["expires_at"], document["expires_in"]) == (NOW + 3600, 3600)
    assert document["fingerprint"] == hashlib.sha256(minted().encode()).hexdigest()[:8]
    assert (document["header"]["cty"], document["claims"]["sub"]) == ("twilio-fpa;v=1", ACCOUNT)
    assert list(document["findings"][0]) == ["code", "severity", "message", "hint"]


def test_a_token_with_an_error_exits_65():
    result = run("inspect", "--json", "--now", str(NOW + 3700), stdin=minted())

    assert result.exit_code == os.EX_DATAERR
    assert json.loads(result.stdout)["expires_in"] == -100


def test_a_warning_does_not_change_the_exit_code():
    assert run("inspect", *AT, stdin=minted(identity="a@b")).exit_code == 0


@pytest.mark.parametrize("args", [(), ("-",), (minted(),)])
def test_the_token_comes_from_standard_input_or_as_an_argument(args):
    assert run("inspect", *AT, *args, stdin=minted()).exit_code == 0


@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_one_line_end_is_not_part_of_the_token(end):
    assert codes(inspected(minted() + end)) == {"signature-unchecked"}


@pytest.mark.parametrize("end", ["\n\n", " \n", "\r"])
def test_a_second_line_end_is(end):
    assert "surrounding-whitespace" in codes(inspected(minted() + end))


def test_a_line_end_in_an_argument_is_part_of_it():
    document = json.loads(run("inspect", "--json", *AT, f"{minted()}\n").stdout)

    assert "surrounding-whitespace" in codes(document)


@pytest.mark.parametrize("raw", [b"\xff\xfe\x00", b"\x00", b"", "\ud800".encode("utf-8", "surrogatepass")])
def test_bytes_that_are_no_text_end_in_findings_and_keep_their_fingerprint(raw):
    document = inspected(raw)

    assert not document["valid"]
    assert document["fingerprint"] == hashlib.sha256(raw).hexdigest()[:8]


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("--for", "video"), "grant-missing"),
        (("--for", "chat", "--for", "voice"), "grant-missing"),
        (("--expect", "identity=bob"), "identity-mismatch"),
        (("--expect", f"account_sid={KEY}"), "account-mismatch"),
        (("--expect", f"api_key_sid={ACCOUNT}"), "key-mismatch"),
        (("--expect", "identity=alice", "--expect", "service_sid=IS1"), "service-mismatch"),
    ],
)
def test_what_is_expected_is_compared(args, code):
    assert codes(inspected(minted(), *args)) == {code, "signature-unchecked"}


def test_what_fits_is_not_held_against_the_token():
    fitting = ("--for", "chat", "--expect", f"service_sid={SERVICE}", "--expect", f"account_sid={ACCOUNT}")

    assert codes(inspected(minted(), *fitting)) == {"signature-unchecked"}


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_the_signature_is_checked_with_the_secret_of_a_file(tmp_path, end):
    file = tmp_path / "secret"
    file.write_bytes(f"{SECRET}{end}".encode())

    assert codes(inspected(minted(), "--secret-file", str(file))) == set()
    assert codes(inspected(altered(minted()), "--secret-file", str(file))) == {"signature-invalid"}


def test_the_signature_is_checked_with_the_secret_of_the_environment():
    assert codes(inspected(minted(), env={"TOKEN_KEEPER_SECRET": SECRET})) == set()
    assert codes(inspected(minted(), env={"TOKEN_KEEPER_SECRET": SECRET[::-1]})) == {"signature-invalid"}


def test_the_file_wins_over_the_environment(tmp_path):
    file = tmp_path / "secret"
    file.write_text(SECRET)

    assert codes(inspected(minted(), "--secret-file", str(file), env={"TOKEN_KEEPER_SECRET": ""})) == set()


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe"])
def test_a_secret_that_cannot_be_read_exits_66(tmp_path, content):
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)

    result = run("inspect", "--secret-file", str(file), stdin=minted())

    assert (result.exit_code, result.stdout) == (os.EX_NOINPUT, "")
    assert "secret file" in result.stderr


def test_an_empty_secret_in_the_environment_exits_66():
    result = run("inspect", stdin=minted(), env={"TOKEN_KEEPER_SECRET": ""})

    assert result.exit_code == os.EX_NOINPUT
    assert "$TOKEN_KEEPER_SECRET is empty" in result.stderr


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("--leeway", "0"), "expired"),
        (("--leeway", "99"), "expired"),
    ],
)
def test_a_leeway_is_too_small_up_to_the_second(args, code):
    assert code in codes(inspected(minted(valid_until=NOW - 99), *args))


def test_a_leeway_tolerates_clocks_that_differ():
    assert codes(inspected(minted(valid_until=NOW - 99, nbf=NOW - 3600), "--leeway", "100")) == {
        "signature-unchecked"
    }


def test_another_profile_asks_other_questions():
    assert codes(inspected("0123", "--profile", "opaque")) == set()
    assert codes(inspected(forged(without="grants"), "--profile", "jwt")) == set()
    assert inspected(minted(), "--profile", "auto")["profile"] == "jwt"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400])
def test_numbers_that_json_does_not_have_become_null(value):
    def refuse(name):
        raise AssertionError(name)

    result = run("inspect", "--json", *AT, stdin=forged(claims={"exp": value, "other": [value]}))
    document = json.loads(result.stdout, parse_constant=refuse)

    assert (document["expires_at"], document["expires_in"], document["claims"]["other"]) == (
        None,
        None,
        [None],
    )


CANARIES = (
    minted(),
    f"Bearer {minted()}",
    f'{{"data": {{"token": "{minted()}"}}}}',
    altered(minted(CHAT, VOICE)),
    minted(signing_key_sid=SECRET),
    forged(claims={"note": SECRET, "grants": {"identity": SECRET, SECRET: {}}}),
    forged(claims={"sub": minted()}),
    forged(claims={"sub": f"AC{SECRET}", "iss": f"{'x' * 50}{SECRET}"}),
    forged(claims={"note": f"Bearer {minted()}", "sub": f"'{minted()[:-3]}'"}),
    SECRET,
    AUTH_TOKEN,
)


@pytest.mark.parametrize("value", CANARIES)
@pytest.mark.parametrize("form", [("--json",), ()])
@pytest.mark.parametrize("command", [("inspect",), ("explain", "51215", "--token", "-")])
def test_no_output_holds_the_token_its_signature_or_the_secret(value, form, command):
    result = run(*command, *form, *AT, stdin=value, env={"TOKEN_KEEPER_SECRET": SECRET})

    assert SECRET not in result.output
    assert AUTH_TOKEN not in result.output
    assert value not in result.output
    assert value.rpartition(".")[2] not in result.output
    assert minted().rpartition(".")[2] not in result.output


def test_a_message_that_quotes_a_claim_hides_the_secret_in_it():
    document = inspected(forged(claims={"sub": f"AC{SECRET}"}), env={"TOKEN_KEEPER_SECRET": SECRET})
    [subject] = [finding for finding in document["findings"] if finding["code"] == "subject"]

    assert subject["message"].startswith("sub is 'AC<secret>';")


def test_a_message_that_cuts_a_claim_off_shows_no_beginning_of_the_secret():
    token = forged(claims={"sub": f"{'x' * 50}{SECRET}"})
    result = run("inspect", *AT, stdin=token, env={"TOKEN_KEEPER_SECRET": SECRET})

    assert SECRET[:8] not in result.stdout


WRONG = (
    ("inspect", "--now", minted()),
    ("inspect", "--now", "nan"),
    ("inspect", "--leeway", "-1"),
    ("inspect", "--leeway", minted()),
    ("inspect", "--for", minted()),
    ("inspect", "--profile", minted()),
    ("inspect", "--expect", minted()),
    ("inspect", "--expect", f"{minted()}=1"),
    ("inspect", "--expect", "identity="),
    ("inspect", "--profile", "jwt", "--for", "chat"),
    ("inspect", "--jwks-url", f"http://example.org/{minted()}"),
    ("inspect", "--jwks-url", "file:///etc/passwd"),
    ("inspect", "--jwks-url", "http://[broken"),
    ("inspect", minted(), minted()),
    ("inspect", f"--{minted()}"),
    ("inspect", f"-{minted()}"),
    ("inspect", "--secret-file"),
    ("inspect", f"--json={minted()}"),
    ("inspect", "--now", "1_000"),
    ("inspect", "--now", "\u0661"),
    ("explain",),
    ("explain", minted(), minted()),
    ("explain", "51215", "--expect", f"{minted()}"),
    (minted(),),
    (f"--{minted()}",),
)


@pytest.mark.parametrize("args", WRONG)
def test_wrong_usage_exits_64_and_repeats_no_argument(args):
    result = run(*args, stdin="")

    assert (result.exit_code, result.stdout) == (os.EX_USAGE, "")
    assert result.stderr.startswith("token-keeper: ")
    assert not [part for part in minted().split(".") if part in result.stderr]


def test_wrong_usage_names_the_option_and_what_it_takes():
    assert (
        "--for cannot be used; it is one of chat, sync, voice, video" in run("inspect", "--for", "x").stderr
    )
    assert "known are demo, inspect, explain" in run("nothing").stderr
    assert "CODE is missing" in run("explain").stderr
    assert "--token has no value" in run("explain", "51215", "--token").stderr


def test_the_form_for_people_names_the_codes_and_escapes_what_a_terminal_obeys():
    token = forged(claims={"grants": {"identity": "a\x1b[31m\n\u202eb", "chat": {"service_sid": SERVICE}}})
    result = run("inspect", *AT, stdin=token)

    assert "signature-unchecked" in result.stdout
    assert "a\\x1b[31m\\n\\u202eb" in result.stdout
    assert "\x1b" not in result.stdout
    assert "2027-01-15 09:00:00 UTC, in 1 h" in result.stdout


def test_a_lone_surrogate_in_a_claim_can_be_printed():
    result = run("inspect", *AT, stdin=forged(claims={"note": "\ud800"}))

    assert (result.exit_code, "\\ud800" in result.stdout) == (0, True)


@pytest.mark.parametrize(
    ("length_s", "written"),
    [
        (0, "0 s"),
        (59, "59 s"),
        (61, "1 min 1 s"),
        (-3600, "1 h"),
        (3605, "1 h"),
        (90_061, "1 d 1 h"),
        (1e300, "over a hundred years"),
    ],
)
def test_lengths_of_time_are_written_in_their_two_largest_units(length_s, written):
    assert span(length_s) == written


def test_printable_text_stays_as_it_is():
    assert printable("plain text: 100 %") == "plain text: 100 %"


class Keys(BaseHTTPRequestHandler):
    document: object = {}

    def do_GET(self):
        body = json.dumps(self.document).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def key_server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Keys) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/jwks"
        server.shutdown()
        thread.join()


def test_the_signature_is_checked_with_keys_from_a_url(key_server):
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = json.loads(jwt.get_algorithm_by_name("RS256").to_jwk(private.public_key()))
    Keys.document = {"keys": [{**public, "kid": "1"}]}
    token = jwt.encode({"exp": NOW + 60}, private, "RS256", headers={"kid": "1"})

    assert codes(inspected(token, "--profile", "jwt", "--jwks-url", key_server)) == set()
    assert codes(inspected(altered(token), "--profile", "jwt", "--jwks-url", key_server)) == {
        "signature-invalid"
    }


def test_keys_that_cannot_be_fetched_exit_69(key_server):
    Keys.document = []

    assert run("inspect", "--jwks-url", key_server, stdin=minted()).exit_code == os.EX_UNAVAILABLE
    assert run("inspect", "--jwks-url", "http://127.0.0.1:9/", stdin=minted()).exit_code == os.EX_UNAVAILABLE


def test_help_is_shown_without_importing_any_command():
    result = run("--help")

    assert result.exit_code == 0
    assert all(name in result.stdout for name in COMMANDS)
    assert "token-keeper inspect < token" in run("inspect", "--help").stdout


def test_the_version_is_shown():
    assert run("--version").stdout == f"token-keeper {token_keeper.__version__}\n"


def test_the_group_can_be_called_as_a_function():
    with pytest.raises(SystemExit) as left:
        cli.main(["explain", "51215"], standalone_mode=True)

    assert left.value.code == 0
    assert cli.main(["explain", "51215"], standalone_mode=False) == 0
