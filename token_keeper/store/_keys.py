"""Where the keys of a store come from. They are read when they are needed, so they can be replaced."""

from __future__ import annotations

import base64
import os
import secrets
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final, Protocol, TypeAlias

from token_keeper._errors import ConfigError, StoreError
from token_keeper._model import Secret
from token_keeper.store._seal import EXPECTED, KEY_BYTES, MAKES_ONE, Seal, needs

CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"
"""Where systemd says in which directory the credentials of a service are."""
_MOST_BYTES: Final = 65_536
_FILE: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_KEPT: Final = "The records stay as they are"

Alone: TypeAlias = Callable[[], AbstractContextManager[str]]


class Keys(Protocol):
    """Keys of a store."""

    def opening(self) -> Seal:
        """Return what opens records.

        Raises:
            StoreError: If there are no keys.
        """
        ...

    def sealing(self, alone: Alone) -> Seal:
        """Return what seals records; make a key first if that is ours to do.

        Args:
            alone: Keeps others from making one meanwhile, and says why none may be made, or nothing.

        Raises:
            StoreError: If there are no keys.
        """
        ...


class GivenKey:
    """Keys that stand in the program. Never shown.

    Raises:
        ConfigError: If they are none.
    """

    def __init__(self, key: Secret) -> None:
        seal = _seal_of(key, "key")
        if seal is None:
            raise ConfigError("key", f"is none: {EXPECTED}")
        self._seal = seal

    def opening(self) -> Seal:
        return self._seal

    def sealing(self, alone: Alone) -> Seal:  # noqa: ARG002 - There is one.
        return self._seal


class KeyFile:
    """Keys in a file, which is read at each use.

    Args:
        path: Of the file. Links are followed: orchestrators mount secrets so.
        place: What messages call it.
        is_checked: Whether its owner and mode matter.
    """

    def __init__(self, path: str, *, place: str | None = None, is_checked: bool = True) -> None:
        self._path = path
        self._place = place or path
        self._is_checked = is_checked

    def opening(self) -> Seal:
        text = _text_of(self._path, is_checked=self._is_checked)
        if isinstance(text, str):
            raise StoreError(self._place, text)
        seal = _seal_of(text, self._place)
        if seal is None:
            raise StoreError(self._place, f"holds no key, or something else, too. {_KEPT}; {EXPECTED}")
        return seal

    def sealing(self, alone: Alone) -> Seal:  # noqa: ARG002 - Made by its owner, never by us.
        return self.opening()


class KeyCredential:
    """Keys in a credential that systemd hands to a service.

    Args:
        name: As in `LoadCredential=` or `LoadCredentialEncrypted=`.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def opening(self) -> Seal:
        place = f"credential {self._name}"
        directory = os.environ.get(CREDENTIALS)
        if not directory:
            raise StoreError(
                place,
                f"cannot be read: ${CREDENTIALS} is not set. {_KEPT}; run as a systemd unit with "
                f"LoadCredential={self._name}:/path/to/key, or use key_file",
            )
        # systemd sees to who reads it. With an access list the group's bits say nothing.
        path = os.path.join(directory, self._name)  # noqa: PTH118 - A name, as it is shown.
        return KeyFile(path, place=place, is_checked=False).opening()

    def sealing(self, alone: Alone) -> Seal:  # noqa: ARG002 - As above.
        return self.opening()


class KeyringKey:
    """A key in the keyring of the user who is logged in.

    Args:
        service: The name under which it is kept there.
        user: The name beside it.
    """

    def __init__(self, service: str, user: str) -> None:
        self._service = service
        self._user = user
        self._place = f"keyring entry {service!r}, {user!r}"

    def opening(self) -> Seal:
        found = self._found()
        if found is None:
            raise StoreError(
                self._place, f"is missing. {_KEPT}; give the key that sealed them, or move them away"
            )
        return self._seal(found)

    def sealing(self, alone: Alone) -> Seal:
        found = self._found() or self._made(alone)
        if found is None:
            raise StoreError(self._place, f"does not last: the keyring forgot it. {_KEPT}; use key_file")
        return self._seal(found)

    def _made(self, alone: Alone) -> Secret | None:
        with alone() as why_not:
            found = self._found()
            if found is not None:
                return found
            if why_not:
                raise StoreError(
                    self._place, f"is missing, and {why_not}. {_KEPT}; give the key that sealed it"
                )
            self._keep(Secret(base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode("ascii")))
            return self._found()

    def _seal(self, found: Secret) -> Seal:
        seal = _seal_of(found, "the keyring")
        if seal is None:
            raise StoreError(self._place, f"is no key. {_KEPT}; {EXPECTED}")
        return seal

    def _found(self) -> Secret | None:
        import keyring  # noqa: PLC0415 - Slow, and few have it.

        return self._asked(lambda: _secret_or_none(keyring.get_password(self._service, self._user)))

    def _keep(self, key: Secret) -> None:
        import keyring  # noqa: PLC0415 - As above.

        self._asked(lambda: keyring.set_password(self._service, self._user, key.reveal()))

    def _asked(self, question: Callable[[], Secret | None]) -> Secret | None:
        try:
            return question()
        except Exception as error:  # noqa: BLE001 - Each of its many backends raises what it likes.
            problem = type(error).__name__
        # Out of its handler: its frames may hold the key.
        raise StoreError(
            self._place,
            f"cannot be had: {problem} in the keyring. {_KEPT}; unlock or start it, or use key_file",
        )


def keys_of(
    directory: str, key: object, key_file: object, key_credential: object, keyring: object
) -> Keys | None:
    """Return where the keys of the store in *directory* come from; None if it is not sealed.

    Raises:
        ConfigError: About the setting that cannot work.
    """
    settings = {"key": key, "key_file": key_file, "key_credential": key_credential, "keyring": keyring}
    given = [word for word, value in settings.items() if value is not None and value is not False]
    if not given:
        return None
    if len(given) > 1:
        raise ConfigError(given[1], f"cannot be combined with {given[0]}: a store has keys from one place")
    needs(given[0], ("cryptography", "keyring") if given[0] == "keyring" else ("cryptography",))
    return _KINDS[given[0]](settings[given[0]], directory)


def _given(value: object, _directory: str) -> Keys:
    if not isinstance(value, Secret):
        raise ConfigError("key", f"must be a text or a Secret: {EXPECTED}")
    return GivenKey(value)


def _file(value: object, _directory: str) -> Keys:
    if not isinstance(value, str | os.PathLike) or not str(value) or "\0" in str(value):
        raise ConfigError("key_file", f"must be the path of a file; {MAKES_ONE} makes its content")
    return KeyFile(os.path.abspath(value))  # noqa: PTH100 - A text, as the user gave it.


def _credential(value: object, _directory: str) -> Keys:
    if not isinstance(value, str) or not value or "/" in value or "\0" in value or value in {".", ".."}:
        raise ConfigError("key_credential", "must be the plain name of a credential, without a directory")
    return KeyCredential(value)


def _keyring(value: object, directory: str) -> Keys:
    if value is True:
        # Each directory has a key of its own, so whoever holds its lock may make it.
        return KeyringKey("token-keeper", directory)
    is_pair = isinstance(value, tuple | list) and len(value) == 2
    if not is_pair or not all(isinstance(one, str) and one for one in value):  # type: ignore[attr-defined]
        raise ConfigError("keyring", "must be True, or a pair of a service and a user")
    return KeyringKey(*value)  # type: ignore[misc]


_KINDS: Final = {"key": _given, "key_file": _file, "key_credential": _credential, "keyring": _keyring}


def _seal_of(text: Secret, origin: str) -> Seal | None:
    """Return the seal, or None: an error of ours would show the text in its frames."""
    try:
        return Seal(text.reveal(), origin)
    except ValueError:
        return None


def _secret_or_none(value: str | None) -> Secret | None:
    return None if value is None else Secret(value)


def _text_of(path: str, *, is_checked: bool) -> Secret | str:
    """Return the text of the file, or why it is not used."""
    try:
        descriptor = os.open(path, _FILE)
        try:
            problem = _unusable(os.fstat(descriptor), path, is_checked=is_checked)
            content = b"" if problem else os.read(descriptor, _MOST_BYTES)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        makes = f"(umask 077; {MAKES_ONE} > {path})"
        return f"is missing. {_KEPT}; give the key back, or, if there never was one: {makes}"
    except OSError as error:
        return f"cannot be read: {os.strerror(error.errno or 0)}. {_KEPT}; let uid {os.geteuid()} read it"
    return problem or Secret(content.decode("ascii", "replace"))


def _unusable(found: os.stat_result, path: str, *, is_checked: bool) -> str:
    if not stat.S_ISREG(found.st_mode):
        return f"is no regular file. {_KEPT}; correct the path"
    if not is_checked:
        return ""
    if found.st_uid not in {0, os.geteuid()}:
        return (
            f"belongs to uid {found.st_uid}, not to uid {os.geteuid()} or root. {_KEPT}; "
            f"chown it, and replace the key if that is a stranger"
        )
    # As PostgreSQL: root may let a group read its file.
    if found.st_mode & (0o037 if found.st_uid == 0 else 0o077):
        return f"can be read by others. {_KEPT}; chmod 600 {path}, and replace the key if somebody did"
    return ""
