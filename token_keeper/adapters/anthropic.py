"""anthropic: a provider for `credentials=` that the SDK asks before each request.

    from token_keeper.adapters.anthropic import KeeperCredentials

    client = Anthropic(credentials=KeeperCredentials(keeper))
    client = AsyncAnthropic(credentials=AsyncKeeperCredentials(keeper))

After a 401 the SDK asks with `force_refresh` and retries once: that is the denial
feedback. It says neither what the answer was nor who gave it: a 401 for a missing right
counts too. `max_retries=0` turns off the retry, not the feedback. An absolute URL that
is passed to the client gets the token, wherever it leads; a redirect does not take it along.
`AsyncAnthropic` also takes `KeeperCredentials`, in threads: there many refusals at once may
cost a second fetch. If there is no token, the SDK raises `APIConnectionError`, caused by
`TokenUnavailable`, after its own retries: each of them waits for *timeout*.
"""

from __future__ import annotations

from anthropic.lib.credentials import AccessToken

from token_keeper._face import Face
from token_keeper._share import WAIT_S, Share
from token_keeper._waiting import check_wait
from token_keeper.adapters._guard import UNAUTHORIZED
from token_keeper.adapters._handed import Handed

ASK_EACH_TIME = 0
"""What the SDK takes for the expiry of tokens that it must not cache."""
SETTLE_S = 10.0
"""How long refusals of one token may come apart, in seconds: the SDK pauses before it asks again.
Whoever asks next asks for all, and need not be the one that was refused."""


class _Provider:
    """What both providers share."""

    def __init__(self, keeper: Face, *, by: str = "anthropic", timeout: float = WAIT_S) -> None:
        check_wait("timeout", timeout)
        self._share = Share(keeper, by)
        self._handed = Handed(settle_s=SETTLE_S)
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._share!r}>"

    def _heed(self, *, force_refresh: bool) -> None:
        if force_refresh:
            self._handed.refused(UNAUTHORIZED)

    def _token(self, raw: str) -> AccessToken:
        return AccessToken(self._handed.note(self._share, raw), ASK_EACH_TIME)


class KeeperCredentials(_Provider):
    """An `AccessTokenProvider` whose token is the keeper's, for `Anthropic`.

        client = Anthropic(credentials=KeeperCredentials(keeper))

    Args:
        keeper: A `TokenKeeper` or an `AsyncTokenKeeper`.
        by: Names the reporter: a token that is denied to it is withheld from it alone.
        timeout: Seconds to wait for a token, if there is none.

    Raises:
        ConfigError: If an argument cannot work.
    """

    def __call__(self, *, force_refresh: bool = False) -> AccessToken:
        """Return the token; with *force_refresh* report the one that was sent, and wait for another.

        Raises:
            TokenUnavailable: If there was none in time.
        """
        self._heed(force_refresh=force_refresh)
        return self._token(self._share.wait(self._timeout))


class AsyncKeeperCredentials(_Provider):
    """An `AsyncAccessTokenProvider`, for `AsyncAnthropic`. Arguments as for `KeeperCredentials`."""

    async def __call__(self, *, force_refresh: bool = False) -> AccessToken:
        """Return the token; with *force_refresh* report the one that was sent, and wait for another.

        Raises:
            TokenUnavailable: If there was none in time.
        """
        self._heed(force_refresh=force_refresh)
        return self._token(await self._share.awaited(self._timeout))
