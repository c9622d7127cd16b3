"""What stands elsewhere: looked up at the start and at each fetch, and never shown."""

from __future__ import annotations

import asyncio
import os
import traceback

import pytest
from configuring import CANARY, SOURCE, loaded, problems

from token_keeper import FetchError, TransientFetchError
from token_keeper.testing import FakeBackend


def source_of(directory, backend, more, environ=None):
    text = f'[tokens.chat.source]\ntype = "http"\nurl = "{backend.url}"\n{more}\n'
    return loaded(directory, text, environ).parts[0].source


def fetches(source, *between):
    """Fetch, and once more after each of *between* was called; return the tokens and the errors."""

    async def outcome():
        try:
            return (await source.fetch(tries=1)).secret.reveal()
        except FetchError as error:
            return error

    async def run():
        outcomes = [await outcome()]
        for change in between:
            change()
            outcomes.append(await outcome())
        await source.aclose()
        return outcomes

    return asyncio.run(run())


def test_references_in_all_strings_of_a_source_are_sent_as_what_they_stand_for(tmp_path):
    (tmp_path / "key").write_text("of-a-file\n")
    (tmp_path / "credential").write_text("of-systemd")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path), "KEY": "of-the-environment"}
    with FakeBackend() as backend:
        more = f"""
            headers.A = "x ${{file:{tmp_path}/key}}"
            headers.B = "${{credential:credential}}"
            headers.C = "$$${{env:KEY}}"
            params = {{ p = ["${{env:KEY}}", "2"] }}
            json = {{ deep = [{{ er = "${{env:KEY}}" }}], cost = "$5" }}
        """
        (token,) = fetches(source_of(tmp_path, backend, more, environ))
        request = backend.requests[0]

    assert token == backend.issued[0]
    headers = request.headers
    assert (headers["a"], headers["b"], headers["c"]) == ("x of-a-file", "of-systemd", "$of-the-environment")
    assert request.path.endswith("?p=of-the-environment&p=2")
    assert b'"of-the-environment"' in request.body
    assert b'"$5"' in request.body


def test_a_file_is_read_at_each_fetch(tmp_path):
    key = tmp_path / "key"
    key.write_text("one\n")
    with FakeBackend() as backend:
        source = source_of(tmp_path, backend, f'headers = {{ X-Key = "${{file:{key}}}" }}')
        fetches(source, lambda: None, lambda: key.write_text("two"))
        keys = [request.headers["x-key"] for request in backend.requests]

    assert keys == ["one", "one", "two"]


def test_a_file_that_goes_missing_is_a_failed_fetch_that_names_key_and_path_and_may_come_back(tmp_path):
    key = tmp_path / "key"
    key.write_text(CANARY)
    with FakeBackend() as backend:
        source = source_of(tmp_path, backend, f'headers = {{ X-Key = "${{file:{key}}}" }}')
        first, missing, again = fetches(source, key.unlink, lambda: key.write_text(CANARY))

    assert isinstance(missing, TransientFetchError)
    assert str(missing).startswith(
        "tokens.chat.source.headers.X-Key: it refers to a file that cannot be read"
    )
    assert str(key) in str(missing)
    assert {first, again} == set(backend.issued)


@pytest.mark.parametrize("text", ["", "\n", "two\nlines", "caf\u00e9"])
def test_a_file_that_turns_useless_is_a_failed_fetch_without_its_text(tmp_path, text):
    key = tmp_path / "key"
    key.write_text(CANARY)
    with FakeBackend() as backend:
        source = source_of(tmp_path, backend, f'headers = {{ X-Key = "{CANARY}${{file:{key}}}" }}')
        _, error = fetches(source, lambda: key.write_text(text))

    assert isinstance(error, TransientFetchError)
    assert "tokens.chat.source.headers" in str(error)
    assert len(backend.requests) == 1
    assert not text.strip() or text not in str(error)


def test_a_failed_look_up_holds_no_value_in_its_frames(tmp_path):
    key, other = tmp_path / "key", tmp_path / "other"
    key.write_text(CANARY)
    other.write_text("other")
    with FakeBackend() as backend:
        more = f'headers = {{ A = "${{file:{key}}}", B = "${{file:{other}}}" }}'
        source = source_of(tmp_path, backend, more)
        _, error = fetches(source, other.unlink)

    shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert CANARY not in shown
    assert error.__context__ is None


def test_a_named_pipe_is_refused_and_does_not_hold_up_the_start(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    found = problems(tmp_path, f'{SOURCE}headers = {{ A = "${{file:{tmp_path}/pipe}}" }}\n')

    assert "no regular file" in found["tokens.chat.source.headers.A"]


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("${env:MISSING}", "not set: ${env:MISSING}"),
        ("${env:EMPTY}", "empty: ${env:EMPTY}"),
        ("${file:/does/not/exist}", "cannot be read (No such file or directory): /does/not/exist"),
        ("${file:key}", "without an absolute path: ${file:key}"),
        ("${file:DIR/empty}", "is empty"),
        ("${file:DIR/large}", "more than 1 MiB"),
        ("${file:DIR/binary}", "no text in UTF-8"),
        ("${file:DIR}", "no regular file"),
        ("${credential:key}", "it needs $CREDENTIALS_DIRECTORY, which systemd sets"),
        ("${other:key}", "a reference is written ${env:NAME}"),
        ("${env:}", "a reference is written ${env:NAME}"),
        ("${KEY}", "a reference is written ${env:NAME}"),
    ],
)
def test_a_reference_that_leads_nowhere_at_the_start_is_a_mistake_at_its_key(tmp_path, written, words):
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "large").write_text("x" * 1_048_577)
    (tmp_path / "binary").write_bytes(b"\xff")
    text = f'{SOURCE}json = {{ a = ["{CANARY}", "{written.replace("DIR", str(tmp_path))}"] }}\n'
    found = problems(tmp_path, text, {"EMPTY": ""})

    assert list(found) == ["tokens.chat.source.json.a[1]"]
    assert words in found["tokens.chat.source.json.a[1]"]


@pytest.mark.parametrize("name", ["../key", ".", "..", "a/b"])
def test_a_credential_is_a_plain_name(tmp_path, name):
    text = f'{SOURCE}headers = {{ A = "${{credential:{name}}}" }}\n'
    found = problems(tmp_path, text, {"CREDENTIALS_DIRECTORY": str(tmp_path)})

    assert "plain name" in found["tokens.chat.source.headers.A"]


@pytest.mark.parametrize(
    "more",
    [
        'headers = { A = "${env:KEY}\\n" }',
        'url = "${env:KEY}"',
        'url = "https://${env:KEY}@x.example"',
        'url = "http://${env:KEY}.example"',
        'token_path = "[[${env:KEY}"',
        'method = "${env:KEY}"',
        'proxy = "${env:KEY}"',
        'ca_file = "/${env:KEY}"',
        'client_key = "/${env:KEY}"',
    ],
)
def test_what_a_reference_stands_for_is_not_in_a_message(tmp_path, more):
    text = SOURCE if "url" not in more else '[tokens.chat.source]\ntype = "http"\n'
    found = problems(tmp_path, f"{text}{more}\n", {"KEY": CANARY})

    assert len(found) == 1
    assert CANARY not in str(found)


def test_what_a_reference_stands_for_is_in_no_repr(tmp_path):
    checked = loaded(
        tmp_path,
        '[tokens.chat.source]\ntype = "http"\nurl = "https://x.example/${env:KEY}"\n'
        'json = { a = "${env:KEY}" }\n',
        {"KEY": CANARY},
    )

    assert CANARY not in repr(checked)
    assert repr(checked.parts[0].source) == "<ReferringSource tokens.chat.source>"


def test_two_dollars_are_one_in_a_source_without_references(tmp_path):
    with FakeBackend() as backend:
        fetches(source_of(tmp_path, backend, 'headers = { A = "$$5 and $6" }'))

    assert backend.requests[0].headers["a"] == "$5 and $6"
