"""The network side of `FakeTwilsock`: connections, timers, and what is sent. It decides nothing."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from token_keeper._model import Secret
from token_keeper.testing._loopback import bound_socket
from token_keeper.testing._twilsock_judge import TOKEN_EXPIRED, Bearer, On, TwilsockMessage, failure
from token_keeper.testing._twilsock_upstream import respond
from token_keeper.twilsock import Frame, Status, about_to_expire, close, decode, reply

if TYPE_CHECKING:
    from websockets.asyncio.server import Server, ServerConnection

_MAX_FRAME: Final = 1_048_576
_CLOSE_TIMEOUT_S: Final = 0.5
_CAPABILITIES: Final = ("client_update", "telemetry.v1")


class TwilsockFault(StrEnum):
    """How `FakeTwilsock.fail` can misbehave."""

    SILENT = "silent"
    """Take the message and never answer."""
    DROP = "drop"
    """Drop the connection instead of an answer."""
    GARBAGE = "garbage"
    """Answer with bytes that are no frame."""
    HUGE = "huge"
    """Answer with a message of over 1 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """How a token is answered.

    Args:
        status: The answer, if there is no *fault*.
        bearer: Who is let in.
        payload: JSON beside the answer.
        fault: What happens instead.
    """

    status: Status | None = None
    bearer: Bearer | None = None
    payload: object = None
    fault: TwilsockFault | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the network side asks of `FakeTwilsock`, and what it tells it.

    Args:
        now: Returns Unix seconds.
        warn_before: Returns how long before a token's expiry its client is told, in seconds.
        decide: Says how a token is answered, given for whom the last one was.
        note: Is told of each message that was dealt with.
        note_live: Is told how many connections have an accepted token.
    """

    now: Callable[[], float]
    warn_before: Callable[[], float]
    decide: Callable[[On, Secret, Bearer | None], Decision]
    note: Callable[[TwilsockMessage], None]
    note_live: Callable[[int], None]


@dataclass(slots=True, eq=False)
class _Client:
    """One connection. It is live from an accepted `init` until it is closed."""

    socket: ServerConnection
    bearer: Bearer | None = None
    wants_updates: bool = False
    timers: list[asyncio.TimerHandle] = field(default_factory=list)

    def disarm(self) -> None:
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()


class Hub:
    """Every connection of one server. Everything here runs in one event loop.

    Args:
        rules: Decides.
        port: Which is bound already.
        tls: Serves wss with this certificate.
    """

    def __init__(self, rules: Rules, port: int, tls: ssl.SSLContext | None) -> None:
        self._rules = rules
        self._port = port
        self._tls = tls
        self._server: Server | None = None
        self._clients: set[_Client] = set()
        self._errands: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        """Accept connections."""
        if self._server is not None:
            return
        from websockets.asyncio.server import serve  # noqa: PLC0415 - An extra.

        from token_keeper.twilsock._socket import silent_logger  # noqa: PLC0415 - As above.

        self._server = await serve(
            self._welcome,
            sock=bound_socket(self._port),
            ssl=self._tls,
            compression=None,
            ping_interval=None,
            close_timeout=_CLOSE_TIMEOUT_S,
            max_size=_MAX_FRAME,
            logger=silent_logger(),
        )

    async def refuse(self) -> None:
        """Refuse connections, and drop the open ones."""
        server, self._server = self._server, None
        if server is None:
            return
        for connection in tuple(server.connections):
            connection.transport.abort()
        server.close()
        await server.wait_closed()

    async def warn_live(self) -> None:
        """Tell every live client that its token is about to expire."""
        await self._each(self._warn)

    async def end_live(self, reason: Status) -> None:
        """Close every live connection."""
        await self._each(lambda client: self._end(client, reason))

    async def drop_live(self) -> None:
        """Drop every live connection."""
        await self._each(self._drop)

    async def _welcome(self, socket: ServerConnection) -> None:
        client = _Client(socket)
        self._clients.add(client)
        try:
            with suppress(_closed()):
                async for raw in socket:
                    await self._take(client, decode(raw) if isinstance(raw, bytes) else None)
        finally:
            client.disarm()
            self._clients.discard(client)
            self._count()

    async def _take(self, client: _Client, frame: Frame | None) -> None:
        if frame is None:
            await self._end(client, failure(406))
        elif frame.method == "init":
            await self._consider(client, frame, "init")
        elif frame.method == "update":
            await self._consider(client, frame, "update")
        else:
            self._rules.note(TwilsockMessage(method=frame.method))
            if frame.method == "close":
                await client.socket.close()
            elif frame.method in {"put_notification_ctx", "delete_notification_ctx"}:
                await client.socket.send(reply(frame.id))
            elif frame.method == "message":
                answered = respond(frame, client.bearer.identity if client.bearer else "")
                await client.socket.send(
                    reply(frame.id, payload=answered.document, http_status=answered.http_status)
                )

    async def _consider(self, client: _Client, frame: Frame, on: On) -> None:
        token = Secret(frame.text("token"))
        decision = self._rules.decide(on, token, client.bearer)
        try:
            if decision.status is None:
                await self._misbehave(client, decision.fault)
                return
            await client.socket.send(_answer(frame, decision, on))
            if decision.bearer is not None:
                client.bearer = decision.bearer
                client.wants_updates |= "client_update" in _wanted(frame)
                self._arm(client, decision.bearer)
                self._count()
        finally:
            self._rules.note(TwilsockMessage(method=on, token=token, status=decision.status))

    def _arm(self, client: _Client, bearer: Bearer) -> None:
        client.disarm()
        left_s = bearer.expires_at - self._rules.now()
        self._later(client, left_s, lambda: self._end(client, failure(410, TOKEN_EXPIRED)))
        if client.wants_updates:
            self._later(client, left_s - self._rules.warn_before(), lambda: self._warn(client))

    def _later(
        self, client: _Client, delay_s: float, errand: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        loop = asyncio.get_running_loop()

        def go() -> None:
            task = loop.create_task(errand())
            self._errands.add(task)
            task.add_done_callback(self._errands.discard)

        client.timers.append(loop.call_later(max(delay_s, 0.0), go))

    def _count(self) -> None:
        self._rules.note_live(sum(client.bearer is not None for client in self._clients))

    async def _each(self, act: Callable[[_Client], Coroutine[Any, Any, None]]) -> None:
        await asyncio.gather(*(act(client) for client in self._clients if client.bearer is not None))

    async def _warn(self, client: _Client) -> None:
        with suppress(_closed()):
            await client.socket.send(about_to_expire(f"TM{uuid4()}"))

    async def _end(self, client: _Client, reason: Status) -> None:
        client.disarm()
        client.bearer = None
        self._count()
        with suppress(_closed()):
            await client.socket.send(close(f"TM{uuid4()}", reason))
            await client.socket.close()

    async def _drop(self, client: _Client) -> None:
        client.bearer = None
        self._count()
        client.socket.transport.abort()

    async def _misbehave(self, client: _Client, fault: TwilsockFault | None) -> None:
        if fault is TwilsockFault.DROP:
            await self._drop(client)
        elif fault is TwilsockFault.GARBAGE:
            await client.socket.send(b"\x00 not a frame")
        elif fault is TwilsockFault.HUGE:
            await client.socket.send(bytes(2 * _MAX_FRAME))


def _closed() -> type[Exception]:
    from websockets.exceptions import ConnectionClosed  # noqa: PLC0415 - An extra.

    return ConnectionClosed


def _wanted(frame: Frame) -> Sequence[object]:
    names = frame.header.get("capabilities")
    return names if isinstance(names, list) else ()


def _answer(frame: Frame, decision: Decision, on: On) -> bytes:
    status = decision.status or Status(code=None)
    welcome: dict[str, object] = {}
    if on == "init" and status.is_success:
        names = [name for name in _wanted(frame) if name in _CAPABILITIES]
        welcome = {"continuation_token": f"fake-{uuid4()}", "capabilities": names}
    return reply(frame.id, status, payload=decision.payload, **welcome)
