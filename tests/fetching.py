"""Runs one fetch after the other, and shows an error as the most curious of loggers would."""

from __future__ import annotations

import asyncio
import pickle
import ssl
import traceback
from contextlib import suppress

import pytest
import trustme

from token_keeper._errors import FetchError
from token_keeper._model import Issued
from token_keeper.sources import Source


def fetch_all(source: Source, *, times: int = 1, tries: int = 1) -> list[Issued]:
    async def fetches() -> list[Issued]:
        try:
            return [await source.fetch(tries=tries) for _ in range(times)]
        finally:
            await source.aclose()

    return asyncio.run(fetches())


def fetch(source: Source, *, tries: int = 1) -> Issued:
    return fetch_all(source, tries=tries)[0]


def raw(source: Source, *, tries: int = 1) -> str:
    return fetch(source, tries=tries).secret.reveal()


def failure(source: Source, *, tries: int = 1) -> FetchError:
    with pytest.raises(FetchError) as caught:
        fetch(source, tries=tries)
    return caught.value


def server_tls(authority: trustme.CA, host: str = "127.0.0.1") -> ssl.SSLContext:
    """Return what a server needs to be *host*, certified by *authority*."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(tls)
    return tls


def shown(error: BaseException) -> str:
    """Return everything that a program could show of *error*."""
    rendered = traceback.TracebackException.from_exception(error, capture_locals=True)
    parts = ["".join(rendered.format()), repr(error), repr(vars(error))]
    for one in (error.__cause__, error.__context__):
        parts += [shown(one)] if one is not None else []
    with suppress(TypeError, pickle.PicklingError):
        parts.append(repr(pickle.dumps(error)))
    return "\n".join(parts)
