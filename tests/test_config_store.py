"""Where the configuration has grants kept: under which names, in which directory, with which key."""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
from pathlib import Path

import pytest
from authorization_server import CLIENT_ID, CLIENT_SECRET, AuthorizationServer
from configuring import CANARY, SOURCE, loaded, problems, warnings, written

from token_keeper.sidecar.config import load
from token_keeper.sidecar.config._stores import default_directory

TABLE = "[tokens.chat.source]\n"
REFRESH = (
    f'{TABLE}type = "oauth2"\ntoken_url = "https://login.example/token"\nclient_id = "worker"\n'
    'grant = "refresh_token"\nrefresh_token = "r"\n'
)


@pytest.fixture(autouse=True)
def private(tmp_path):
    tmp_path.chmod(0o700)


def store_at(directory):
    return f'[store]\ndirectory = "{directory}/store"\n'


def a_client(server, grant="client_credentials"):
    """Return the table of a source that asks *server*."""
    table = (
        f'type = "oauth2"\ntoken_url = "{server.endpoint()}"\n'
        f'client_id = "{CLIENT_ID}"\nclient_secret = "{CLIENT_SECRET}"\ngrant = "{grant}"\n'
    )
    return f'{table}refresh_token = "{server.login()}"\n' if grant == "refresh_token" else table


def outcome_of(source):
    async def run():
        try:
            return (await source.fetch(tries=1)).secret.reveal()
        finally:
            await source.aclose()

    return asyncio.run(run())


def stored_in(tmp_path):
    """Return the names of the files that a fetch of each source leaves in the store."""
    return sorted(path.name for path in (tmp_path / "store").glob("*.grant"))


def test_grants_are_kept_by_the_names_of_their_tokens_and_links(tmp_path):
    with AuthorizationServer(rotate=True) as server:
        text = (
            f"{store_at(tmp_path)}[tokens.plain.source]\n{a_client(server)}"
            f"[tokens.kept.source]\n{a_client(server)}keep = true\n"
            f"[tokens.user.source]\n{a_client(server, 'refresh_token')}"
            f'[tokens.chain.source]\ntype = "chain"\n'
            f"[tokens.chain.source.sources.first]\n{a_client(server, 'refresh_token')}"
        )
        outcomes = [outcome_of(parts.source) for parts in loaded(tmp_path, text).parts]

        assert all(server.is_active(token) for token in outcomes)
    assert stored_in(tmp_path) == ["chain.first.grant", "kept.grant", "user.grant"]


def test_the_store_may_stand_below_the_tokens(tmp_path):
    with AuthorizationServer() as server:
        text = f"{TABLE}{a_client(server)}keep = true\n{store_at(tmp_path)}"
        outcome_of(loaded(tmp_path, text).parts[0].source)

    assert stored_in(tmp_path) == ["chat.grant"]


def test_two_sources_under_one_name_are_an_error_at_the_second(tmp_path):
    table = REFRESH.removeprefix(TABLE)
    text = (
        f'{store_at(tmp_path)}[tokens."a.b".source]\n{table}'
        f'[tokens.a.source]\ntype = "chain"\n[tokens.a.source.sources.b]\n{table}'
    )
    found = problems(tmp_path, text)

    assert list(found) == ["tokens.a.source.sources.b"]
    assert found["tokens.a.source.sources.b"] == (
        'is stored as a.b, and so is tokens."a.b".source: rename one of them'
    )


def test_a_name_that_no_grant_can_have_is_an_error(tmp_path):
    name, table = "n" * 60, REFRESH.removeprefix(TABLE)
    chain = f'[tokens.{name}.source]\ntype = "chain"\n[tokens.{name}.source.sources.link]\n{table}'

    assert "at most 64 characters" in str(problems(tmp_path, store_at(tmp_path) + chain))


@pytest.mark.parametrize(
    ("environ", "directory"),
    [
        ({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b", "XDG_STATE_HOME": "/x", "HOME": "/h"}, "/var/lib/a"),
        ({"XDG_STATE_HOME": "/x", "HOME": "/h"}, "/x/token-keeper"),
        ({"XDG_STATE_HOME": "relative", "HOME": "/h"}, "/h/.local/state/token-keeper"),
        ({"HOME": "/h"}, "/h/.local/state/token-keeper"),
    ],
)
def test_the_usual_directory_is_that_of_the_unit_or_of_the_user(environ, directory):
    assert default_directory(environ) == directory


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ('directory = "store"', "directory", "absolute path"),
        ('directory = "${env:HOME}/s"', "directory", "work in the strings of a token's source"),
        ('directory = "/no/such/store"', "directory", "mkdir -p /no/such"),
        ('directory = "DIR/keeper.toml"', "directory", "is no directory"),
        ('directory = "DIR/open"', "directory", "chmod 700"),
        ('directory = "DIR/store"\nkey_file = "DIR/none"', "key_file", "is missing"),
        ('directory = "DIR/store"\nkey_file = "DIR/readable"', "key_file", "chmod 600"),
        ('directory = "DIR/store"\nkey_file = "DIR/nonsense"', "key_file", "holds no key"),
        ('directory = "DIR/store"\nkey_credential = "a/b"', "key_credential", "plain name"),
        ('directory = "DIR/store"\nkey_credential = "key"', "key_credential", "needs $CREDENTIALS_DIRECTORY"),
        ('directory = "DIR/store"\nkey_file = "DIR/key"\nkeyring = true', "keyring", "cannot be combined"),
        ('directory = "DIR/store"\nkey_fil = "DIR/key"', "key_fil", "did you mean key_file?"),
    ],
)
def test_a_mistake_in_the_store_is_named_and_nothing_is_written(tmp_path, text, key, words):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    good = base64.b64encode(os.urandom(32)).decode()
    for name, content, mode in (
        *(("readable", good, 0o644), ("nonsense", CANARY, 0o600)),
        ("key", good, 0o600),
    ):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(mode)
    found = problems(tmp_path, f"[store]\n{text.replace('DIR', str(tmp_path))}\n{SOURCE}")

    assert list(found) == [f"store.{key}"]
    assert words in found[f"store.{key}"]
    assert CANARY not in str(found)
    assert not (tmp_path / "store").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a directory away")
def test_a_store_of_somebody_else_is_refused(tmp_path):
    (tmp_path / "store").mkdir(mode=0o700)
    os.chown(tmp_path / "store", 4711, 4711)

    assert "belongs to user 4711" in problems(tmp_path, store_at(tmp_path) + SOURCE)["store.directory"]


def test_a_store_that_others_can_look_into_is_a_warning(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store").chmod(0o755)

    assert "chmod 700" in warnings(tmp_path, f"{store_at(tmp_path)}{REFRESH}")["store.directory"]


def test_the_usual_store_is_looked_at_only_if_a_source_needs_it(tmp_path):
    environ = {"XDG_STATE_HOME": "/dev/null/no-directory"}

    assert problems(tmp_path, SOURCE, environ) == {}
    assert list(problems(tmp_path, REFRESH, environ)) == ["store.directory"]


def test_the_usual_store_is_made_with_all_above_it(tmp_path):
    environ = {"XDG_STATE_HOME": str(tmp_path / "of" / "nobody")}

    assert problems(tmp_path, REFRESH, environ) == {}
    assert not (tmp_path / "of").exists()


def test_a_reload_checks_the_store_of_the_file_and_goes_on_with_the_one_that_runs(tmp_path):
    numbers = itertools.count()
    with AuthorizationServer(rotate=True) as server:

        def text(directory: Path) -> str:
            # Each time with another login.
            more = f"extra = {{ n = {next(numbers)} }}\n"
            return f'[store]\ndirectory = "{directory}"\n{TABLE}{a_client(server, "refresh_token")}{more}'

        running = loaded(tmp_path, text(tmp_path / "store")).config.store
        path = written(tmp_path, text(tmp_path / "other"))
        checked = load(path, environ={}, store=running)
        outcome_of(checked.parts[0].source)

    assert checked.config.store.directory == f"{tmp_path}/other"
    assert stored_in(tmp_path) == ["chat.grant"]
    assert not (tmp_path / "other").exists()
