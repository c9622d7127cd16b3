"""Turns a source's table into a source."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Mapping
from typing import Any, Final

from msgspec.structs import asdict

from token_keeper._errors import ConfigError, FetchError, TransientFetchError
from token_keeper._model import Issued
from token_keeper._redact import is_secret_name
from token_keeper.sidecar.config._exact import Exact
from token_keeper.sidecar.config._lookup import look_up_again, refers
from token_keeper.sidecar.config._model import HttpSourceConfig
from token_keeper.sidecar.config._notes import At, Notes, written
from token_keeper.sidecar.config._pem import no_authorities, no_certificate, unreadable
from token_keeper.sidecar.config._records import Found, check
from token_keeper.sidecar.config._shown import shown
from token_keeper.sources import HttpSource
from token_keeper.sources._callback import Callback
from token_keeper.sources._source import cleanly, without_traces

LOOK_UP_S: Final = 5.0
"""Longest time for reading all files of one source."""

_SOMEWHERE: Final = "https://token-keeper.invalid/"
_FILES: Final = ("ca_file", "client_cert", "client_key")
_SENT: Final = ("headers", "params", "json", "data")
_SHOWN: Final = ("url", "method", "timeout", "default_lifetime", "token_path", "expires_path", "proxy")
_CLEAR: Final = re.compile(r"to \S+ in the clear")
_IN_TOML: Final = {
    "set allow_http=True": "set allow_http = true",
    "give them as auth=(user, password)": "send them in headers",
    ", or a function": "",
}
"""What `HttpSource` says to programmers, and what is said of a file instead."""


class ReferringSource:
    """An HTTP source with values that stand elsewhere: files are read at each fetch.

    Args:
        words: The words of `HttpSource`, as they stand in the file.
        at: The key of the source.
        environ: Where `${env:NAME}` looks.
        first: What the words mean now.
        source: The source made of them.
    """

    splay = True

    def __init__(
        self, words: Mapping[str, Any], at: At, environ: Mapping[str, str], first: Exact, source: HttpSource
    ) -> None:
        self._at = at
        self._known = first
        self._source = source
        look = functools.partial(look_up_again, words, at, environ)
        # A variable stays as it is while the process lives; a thread for it would be wasted.
        is_needed = refers(words, only_files=True)
        self._look_up = Callback(look, "the look-up of files") if is_needed else None

    def __repr__(self) -> str:
        return f"<ReferringSource {written(self._at)}>"

    @property
    def origin(self) -> str:
        """Scheme, host and port of the backend."""
        return self._source.origin

    async def fetch(self, *, tries: int = 1) -> Issued:
        """As `HttpSource.fetch`, with the values of this moment.

        Raises:
            TransientFetchError: If a reference leads nowhere now, or the backend was not reached.
            RefusedError: If the backend will not issue a token.
            ResponseError: If what it answered is not a token.
        """
        return await cleanly(self._outcome(tries))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._source.aclose()

    async def _outcome(self, tries: int) -> Issued | FetchError:
        try:
            if self._look_up is not None:
                async with asyncio.timeout(LOOK_UP_S):
                    found = await self._look_up.call()
                await self._become(found)
            return await self._source.fetch(tries=tries)
        except FetchError as error:
            return without_traces(error)
        except TimeoutError:
            return TransientFetchError(
                f"{written(self._at)}: the files that it refers to could not be read within {LOOK_UP_S:g} s;"
                " a valid token stays. Check their file system",
                timed_out=True,
            )

    async def _become(self, found: object) -> None:
        """Ask with the values *found* from now on."""
        if not isinstance(found, Exact) or found == self._known:
            return
        try:
            source = HttpSource(**found.value)
        except ConfigError as error:
            key = error.key.partition("[")[0]
        else:
            former, self._source, self._known = self._source, source, found
            await former.aclose()
            return
        raise TransientFetchError(
            f"{written((*self._at, key))}: what it refers to has changed and cannot be used;"
            " a valid token stays. Check the file"
        )


@check(HttpSourceConfig)
def _http_source(found: Found, at: At, notes: Notes) -> None:
    """Build the source, and note every word that it refuses."""
    stated = {key: found.stated[key] for key in HttpSourceConfig.__struct_fields__ if key in found.stated}
    unresolved: set[str | int] = set()

    def leads_nowhere(place: At, problem: str) -> None:
        unresolved.add(place[len(at)])
        notes.wrong(place, problem)

    looked_up = notes.lookup.of(stated, at, leads_nowhere)
    words = {key: found[key] for key in stated if found.has(key)}
    meant = {
        key: looked_up[key] if isinstance(value, str | dict | list) else value
        for key, value in words.items()
        if key not in unresolved
    }
    _check_files(meant, at, notes)
    source = _built(meant, stated, at, notes)
    if notes.is_file_open:
        _warn_of_secrets(words, at, notes)
    if source is not None and refers(words):
        notes.sources[at[:-1]] = ReferringSource(words, at, notes.environ, Exact(meant), source)
    elif source is not None:
        notes.sources[at[:-1]] = source


def words_of(source: HttpSourceConfig, at: At, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the words of `HttpSource` that a source comes to now, with every secret in them.

    Args:
        source: What stands in the file.
        at: Where it stands.
        environ: Where `${env:NAME}` looks.

    Raises:
        TransientFetchError: If a reference leads nowhere now.
    """
    stated = {key: value for key, value in asdict(source).items() if value is not None}
    words: dict[str, Any] = look_up_again(stated, at, environ).value
    return words


def _built(given: Mapping[str, Any], stated: Mapping[str, Any], at: At, notes: Notes) -> HttpSource | None:
    """Return the source, or one without what it refuses, after notes on that."""
    meant = {"url": _SOMEWHERE, **given}
    while True:
        try:
            return HttpSource(**meant)
        except ConfigError as error:
            key, bracket, member = error.key.partition("[")
            problem = error.problem
        place: At = (*at, key)
        if bracket:
            place += tuple(name for name in meant[key] if f"{name!r}]" == member)
        notes.wrong(place, _said(problem, key, stated.get(key)))
        if key not in meant:
            return None
        if len(place) > len(at) + 1:
            meant[key] = {name: value for name, value in meant[key].items() if name != place[-1]}
        elif key == "url":
            meant["url"] = _SOMEWHERE
        else:
            del meant[key]


def _said(problem: str, key: str, word: object) -> str:
    """Return a *problem* of `HttpSource` in words that fit a file, without what *word* refers to."""
    if key.endswith("_path"):
        # The rest repeats the expression.
        problem = problem.partition(":")[0]
    for code, words in _IN_TOML.items():
        problem = problem.replace(code, words)
    if isinstance(word, str) and "$" in word:
        problem = _CLEAR.sub("to another machine in the clear", problem)
        return f"{problem}; that is said of what it stands for"
    return f"{problem}; it is {shown(word)}" if key in _SHOWN and word is not None else problem


def _check_files(meant: Mapping[str, Any], at: At, notes: Notes) -> None:
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


def _warn_of_secrets(words: Mapping[str, Any], at: At, notes: Notes) -> None:
    """Warn of secrets that stand in a file that everybody can read."""
    for key in _SENT:
        members = words.get(key)
        for name, value in members.items() if isinstance(members, dict) else ():
            if isinstance(value, str) and is_secret_name(name) and not refers(value):
                notes.warn(
                    (*at, key, name),
                    "looks like a secret, and every user of this machine can read this file:"
                    " write ${file:PATH} or ${env:NAME}, or chmod o-r",
                )
