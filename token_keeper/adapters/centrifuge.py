"""centrifuge-python: a client whose connection token comes from a keeper.

    client = KeeperClient(keeper, "wss://live.example/connection/websocket", events=MyEvents())
    await client.connect()

Each connect shows the token of that moment. When the server's time for it is over (its `ttl`), the client
shows the newest one on the same connection; Centrifuge has no way to push one earlier. Tokens of
subscriptions are the application's matter. The SDK's logger `centrifuge` shows tokens at level DEBUG.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from centrifuge import Client, ClientEventHandler, ClientState

from token_keeper._errors import ConfigError
from token_keeper._face import Face
from token_keeper._model import Secret
from token_keeper._share import WAIT_S, WORTH_ANOTHER, Share
from token_keeper._waiting import check_wait
from token_keeper.adapters._options import check_left_out
from token_keeper.adapters._origins import origin_of

UNAUTHORIZED, TOKEN_EXPIRED, INVALID_TOKEN = 101, 109, 3500
DENIALS = frozenset({UNAUTHORIZED, TOKEN_EXPIRED, INVALID_TOKEN})
"""Codes of Centrifugo's errors and disconnects that another token may answer."""
OURS = ("token", "get_token")
"""Options of the SDK that come from the keeper."""


class KeeperClient(Client):  # type: ignore[misc]  # centrifuge-python has no types.
    """A `centrifuge.Client` whose token comes from a keeper.

    A denial is reported with the token that was sent. If it ended the client (code 3500),
    `on_disconnected` is told, and the client connects once more with another token.

    Args:
        keeper: A `TokenKeeper` or an `AsyncTokenKeeper`.
        address: As for the SDK, and so are all other options.
        events: As for the SDK.
        by: Names the reporter; by default the origin of *address*.
        token_timeout: Seconds that a connect or a refresh waits for a token; then `on_error` gets
            `TokenUnavailable`, and the SDK tries again later. `timeout` is the SDK's own.
        denials: Codes of errors and disconnects that mean: this token is refused. Add those of your
            own connect proxy.

    Raises:
        ConfigError: If an argument cannot work.
    """

    def __init__(  # noqa: PLR0913 - two are the SDK's
        self,
        keeper: Face,
        address: str,
        events: ClientEventHandler | None = None,
        *,
        by: str | None = None,
        token_timeout: float = WAIT_S,
        denials: Collection[int] = DENIALS,
        **options: Any,
    ) -> None:
        check_wait("token_timeout", token_timeout)
        check_left_out(options, OURS)
        self._origin = _origin(address)
        self._shown = _Shown(Share(keeper, self._origin if by is None else by), frozenset(denials))
        self._token_timeout = token_timeout
        super().__init__(address, events, get_token=self._newest, **options)

    @property
    def events(self) -> _Events:
        """What the SDK calls: our part, then the application's."""
        return self._events

    @events.setter
    def events(self, events: ClientEventHandler) -> None:
        self._events = _Events(self, self._shown, events)

    async def _newest(self) -> str:
        return self._shown.note(await self._shown.share.awaited(self._token_timeout))

    async def _open_transport(self) -> Any:
        # websockets follows redirects; the token is sent only after the handshake.
        connection = await super()._open_transport()
        uri = connection.protocol.uri
        if (uri.secure, uri.host, uri.port) == _place(self._origin):
            return connection
        await connection.close()
        raise OSError("the server redirects to another origin, and the token does not go there")


class _Shown:
    """The token that the server was shown last, and what it said of it."""

    def __init__(self, share: Share, denials: frozenset[int]) -> None:
        self.share = share
        self.has_retried = False
        self._denials = denials
        self._sent: Secret | None = None

    def note(self, raw: str) -> str:
        self._sent = Secret(raw)
        return raw

    def accepted(self) -> None:
        self.has_retried = False
        if self._sent is not None:
            self.share.accepted(self._sent.reveal())

    def refused(self, code: object, reason: str | None) -> bool:
        """Report it if *code* is a denial. Returns whether another token is worth a try."""
        if self._sent is None or not isinstance(code, int) or code not in self._denials:
            return False
        return self.share.denied(self._sent.reveal(), code=code, reason=reason) in WORTH_ANOTHER


class _Events:
    """Hears what the server says of the token, then tells the application's events."""

    def __init__(self, client: KeeperClient, shown: _Shown, told: ClientEventHandler) -> None:
        self._client = client
        self._shown = shown
        self._told = told

    def __getattr__(self, name: str) -> Any:
        return getattr(self._told, name)

    async def on_connecting(self, ctx: Any) -> None:
        self._shown.refused(ctx.code, ctx.reason)
        # The SDK would show the token of the last connect until the server objects.
        self._client.set_token("")
        await self._told.on_connecting(ctx)

    async def on_connected(self, ctx: Any) -> None:
        self._shown.accepted()
        await self._told.on_connected(ctx)

    async def on_error(self, ctx: Any) -> None:
        self._shown.refused(getattr(ctx.error, "code", None), getattr(ctx.error, "message", None))
        self._client.set_token("")
        await self._told.on_error(ctx)

    async def on_disconnected(self, ctx: Any) -> None:
        again = self._shown.refused(ctx.code, ctx.reason) and not self._shown.has_retried
        await self._told.on_disconnected(ctx)
        if again and self._client.state is ClientState.DISCONNECTED:
            self._shown.has_retried = True
            self._client.set_token("")
            await self._client.connect()


def _origin(address: str) -> str:
    try:
        return origin_of(address)
    except (ValueError, TypeError, AttributeError):
        raise ConfigError(
            "address", 'must be a URL such as "wss://live.example/connection/websocket"'
        ) from None


def _place(origin: str) -> tuple[bool, str, int]:
    scheme, _, rest = origin.partition("://")
    host, _, port = rest.rpartition(":")
    return scheme == "https", host.strip("[]"), int(port)
