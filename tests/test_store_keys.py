"""A store is sealed with a key that stands elsewhere, and that can be replaced."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keyring
import pytest
from cryptography.fernet import Fernet
from delivering import needs_root
from keyrings.alt.file import PlaintextKeyring
from storing import (
    NOBODY,
    PROGRAM,
    a_file,
    a_key,
    a_record,
    leased,
    names_in,
    put,
    run_apart,
    shown,
    wait_for,
)

from token_keeper import ConfigError, Secret
from token_keeper._errors import StoreError
from token_keeper.store import DirectoryStore

RAW = bytes(range(200, 232))
"""A key whose base64 differs between the two alphabets."""


def a_key_file(path: Path, *keys: str) -> Path:
    path.write_text("\n".join(keys) + "\n")
    path.chmod(0o600)
    return path


def refusal(directory: Path, **keys: Any) -> StoreError:
    """Return why the record can be neither read nor replaced with these keys."""
    before = (directory / "chat.grant").read_bytes()
    slot = DirectoryStore(directory, **keys).slot("chat")
    with pytest.raises(StoreError) as reading:
        slot.read()
    with leased(slot) as lease:
        for change in (lease.reserve, lease.remove, lambda: lease.write(a_record())):
            with pytest.raises(StoreError):
                change()
    assert (directory / "chat.grant").read_bytes() == before
    return reading.value


def test_a_sealed_record_shows_no_token_and_no_owner(tmp_path: Path) -> None:
    content = a_file(tmp_path, a_record("canary"), key=a_key()).read_text()
    assert "canary" not in content
    assert "issuer.example" not in content


def test_a_sealed_record_can_be_opened_with_any_implementation_of_fernet(tmp_path: Path) -> None:
    key = a_key()
    document = json.loads(a_file(tmp_path, a_record("the-token"), key=key).read_text())
    fernet = Fernet(base64.urlsafe_b64encode(base64.b64decode(key)))
    assert json.loads(fernet.decrypt(document["sealed"]))["refresh_token"] == "the-token"


@pytest.mark.parametrize(
    "form",
    [
        base64.b64encode(RAW).decode(),
        base64.b64encode(RAW).decode().rstrip("="),
        base64.urlsafe_b64encode(RAW).decode(),
        base64.urlsafe_b64encode(RAW).decode().rstrip("="),
        f"# of May\n\n  {base64.b64encode(RAW).decode()}\r\n",
        Secret(base64.b64encode(RAW).decode()),
        base64.urlsafe_b64encode(RAW),
    ],
    ids=[
        "standard",
        "standard, not padded",
        "urlsafe",
        "urlsafe, not padded",
        "with a remark",
        "a Secret",
        "as Fernet makes it",
    ],
)
def test_a_key_may_be_written_in_several_ways(tmp_path: Path, form: str | bytes | Secret) -> None:
    record = a_record()
    a_file(tmp_path, record, key=base64.b64encode(RAW).decode())
    assert DirectoryStore(tmp_path, key=form).slot("chat").read() == record


def bad_keys() -> dict[str, object]:
    return {
        "empty": "",
        "only a remark": "# nothing",
        "a word": "canary",
        "16 bytes": base64.b64encode(RAW[:16]).decode(),
        "33 bytes": base64.b64encode(RAW + b"x").decode(),
        "hex": RAW.hex(),
        "one good and one bad": base64.b64encode(RAW).decode() + "\ncanary",
        "bytes that are no text": RAW,
        "a number": 7,
    }


@pytest.mark.parametrize("key", bad_keys().values(), ids=bad_keys().keys())
def test_what_is_no_key_is_refused_without_being_shown(tmp_path: Path, key: Any) -> None:
    with pytest.raises(ConfigError, match=r"^key: .*32 bytes in base64.*`openssl rand -base64 32`") as caught:
        DirectoryStore(tmp_path, key=key)
    assert "canary" not in shown(caught.value)


def test_what_the_message_tells_to_run_makes_a_key(tmp_path: Path) -> None:
    made = subprocess.run(["openssl", "rand", "-base64", "32"], capture_output=True, text=True, check=True)
    record = a_record()
    assert put(DirectoryStore(tmp_path, key=made.stdout), record).read() == record


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ({"key": "k", "key_file": "f"}, "key_file: cannot be combined with key"),
        ({"key_file": "f", "keyring": True}, "keyring: cannot be combined with key_file"),
        ({"key_file": ""}, "key_file: must be the path"),
        ({"key_file": 7}, "key_file: must be the path"),
        ({"key_credential": "a/b"}, "key_credential: must be the plain name"),
        ({"key_credential": ".."}, "key_credential: must be the plain name"),
        ({"keyring": "service"}, "keyring: must be True, or a pair"),
        ({"keyring": ("service", "")}, "keyring: must be True, or a pair"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_words_that_cannot_work_are_named(tmp_path: Path, words: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DirectoryStore(tmp_path, **words)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("package", "word"),
    [("cryptography", "key_file='x'"), ("cryptography", "keyring=True"), ("keyring", "keyring=True")],
    ids=lambda value: value,
)
def test_a_missing_package_is_named_with_the_line_that_installs_it(package: str, word: str) -> None:
    told = run_apart(
        f"""
        from token_keeper import ConfigError

        sys.modules[{package!r}] = None
        try:
            DirectoryStore("/nowhere", {word})
        except ConfigError as problem:
            tell(problem)
        """
    )
    setting = word.partition("=")[0]
    assert told == f"{setting}: needs the package {package}: pip install 'token-keeper[store]'"


def test_a_record_that_is_not_sealed_yet_is_read_and_sealed_at_the_next_write(tmp_path: Path) -> None:
    plain = a_record("canary")
    path = a_file(tmp_path, plain)
    slot = DirectoryStore(tmp_path, key=a_key()).slot("chat")
    assert slot.read() == plain
    with leased(slot) as lease:
        lease.write(plain)
    assert "canary" not in path.read_text()
    assert slot.read() == plain


def test_a_sealed_record_is_not_read_without_a_key(tmp_path: Path) -> None:
    a_file(tmp_path, key=a_key())
    assert "is sealed, and no key is given. It was left as it is; give the key" in str(refusal(tmp_path))


def test_a_sealed_record_is_not_read_with_another_key(tmp_path: Path) -> None:
    a_file(tmp_path, key=a_key())
    problem = str(refusal(tmp_path, key=a_key()))
    assert "is sealed with another key than key holds. It was left as it is; add the key" in problem


def test_a_key_is_replaced_while_the_program_runs(tmp_path: Path) -> None:
    old, new = a_key(), a_key()
    file = a_key_file(tmp_path / "key", old)
    first, second = a_record(), a_record()
    slot = put(DirectoryStore(tmp_path / "store", key_file=file), first)
    a_key_file(file, "# of May", new, "# of April", old)
    assert slot.read() == first
    with leased(slot) as lease:
        lease.write(second)
    a_key_file(file, new)
    assert slot.read() == second


def test_keys_that_come_after_the_first_open_and_do_not_seal(tmp_path: Path) -> None:
    old, new = a_key(), a_key()
    a_file(tmp_path, key=f"{old}\n{new}")
    assert "another key" in str(refusal(tmp_path, key=new))


def test_a_key_that_vanishes_after_a_token_was_sent_does_not_lose_the_answer(tmp_path: Path) -> None:
    file = a_key_file(tmp_path / "key", a_key())
    aside = tmp_path / "aside"
    answer = a_record()
    slot = put(DirectoryStore(tmp_path / "store", key_file=file), a_record())
    with leased(slot) as lease:
        lease.reserve()
        file.rename(aside)
        lease.write(answer)
    aside.rename(file)
    assert slot.read() == answer


def test_a_missing_key_file_is_named_and_not_made(tmp_path: Path) -> None:
    slot = DirectoryStore(tmp_path / "store", key_file=tmp_path / "key").slot("chat")
    with leased(slot) as lease, pytest.raises(StoreError) as caught:
        lease.write(a_record())
    told = str(caught.value)
    assert told.startswith(f"{tmp_path}/key: is missing. The records stay as they are")
    assert f"(umask 077; openssl rand -base64 32 > {tmp_path}/key)" in told
    assert names_in(tmp_path / "store") == ["chat.lock"]
    assert not (tmp_path / "key").exists()


@pytest.mark.parametrize(
    ("content", "problem"),
    [("", "holds no key, or something else"), ("canary", "holds no key"), ("k" * 70_000, "holds no key")],
    ids=["empty", "text", "large"],
)
def test_a_key_file_without_a_key_is_named(tmp_path: Path, content: str, problem: str) -> None:
    file = a_key_file(tmp_path / "key", content)
    slot = DirectoryStore(tmp_path / "store", key_file=file).slot("chat")
    with leased(slot) as lease, pytest.raises(StoreError, match=problem) as caught:
        lease.write(a_record())
    assert caught.value.place == str(file)
    assert "canary" not in shown(caught.value).replace("canary-", "")


def test_a_key_file_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    file = a_key_file(tmp_path / "key", a_key())
    file.chmod(0o644)
    slot = DirectoryStore(tmp_path / "store", key_file=file).slot("chat")
    with leased(slot) as lease, pytest.raises(StoreError, match=rf"read by others.*chmod 600 {file}"):
        lease.write(a_record())


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir], ids=["a pipe", "a directory"])
def test_a_key_file_that_is_none_is_named_at_once(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "key")
    slot = DirectoryStore(tmp_path / "store", key_file=tmp_path / "key").slot("chat")
    with leased(slot) as lease, pytest.raises(StoreError, match="is no regular file"):
        lease.reserve()


@needs_root
def test_a_key_file_of_another_user_is_not_used(tmp_path: Path) -> None:
    file = a_key_file(tmp_path / "key", a_key())
    os.chown(file, NOBODY, NOBODY)
    slot = DirectoryStore(tmp_path / "store", key_file=file).slot("chat")
    with leased(slot) as lease, pytest.raises(StoreError, match="belongs to uid 65534, not to uid 0 or root"):
        lease.reserve()


def test_a_key_file_is_found_behind_the_links_of_an_orchestrator(tmp_path: Path) -> None:
    (tmp_path / "..2026").mkdir()
    a_key_file(tmp_path / "..2026" / "key", a_key())
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "key").symlink_to("..data/key")
    record = a_record()
    assert put(DirectoryStore(tmp_path / "store", key_file=tmp_path / "key"), record).read() == record


def test_a_key_comes_from_a_credential_of_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # With an access list systemd's files seem to be readable by their group.
    a_key_file(tmp_path / "store-key", a_key()).chmod(0o440)
    store = DirectoryStore(tmp_path / "store", key_credential="store-key")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    record = a_record("canary")
    slot = put(store, record)
    assert slot.read() == record
    assert "canary" not in (tmp_path / "store" / "chat.grant").read_text()


def test_without_systemd_a_credential_is_asked_for_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    slot = DirectoryStore(tmp_path, key_credential="store-key").slot("chat")
    with (
        leased(slot) as lease,
        pytest.raises(StoreError, match=r"credential store-key: .*LoadCredential=store-k"),
    ):
        lease.reserve()


# Keyrings


@pytest.fixture
def ring(tmp_path: Path) -> Iterator[PlaintextKeyring]:
    """Make a keyring in a file the one of this process."""
    ring = PlaintextKeyring()
    ring.file_path = str(tmp_path / "ring.cfg")
    before = keyring.core._keyring_backend
    keyring.set_keyring(ring)
    yield ring
    keyring.core._keyring_backend = before


def test_the_key_is_made_in_the_keyring_with_the_first_record(tmp_path: Path, ring: PlaintextKeyring) -> None:
    path = tmp_path / "store"
    record = a_record("canary")
    slot = put(DirectoryStore(path, keyring=True), record)
    key = ring.get_password("token-keeper", str(path))
    assert key is not None
    assert "canary" not in (path / "chat.grant").read_text()
    assert slot.read() == record
    assert DirectoryStore(path, key=key).slot("chat").read() == record


def test_a_key_that_is_in_the_keyring_is_used(tmp_path: Path, ring: PlaintextKeyring) -> None:
    key, record = a_key(), a_record()
    ring.set_password("vault", "me", key)
    put(DirectoryStore(tmp_path / "store", keyring=("vault", "me")), record)
    assert ring.get_password("vault", "me") == key
    assert DirectoryStore(tmp_path / "store", key=key).slot("chat").read() == record


def test_no_key_is_made_for_reading(tmp_path: Path, ring: PlaintextKeyring) -> None:
    record = a_record()
    a_file(tmp_path / "store", record)
    assert DirectoryStore(tmp_path / "store", keyring=True).slot("chat").read() == record
    assert ring.get_password("token-keeper", str(tmp_path / "store")) is None


def test_no_key_is_made_if_something_is_sealed_with_one_that_is_gone(
    tmp_path: Path, ring: PlaintextKeyring
) -> None:
    path = tmp_path / "store"
    store = DirectoryStore(path, keyring=True)
    put(store, a_record(), "mail")
    ring.delete_password("token-keeper", str(path))
    with leased(store.slot("chat")) as lease, pytest.raises(StoreError) as caught:
        lease.write(a_record())
    assert "is missing, and mail.grant is sealed already, or damaged" in str(caught.value)
    assert ring.get_password("token-keeper", str(path)) is None
    with pytest.raises(StoreError, match=r"is missing\. The records stay as they are; give the key"):
        store.slot("mail").read()


def test_what_is_no_key_in_the_keyring_is_left_there(tmp_path: Path, ring: PlaintextKeyring) -> None:
    ring.set_password("vault", "me", "canary-password")
    slot = DirectoryStore(tmp_path / "store", keyring=("vault", "me")).slot("chat")
    with (
        leased(slot) as lease,
        pytest.raises(StoreError, match=r"keyring entry 'vault', 'me': is no key") as caught,
    ):
        lease.write(a_record())
    assert "canary-password" not in shown(caught.value)
    assert ring.get_password("vault", "me") == "canary-password"


@pytest.mark.parametrize(
    ("backend", "problem"),
    [
        ("keyring.backends.fail.Keyring", "cannot be had: NoKeyringError in the keyring"),
        ("keyring.backends.null.Keyring", "does not last: the keyring forgot it"),
    ],
    ids=["there is none", "it forgets"],
)
def test_a_keyring_that_cannot_work_is_said(tmp_path: Path, backend: str, problem: str) -> None:
    before = keyring.core._keyring_backend
    keyring.set_keyring(keyring.core.load_keyring(backend))
    try:
        slot = DirectoryStore(tmp_path / "store", keyring=True).slot("chat")
        with leased(slot) as lease, pytest.raises(StoreError) as caught:
            lease.write(a_record())
    finally:
        keyring.core._keyring_backend = before
    assert problem in str(caught.value)
    assert names_in(tmp_path / "store") == [".key.lock", "chat.lock"] or "NoKeyring" in problem


def test_processes_that_start_together_make_one_key(tmp_path: Path) -> None:
    ring = "[backend]\ndefault-keyring=keyrings.alt.file.PlaintextKeyring\n"
    (tmp_path / "config" / "python_keyring").mkdir(parents=True)
    (tmp_path / "config" / "python_keyring" / "keyringrc.cfg").write_text(ring)
    environment = {
        **os.environ,
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "PYTHON_KEYRING_BACKEND": "keyrings.alt.file.PlaintextKeyring",
    }
    script = PROGRAM + textwrap.dedent(
        """
        import keyring
        store = DirectoryStore(sys.argv[1], keyring=True)
        tell("ready")
        sys.stdin.readline()
        with store.slot(sys.argv[2]).try_lease() as lease:
            lease.write(a_record(sys.argv[2]))
        for name in sys.stdin.readline().split():
            assert store.slot(name).read() == a_record(name)
        """
    )
    names = ["a", "b", "c", "d"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "store"), name],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for name in names:
        wait_for(tmp_path / "store" / f"{name}.grant")
    for process in processes:
        process.communicate(" ".join(names) + "\n", timeout=20)
    assert [process.returncode for process in processes] == [0] * 4
