"""A source that asks a function of the user's.

It decides what the function may return. How it is called is in `_callback`.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Final

from token_keeper._errors import ConfigError, FetchError, ResponseError, TransientFetchError
from token_keeper._model import Issued, Secret
from token_keeper.sources._callback import Callback
from token_keeper.sources._place import TokenPlace
from token_keeper.sources._source import FETCH_TIMEOUT_S, as_cause, check_seconds, cleanly, without_traces

Answer = str | Mapping[str, object] | Issued

_REMEDY: Final = "Let it return a string, a mapping or an Issued"


class CallableSource:
    """Ask a function for tokens.

        source = CallableSource(lambda: client.get("/token").json(), token_path="data.jwt")

    A sync function runs in a thread, so it may block; an async one runs in
    the keeper's event loop, so it must not. While a sync one hangs, it is not
    called again. It is called once per fetch: if it wants to try again at
    once, it does so itself.

    Args:
        function: Returns the raw token, a text or JSON to search as an HTTP
            answer is searched, or an `Issued`. What it raises is a failed fetch.
        token_path: JMESPath of the token in JSON. Without it the usual names are tried.
        expires_path: JMESPath of the lifetime in seconds, or of the time of expiry.
        default_lifetime: Seconds, for opaque tokens that do not say theirs.
        timeout: Seconds for one call, at most 30.

    Raises:
        ConfigError: If a setting cannot work.
    """

    splay = True

    def __init__(
        self,
        function: Callable[[], Answer | Awaitable[Answer]],
        *,
        token_path: str | None = None,
        expires_path: str | None = None,
        default_lifetime: float | None = None,
        timeout: float = FETCH_TIMEOUT_S,
    ) -> None:
        if not callable(function):
            raise ConfigError("function", f"must be callable, but is of type {type(function).__name__}")
        check_seconds("timeout", timeout, most=FETCH_TIMEOUT_S)
        self.origin = f"callable:{_name(function)}"
        self._callback = Callback(function, "the source's function")
        self._place = TokenPlace(
            token_path=token_path, expires_path=expires_path, default_lifetime=default_lifetime
        )
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"<CallableSource {self.origin.removeprefix('callable:')}>"

    async def fetch(self, *, tries: int = 1) -> Issued:  # noqa: ARG002 - The function has its own tries.
        """Call the function once, whatever *tries* is.

        Raises:
            FetchError: If it returned no token.
        """
        return await cleanly(self._outcome())

    async def aclose(self) -> None:
        """Do nothing: a call that still runs is left alone."""

    async def _outcome(self) -> Issued | FetchError:
        try:
            async with asyncio.timeout(self._timeout):
                answer = await self._callback.call()
            return self._issued(answer)
        except FetchError as error:
            return without_traces(error)
        except TimeoutError:
            message = (
                f"the source's function did not return within {self._timeout:g} s; a valid token stays. "
                "If it usually takes longer, raise timeout"
            )
            return TransientFetchError(message, timed_out=True)
        except Exception as error:  # noqa: BLE001 - A mapping of the user's may raise anything.
            problem = ResponseError(
                f"the source's function returned what cannot be read; a valid token stays. {_REMEDY}"
            )
            problem.__cause__ = as_cause(error)
            return problem

    def _issued(self, answer: object) -> Issued:
        if isinstance(answer, Issued):
            if not isinstance(answer.secret, Secret):
                raise ResponseError(
                    f"the source's function returned an Issued with a {type(answer.secret).__name__}; "
                    "a valid token stays. Let it return Issued(secret=Secret(token))"
                )
            if answer.default_lifetime_s is None:
                return replace(answer, default_lifetime_s=self._place.default_lifetime)
            return answer
        if not isinstance(answer, str | Mapping | list):
            raise ResponseError(
                f"the source's function returned {type(answer).__name__}; a valid token stays. {_REMEDY}"
            )
        return self._place.issued(answer)


def _name(function: Callable[[], object]) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', '')}.{name}"
