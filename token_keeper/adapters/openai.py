"""openai: clients that send the keeper's token, and another one if it is refused.

    from token_keeper.adapters.openai import async_openai, openai

    client = openai(keeper)  # openai(keeper, base_url="https://gateway.example/v1", max_retries=5)
    client = async_openai(keeper)

They are the SDK's own clients with its own connections, and `KeeperAuth` in them. The token
goes to `base_url` alone, unless `origins=` names others. If there is none in time, requests
raise `TokenUnavailable`, which early releases of the SDK wrap into `APIConnectionError`.

For what is not HTTP (realtime), or a client of your own: `OpenAI(api_key=api_key(keeper))`,
`AsyncOpenAI(api_key=async_api_key(keeper))`. The SDK asks before each request, but tells
nothing of a 401, and sends the token to any absolute URL that it is given.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from openai import AsyncOpenAI, DefaultAsyncHttpxClient, DefaultHttpxClient, OpenAI

from token_keeper._face import Face
from token_keeper._share import WAIT_S, Share
from token_keeper._waiting import check_wait
from token_keeper.adapters._options import check_left_out
from token_keeper.adapters.httpx import KeeperAuth

STAND_IN = "kept-by-token-keeper"
"""What the SDK takes for the key. `KeeperAuth` puts the token in its place; other servers see this."""


def openai(
    keeper: Face,
    *,
    origins: str | Iterable[str] | None = None,
    by: str | None = None,
    token_timeout: float = WAIT_S,
    **options: Any,
) -> OpenAI:
    """Return an `OpenAI` whose requests are authenticated by the keeper.

    Args:
        keeper: A `TokenKeeper` or an `AsyncTokenKeeper`.
        origins: The servers that may see the token; by default that of the client's `base_url`.
        by: Names the reporter; by default the origin.
        token_timeout: Seconds to wait for a token, if there is none. `timeout` is the SDK's own.
        options: What `OpenAI` takes, but for `api_key` and `http_client`.

    Raises:
        ConfigError: If an argument cannot work.
    """
    KeeperAuth(keeper, origins=origins, by=by, timeout=token_timeout)  # Complains before anything is opened.
    http_client = DefaultHttpxClient()
    client = OpenAI(api_key=STAND_IN, http_client=http_client, **_checked(options))
    http_client.auth = _auth(client, keeper, origins, by, token_timeout)
    return client


def async_openai(
    keeper: Face,
    *,
    origins: str | Iterable[str] | None = None,
    by: str | None = None,
    token_timeout: float = WAIT_S,
    **options: Any,
) -> AsyncOpenAI:
    """Return an `AsyncOpenAI` whose requests are authenticated by the keeper. Arguments as for `openai`."""
    KeeperAuth(keeper, origins=origins, by=by, timeout=token_timeout)  # As above.
    http_client = DefaultAsyncHttpxClient()
    client = AsyncOpenAI(api_key=STAND_IN, http_client=http_client, **_checked(options))
    http_client.auth = _auth(client, keeper, origins, by, token_timeout)
    return client


def api_key(keeper: Face, *, by: str = "openai", timeout: float = WAIT_S) -> Callable[[], str]:
    """Return an `api_key` for `OpenAI`, without denial feedback.

    Args:
        keeper: A `TokenKeeper` or an `AsyncTokenKeeper`.
        by: Names the reporter.
        timeout: Seconds to wait for a token, if there is none.

    Raises:
        ConfigError: If an argument cannot work.
    """
    share = _share(keeper, by, timeout)

    def key() -> str:
        return share.wait(timeout)

    return key


def async_api_key(
    keeper: Face, *, by: str = "openai", timeout: float = WAIT_S
) -> Callable[[], Awaitable[str]]:
    """Return an `api_key` for `AsyncOpenAI`, without denial feedback. Arguments as for `api_key`."""
    share = _share(keeper, by, timeout)

    async def key() -> str:
        return await share.awaited(timeout)

    return key


def _share(keeper: Face, by: str, timeout: float) -> Share:
    check_wait("timeout", timeout)
    return Share(keeper, by)


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    check_left_out(
        options,
        ("api_key", "http_client"),
        "is set here; for one of your own use OpenAI(http_client=...) with KeeperAuth in it",
    )
    return options


def _auth(
    client: OpenAI | AsyncOpenAI,
    keeper: Face,
    origins: str | Iterable[str] | None,
    by: str | None,
    timeout: float,
) -> KeeperAuth:
    return KeeperAuth(
        keeper, origins=str(client.base_url) if origins is None else origins, by=by, timeout=timeout
    )
