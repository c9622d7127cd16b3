"""Turns the table of an HTTP source into a source."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import asdict

from token_keeper._errors import ConfigError, FetchError, TransientFetchError
from token_keeper._model import Issued
from token_keeper.sidecar.config._assembly import (
    SOMEWHERE,
    Words,
    assembled,
    check_tls_files,
    warn_of_secrets,
    words_in,
)
from token_keeper.sidecar.config._exact import Exact
from token_keeper.sidecar.config._lookup import look_up_again, refers
from token_keeper.sidecar.config._notes import At, Notes, written
from token_keeper.sidecar.config._records import Found, check
from token_keeper.sidecar.config._source_model import BearerJwtConfig, HttpSourceConfig
from token_keeper.sources import HttpSource, SignedJwt
from token_keeper.sources._callback import Callback
from token_keeper.sources._source import cleanly, without_traces

LOOK_UP_S: Final = 5.0
"""Longest time for reading all files of one source."""

_SENT: Final = ("headers", "params", "json", "data")
# What a function returns is not known before the fetch.
_UNKNOWN: Final[Mapping[str, Any]] = {"private_key": lambda: "", "claims": {}}
_AUTHORIZATION: Final = "Authorization"


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
            source = _source_of(**found.value)
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


@check(BearerJwtConfig)
def _bearer_jwt(found: Found, at: At, notes: Notes) -> None:
    """Note every word that cannot be signed with or for."""
    words = words_in(found, BearerJwtConfig.__struct_fields__, at, notes)
    complete = Words(words.stated, words.read, {**_UNKNOWN, **words.meant})
    assembled(SignedJwt, complete, at, notes, instead={key: {key: _UNKNOWN[key]} for key in _UNKNOWN})
    warn_of_secrets({"private_key": words.read.get("private_key")}, at, notes)


@check(HttpSourceConfig)
def _http_source(found: Found, at: At, notes: Notes) -> None:
    """Build the source, and note every word that it refuses."""
    words = _with_jwt(words_in(found, HttpSourceConfig.__struct_fields__, at, notes), at, notes)
    check_tls_files(words.meant, at, notes)
    complete = Words(words.stated, words.read, {"url": SOMEWHERE, **words.meant})
    source = assembled(_source_of, complete, at, notes, instead={"url": {"url": SOMEWHERE}})
    warn_of_secrets({key: words.read[key] for key in _SENT if key in words.read}, at, notes)
    if source is not None and refers(words.read):
        notes.sources[at] = ReferringSource(words.read, at, notes.environ, Exact(words.meant), source)
    elif source is not None:
        notes.sources[at] = source


def _source_of(*, bearer_jwt: Mapping[str, Any] | None = None, **words: Any) -> HttpSource:
    """Return the source that *words* describe.

    Raises:
        ConfigError: About one of them.
    """
    if bearer_jwt is None:
        return HttpSource(**words)
    try:
        signed = SignedJwt(**bearer_jwt)
    except ConfigError as error:
        problem = ConfigError("bearer_jwt", f"{error.key}: {error.problem}")
    else:
        return HttpSource(**{**words, "headers": {**words.get("headers", {}), _AUTHORIZATION: signed}})
    raise problem


def _with_jwt(words: Words, at: At, notes: Notes) -> Words:
    """Return *words* with the table `bearer_jwt` in them as it is read."""
    jwt = words.read.get("bearer_jwt")
    if jwt is None:
        return words
    named = {name.lower() for name in words.read.get("headers", {})}
    if _AUTHORIZATION.lower() in named:
        notes.wrong(
            (*at, "bearer_jwt"), "cannot be combined with headers.Authorization: it sends that header"
        )
    read = _plain(jwt)
    # Where a reference leads nowhere has been noted already.
    meant = notes.lookup.of(read, (*at, "bearer_jwt"), lambda *_: None)
    return Words(words.stated, words.read | {"bearer_jwt": read}, words.meant | {"bearer_jwt": meant})


def _plain(table: Struct) -> dict[str, Any]:
    """Return what stands in *table*, and in tables below it."""
    return {
        key: _plain(value) if isinstance(value, Struct) else value
        for key, value in asdict(table).items()
        if value is not None
    }
