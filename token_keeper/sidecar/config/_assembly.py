"""How a table becomes a source: its references are looked up, and what a constructor refuses is noted."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from token_keeper._errors import ConfigError
from token_keeper._model import Secret
from token_keeper._redact import is_secret_name
from token_keeper.sidecar.config._lookup import look_up_again, refers
from token_keeper.sidecar.config._notes import At, Notes
from token_keeper.sidecar.config._pem import no_authorities, no_certificate, unreadable
from token_keeper.sidecar.config._records import Found
from token_keeper.sidecar.config._shown import shown

SOMEWHERE: Final = "https://token-keeper.invalid/"
"""Stands for a URL that cannot be used, so that the rest is checked all the same."""

BuiltT = TypeVar("BuiltT")

_FILES: Final = ("ca_file", "client_cert", "client_key")
_SHOWN: Final = frozenset(
    {
        *("url", "method", "timeout", "default_lifetime", "token_path", "expires_path", "proxy"),
        *("token_url", "issuer", "device_authorization_url", "revocation_url", "algorithm", "cwd", "path"),
        *("replay_window", "replay_limit", "assertion_lifetime"),
    }
)
_CLEAR: Final = re.compile(r"to \S+ in the clear")
_IN_TOML: Final = {
    "a string, a Secret, or a function that returns one": "a string",
    "a string, a Secret, a number, a list, or a function": "a string, a number, or a list of strings",
    "set allow_http=True": "set allow_http = true",
    "give them as auth=(user, password)": "send them in headers",
    ", or a function": "",
}
"""What sources say to programmers, and what is said of a file instead."""


@dataclass(frozen=True, slots=True)
class Words:
    """The words of one source.

    Args:
        stated: As they stand in the file.
        read: Of these, what could be read, by the types of the model; references are still in it.
        meant: Of these, what leads somewhere, with the references replaced.
    """

    stated: Mapping[str, Any]
    read: dict[str, Any]
    meant: dict[str, Any]


class Again:
    """Says at each call what a text with references means then. Blocks while it reads files.

    Args:
        text: What stands in the file.
        at: Where it stands.
        environ: Where `${env:NAME}` looks.
    """

    __slots__ = ("_at", "_environ", "_text")

    def __init__(self, text: str, at: At, environ: Mapping[str, str]) -> None:
        self._text = text
        self._at = at
        self._environ = environ

    def __call__(self) -> Secret:
        """Return the text of now.

        Raises:
            TransientFetchError: If a reference leads nowhere now.
        """
        found = look_up_again({str(self._at[-1]): self._text}, self._at[:-1], self._environ)
        return Secret(found.value[str(self._at[-1])])


def words_in(found: Found, keys: tuple[str, ...], at: At, notes: Notes) -> Words:
    """Return the words of *keys* in the table at *at*, after notes on references that lead nowhere."""
    stated = {key: found.stated[key] for key in keys if key in found.stated}
    unresolved: set[str | int] = set()

    def leads_nowhere(place: At, problem: str) -> None:
        unresolved.add(place[len(at)])
        notes.wrong(place, problem)

    looked_up = notes.lookup.of(stated, at, leads_nowhere)
    read = {key: found[key] for key in stated if found.has(key)}
    meant = {
        key: looked_up[key] if isinstance(value, str | dict | list) else value
        for key, value in read.items()
        if key not in unresolved
    }
    return Words(stated, read, meant)


def assembled(
    make: Callable[..., BuiltT],
    words: Words,
    at: At,
    notes: Notes,
    *,
    instead: Mapping[str, Mapping[str, Any]],
) -> BuiltT | None:
    """Return what *make* makes of *words*, or of what it does not refuse of them, after notes on the rest.

    Args:
        make: Raises `ConfigError` about one of its arguments, or a member of one.
        words: Its arguments.
        at: Where they stand.
        notes: Where to note.
        instead: What stands in for a word that cannot be used, by word.
    """
    meant, replaced = {**words.meant}, set()
    for key in words.stated.keys() - meant.keys():
        meant |= instead.get(key, {})
    while True:
        try:
            return make(**meant)
        except ConfigError as error:
            key, bracket, member = error.key.partition("[")
            problem = error.problem
        place: At = (*at, key)
        if bracket and isinstance(meant.get(key), Mapping):
            place += tuple(name for name in meant[key] if f"{name!r}]" == member)
        notes.wrong(place, _said(problem, key, words.stated.get(key)))
        if len(place) > len(at) + 1:
            meant[key] = {name: value for name, value in meant[key].items() if name != place[-1]}
        elif key in replaced or (key not in meant and key not in instead):
            return None
        else:
            replaced.add(key)
            meant.pop(key, None)
            meant |= instead.get(key, {})


def read_again(value: Any, meant: Any, at: At, environ: Mapping[str, str]) -> Any:
    """Return *meant*, with functions in it where *value* refers to files: they are read at each fetch."""
    if isinstance(value, str):
        return Again(value, at, environ) if refers(value, only_files=True) else meant
    if isinstance(value, dict):
        return {key: read_again(one, meant[key], (*at, key), environ) for key, one in value.items()}
    return meant


def settle(words: Words, keys: tuple[str, ...], at: At, notes: Notes) -> None:
    """Note what files say now on *keys*: if a reload finds something else there, the token has changed."""
    told = [
        [key, words.meant[key]]
        for key in keys
        if key in words.meant and refers(words.read[key], only_files=True)
    ]
    if told:
        notes.settled.setdefault(at[1], []).append([list(at), told])


def check_tls_files(meant: Mapping[str, Any], at: At, notes: Notes) -> None:
    """Note which files for TLS cannot be used."""
    given = {key: meant[key] for key in _FILES if key in meant}
    problems = {key: notes.once(unreadable, path) for key, path in given.items()}
    if not any(problems.values()):
        if "ca_file" in given:
            problems["ca_file"] = notes.once(no_authorities, given["ca_file"])
        if "client_cert" in given:
            pair = (given["client_cert"], given.get("client_key", given["client_cert"]))
            problems["client_cert"] = notes.once(no_certificate, *pair)
    for key, problem in problems.items():
        if problem is not None:
            notes.wrong((*at, key), problem)


def warn_of_secrets(words: Mapping[str, Any], at: At, notes: Notes) -> None:
    """Warn of secrets that stand in a file that everybody can read."""
    if not notes.is_file_open:
        return
    for key, value in words.items():
        for place, text in _texts(value, (*at, key)):
            if is_secret_name(str(place[-1])) and not refers(text):
                notes.warn(
                    place,
                    "looks like a secret, and every user of this machine can read this file:"
                    " write ${file:PATH} or ${env:NAME}, or chmod o-r",
                )


def _texts(value: object, at: At) -> list[tuple[At, str]]:
    """Return the strings in *value*, and in its members if it is a table."""
    members = value.items() if isinstance(value, Mapping) else [(None, value)]
    return [((*at, key) if key else at, one) for key, one in members if isinstance(one, str)]


def _said(problem: str, key: str, word: object) -> str:
    """Return a *problem* of a constructor in words that fit a file, without what *word* refers to."""
    if key.endswith("_path"):
        # The rest repeats the expression.
        problem = problem.partition(":")[0]
    for code, words in _IN_TOML.items():
        problem = problem.replace(code, words)
    if isinstance(word, str) and "$" in word:
        problem = _CLEAR.sub("to another machine in the clear", problem)
        return f"{problem}; that is said of what it stands for"
    return f"{problem}; it is {shown(word)}" if key in _SHOWN and word is not None else problem
