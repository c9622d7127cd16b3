"""`token-keeper doctor --config` on OAuth 2.0 sources: it asks the server, or looks into the store."""

from __future__ import annotations

import base64
import json
import os
import time

import pytest
from authorization_server import CLIENT_ID, CLIENT_SECRET, AuthorizationServer, Client
from configuring import CANARY, written
from examining import examined, run, statuses

from token_keeper import Secret
from token_keeper.store import DirectoryStore, Mark, Record

KEY = base64.b64encode(bytes(range(32))).decode()


@pytest.fixture
def server():
    with AuthorizationServer() as server:
        yield server


def table(server, more="", *, place=None):
    where = place or f'issuer = "{server.issuer}"'
    return (
        f'[tokens.chat.source]\ntype = "oauth2"\n{where}\nclient_id = "{CLIENT_ID}"\n'
        f'client_secret = "{CLIENT_SECRET}"\n{more}\n'
    )


def rotating(server, more=""):
    return table(server, f'grant = "refresh_token"\nrefresh_token = "{CANARY}"\n{more}')


def store_table(tmp_path, more=""):
    return f'[store]\ndirectory = "{tmp_path}/state"\n{more}\n'


def looked_at(tmp_path, *texts):
    return examined("--config", str(written(tmp_path, store_table(tmp_path) + "".join(texts))))


def remember(tmp_path, server, *, key=None, **more):
    """Put a record into the store, as a keeper would."""
    now = time.time()
    record = Record(
        **{
            "owner": f"{server.issuer} {CLIENT_ID}",
            "refresh_token": Secret(f"{CANARY}-refresh"),
            "access_token": Secret(f"{CANARY}-access"),
            "received_at": now - 600,
            "expires_at": now + 3000,
            "rotations": 3,
            **more,
        }
    )
    with DirectoryStore(tmp_path / "state", key=key).slot("chat").try_lease() as lease:
        lease.write(record)


def test_a_stateless_grant_is_asked_once_and_nothing_of_it_is_kept(tmp_path, server):
    document = looked_at(tmp_path, table(server, "keep = true"))

    assert statuses(document) == {
        "dns": "ok",
        "tcp": "ok",
        "tls": "skipped",
        "discovery": "ok",
        "client": "ok",
        "store": "ok",
        "grant": "ok",
        "http": "ok",
        "token": "ok",
        "kind": "ok",
        "findings": "ok",
        "clock": "ok",
        "schedule": "ok",
    }
    assert len(server.posted()) == 1
    assert document["step"]["token"]["details"]["path"] == "access_token"
    assert document["step"]["http"]["details"]["requests"] == 1
    assert document["step"]["discovery"]["details"]["token_endpoint"] == server.endpoint()
    assert not (tmp_path / "state").exists()


def test_no_secret_is_shown(tmp_path, server):
    remember(tmp_path, server)
    path = str(written(tmp_path, store_table(tmp_path) + rotating(server)))
    shown = "".join(run("--config", path, *args).output for args in ((), ("--json",)))
    path = str(written(tmp_path, table(server)))
    shown += "".join(run("--config", path, *args).output for args in ((), ("--json",)))

    assert CANARY not in shown
    assert CLIENT_SECRET not in shown
    assert [one.access_token for one in server.tokens if one.access_token in shown] == []


def test_without_an_issuer_the_token_endpoint_is_walked_to(tmp_path, server):
    document = looked_at(tmp_path, table(server, place=f'token_url = "{server.endpoint()}"'))

    assert document["ok"]
    assert document["url"] == server.endpoint()
    assert document["step"]["discovery"]["status"] == "skipped"
    assert "not known without an issuer" in document["step"]["client"]["summary"]


def test_metadata_of_another_issuer_are_not_believed(tmp_path):
    with AuthorizationServer(metadata={"issuer": "https://other.example"}) as server:
        document = looked_at(tmp_path, table(server))

    assert document["step"]["discovery"]["status"] == "failed"
    assert "https://other.example" in document["step"]["discovery"]["summary"]
    assert document["step"]["discovery"]["remedy"]
    assert not server.posted()


def test_a_token_endpoint_elsewhere_is_walked_to_as_well(tmp_path):
    with (
        AuthorizationServer() as elsewhere,
        AuthorizationServer(metadata={"token_endpoint": elsewhere.endpoint()}) as server,
    ):
        document = looked_at(tmp_path, table(server))

    assert document["ok"]
    assert document["step"]["endpoint"]["status"] == "ok"
    assert elsewhere.endpoint() in document["step"]["endpoint"]["summary"]


def test_a_token_endpoint_elsewhere_that_is_down_is_the_step_that_failed(tmp_path):
    with AuthorizationServer() as elsewhere:
        gone = elsewhere.endpoint()
    with AuthorizationServer(metadata={"token_endpoint": gone}) as server:
        document = looked_at(tmp_path, table(server))

    assert document["step"]["endpoint"]["status"] == "failed"
    assert document["step"]["http"]["status"] == "skipped"


@pytest.mark.parametrize(
    ("metadata", "step", "words"),
    [
        ({"token_endpoint_auth_methods_supported": ["private_key_jwt"]}, "client", "private_key_jwt"),
        ({"grant_types_supported": ["authorization_code"]}, "discovery", "authorization_code"),
    ],
    ids=["method", "grant"],
)
def test_what_the_server_does_not_offer_is_a_warning(tmp_path, metadata, step, words):
    with AuthorizationServer(metadata=metadata) as server:
        document = looked_at(tmp_path, table(server))

    found = document["step"][step]
    assert found["status"] == "warning"
    assert words in found["summary"] + found["remedy"]


def test_basic_becomes_post_where_only_that_is_offered(tmp_path):
    with AuthorizationServer(
        clients=[Client(methods=["client_secret_post"])],
        metadata={"token_endpoint_auth_methods_supported": ["client_secret_post"]},
    ) as server:
        document = looked_at(tmp_path, table(server))

    assert document["ok"]
    assert document["step"]["client"]["details"]["method"] == "client_secret_post"


def test_a_wrong_secret_is_a_failed_request_that_names_what_to_check(tmp_path, server):
    document = looked_at(tmp_path, table(server).replace(CLIENT_SECRET, CANARY))

    assert document["step"]["http"]["status"] == "failed"
    assert "invalid_client" in document["step"]["http"]["summary"]
    assert "client_id" in document["step"]["http"]["remedy"]
    assert document["step"]["token"]["status"] == "skipped"


def test_a_server_that_is_down_leaves_the_store_to_be_looked_at(tmp_path):
    with AuthorizationServer() as server:
        remember(tmp_path, server)
        text = rotating(server)
    document = looked_at(tmp_path, text)

    assert document["step"]["tcp"]["status"] == "failed"
    assert document["step"]["grant"]["status"] == "ok"
    assert document["step"]["token"]["status"] == "ok"


def test_a_refresh_token_is_not_spent_and_what_is_kept_is_judged(tmp_path, server):
    remember(tmp_path, server, seeds=(_digest(CANARY),))
    document = looked_at(tmp_path, rotating(server))

    assert document["ok"]
    assert not server.posted()
    assert "it would spend the refresh token" in document["step"]["http"]["summary"]
    assert document["step"]["store"]["details"]["place"] == f"{tmp_path}/state/chat.grant"
    assert document["step"]["grant"]["details"]["rotations"] == 3
    assert document["step"]["grant"]["details"]["age"] == pytest.approx(600, abs=30)
    assert document["schedule"]["remaining"] == pytest.approx(3000, abs=30)
    # The metadata were asked for, and their answer says what time it is.
    assert document["step"]["clock"]["status"] == "ok"


def test_the_verdict_says_that_a_refresh_token_was_not_tried(tmp_path, server):
    remember(tmp_path, server, seeds=(_digest(CANARY),))
    page = run("--config", str(written(tmp_path, store_table(tmp_path) + rotating(server)))).stdout

    assert "\nAll is well. Not seen: whether the server still takes the refresh token." in page


def _digest(token):
    from token_keeper.sources.oauth2._rotation import digest

    return digest(Secret(token))


def test_another_configured_refresh_token_is_told(tmp_path, server):
    remember(tmp_path, server, seeds=(_digest("another"),))
    page = run("--config", str(written(tmp_path, store_table(tmp_path) + rotating(server)))).stdout

    assert "another refresh token is configured since" in page


def test_the_first_fetch_sends_the_configured_refresh_token(tmp_path, server):
    document = looked_at(tmp_path, rotating(server))

    assert document["ok"]
    assert "configured refresh token" in document["step"]["grant"]["summary"]
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("sent_s_ago", "words"),
    [(5.0, "sends it once more now"), (300.0, "log in again before that")],
    ids=["forgiven", "held"],
)
def test_a_lost_answer_is_a_warning_that_says_what_a_keeper_does(tmp_path, server, sent_s_ago, words):
    mark = Mark(sent_at=time.time() - sent_s_ago, times=1, by="process 4711 on host")
    remember(tmp_path, server, seeds=(_digest(CANARY),), mark=mark)
    path = str(written(tmp_path, store_table(tmp_path) + rotating(server)))
    document, page = examined("--config", path), run("--config", path).stdout

    assert document["step"]["grant"]["status"] == "warning"
    assert words in document["step"]["grant"]["remedy"]
    assert document["step"]["grant"]["details"]["mark"]["by"] == "process 4711 on host"
    assert "no answer was recorded" in page


def test_a_device_that_nobody_logged_in_for_has_failed(tmp_path, server):
    text = table(server, 'grant = "device_code"')
    document = looked_at(tmp_path, text)

    assert document["step"]["grant"]["status"] == "failed"
    assert "token-keeper login" in document["step"]["grant"]["remedy"]


def test_an_issuer_that_knows_no_devices_is_told(tmp_path):
    with AuthorizationServer(metadata={"device_authorization_endpoint": None}) as server:
        document = looked_at(tmp_path, table(server, 'grant = "device_code"'))

    assert document["step"]["discovery"]["status"] == "failed"
    assert "device_authorization_endpoint" in document["step"]["discovery"]["summary"]


def test_the_record_of_another_client_is_not_used(tmp_path, server):
    remember(tmp_path, server, owner="https://other.example robot")
    document = looked_at(tmp_path, rotating(server))

    assert document["step"]["grant"]["status"] == "failed"
    assert document["step"]["token"]["status"] == "skipped"


def test_an_access_token_that_has_expired_is_no_failure(tmp_path, server):
    now = time.time()
    remember(tmp_path, server, seeds=(_digest(CANARY),), received_at=now - 4000, expires_at=now - 400)
    document = looked_at(tmp_path, rotating(server))

    assert document["ok"]
    assert "expired 6 min" in document["step"]["token"]["summary"]


def damaged(path):
    path.write_text(path.read_text().replace("rotations", "rotation"))


def opened(path):
    path.chmod(0o644)


def foreign(path):
    path.write_text("{}")


@pytest.mark.parametrize("spoil", [damaged, opened, foreign], ids=["damaged", "readable", "foreign"])
def test_a_record_that_cannot_be_read_is_a_failed_step_and_stays(tmp_path, server, spoil):
    remember(tmp_path, server)
    path = tmp_path / "state" / "chat.grant"
    spoil(path)
    before = (path.read_bytes(), path.stat().st_mode)
    document = looked_at(tmp_path, rotating(server))

    assert document["step"]["store"]["status"] == "failed"
    assert str(path) in document["step"]["store"]["summary"]
    assert document["step"]["store"]["remedy"]
    assert document["step"]["grant"]["status"] == "skipped"
    assert (path.read_bytes(), path.stat().st_mode) == before


def test_a_store_that_others_can_list_is_warned_of(tmp_path, server):
    remember(tmp_path, server, seeds=(_digest(CANARY),))
    (tmp_path / "state").chmod(0o755)
    document = looked_at(tmp_path, rotating(server))

    assert document["ok"]
    assert f"chmod 700 {tmp_path}/state" in document["step"]["store"]["remedy"]


def test_a_sealed_record_is_read_with_its_key_and_not_without(tmp_path, server):
    remember(tmp_path, server, seeds=(_digest(CANARY),), key=KEY)
    key_file = tmp_path / "key"
    key_file.touch(mode=0o600)
    key_file.write_text(KEY)
    text = store_table(tmp_path, f'key_file = "{key_file}"') + rotating(server)
    with_key = examined("--config", str(written(tmp_path, text)))
    without = looked_at(tmp_path, rotating(server))

    assert with_key["ok"]
    assert with_key["step"]["store"]["details"]["sealed"]
    assert without["step"]["store"]["status"] == "failed"
    assert "key" in without["step"]["store"]["remedy"]


def test_a_record_that_will_be_sealed_is_told(tmp_path, server):
    remember(tmp_path, server, seeds=(_digest(CANARY),))
    key_file = tmp_path / "key"
    key_file.touch(mode=0o600)
    key_file.write_text(KEY)
    text = store_table(tmp_path, f'key_file = "{key_file}"') + rotating(server)
    document = examined("--config", str(written(tmp_path, text)))

    assert document["step"]["store"]["status"] == "warning"
    assert "will be at its next change" in document["step"]["store"]["remedy"]


def test_a_link_of_a_chain_that_would_spend_its_token_counts_as_working(tmp_path, server):
    text = rotating(server).replace("chat.source", "chat.source.sources.first")
    text = '[tokens.chat.source]\ntype = "chain"\n' + text
    document = looked_at(tmp_path, text)

    assert document["ok"]
    assert document["step"]["chain"]["details"]["used"] == "first"
    first = {step["step"]: step for step in document["links"]["first"]["steps"]}
    assert first["store"]["details"]["place"] == f"{tmp_path}/state/chat.first.grant"


def test_a_reference_that_leads_nowhere_is_wrong_configuration(tmp_path, server):
    text = table(server).replace(CLIENT_SECRET, f"${{file:{tmp_path}/none}}")
    result = run("--config", str(written(tmp_path, text)))

    assert result.exit_code == os.EX_CONFIG
    assert "client_secret" in result.stderr
    assert json.dumps(CANARY) not in result.output


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "nonsense://host"])
def test_a_proxy_of_the_environment_that_cannot_be_used_is_told(tmp_path, server, proxy):
    path = str(written(tmp_path, table(server)))
    document = examined("--config", path, env={"ALL_PROXY": proxy})

    assert document["step"]["http"]["status"] == "failed"
    assert "ALL_PROXY" in document["step"]["http"]["remedy"]
