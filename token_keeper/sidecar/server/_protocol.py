"""One connection: uvicorn's protocol with our guards and ready-made answers.

Everything that comes in passes here before anything else sees it, whether it is
answered from memory or by the API.
"""

from __future__ import annotations

import asyncio
from typing import Any

from token_keeper.sidecar._access import Access, Caller
from token_keeper.sidecar.server import _refusals as refusals
from token_keeper.sidecar.server._behind import Behind
from token_keeper.sidecar.server._crowd import BLOCKED_S, BODY_S, IDLE_S, NEVER, RESERVED_S
from token_keeper.sidecar.server._guards import Gate, Head, admitted, head_of
from token_keeper.sidecar.server._hot import PREFIX, HotAnswer
from token_keeper.sidecar.server._peers import peer_of
from token_keeper.sidecar.server._refusals import Refused
from token_keeper.sidecar.server._turns import Turns

REPEAT_MAX = 2_048
"""Bytes of a request that is recognized when it comes again."""
WRITE_MAX = 65_536
"""Bytes that wait for a client to read them, before whoever writes has to wait."""


class Connection(Turns):
    """One connection of a listener.

    Args:
        behind: What all connections share.
        gate: What the listener asks of a request.
    """

    def __init__(self, behind: Behind, gate: Gate) -> None:
        super().__init__(behind)
        self._hot = behind.hot
        self._gate = gate
        self._peer: Caller | None = None
        self.is_stranger = gate.over == "tcp"
        self._is_reserved = False
        self._answer: HotAnswer | None = None
        # A plain request for a token, which may come again to the byte.
        self._plain: tuple[str, bytes] | None = None
        self._repeat: bytes | None = None
        self._repeat_version = 0

    # How it comes and goes.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # As uvicorn.
        """Let the peer in, or close before a byte was read."""
        if self._gate.over == "unix" and not self._let_in(transport):
            self._hush()
            self.transport = transport
            transport.abort()
            return
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WRITE_MAX)
        has_room = self._crowd.enter(self)
        if self._crowd.is_full:
            self._is_reserved = True
            self._idle_s = RESERVED_S
            self._behind.log.warning("connectionsFull", limit=self._crowd.limit)
        self._deadlines.idle = self._crowd.now + self._idle_s
        if self._crowd.is_overrun:
            self.drop()
        elif not has_room:
            self._refuse(refusals.FULL)

    def _let_in(self, transport: asyncio.Transport) -> bool:
        connection = transport.get_extra_info("socket")
        try:
            peer = peer_of(connection)
        except OSError:
            return False
        rule = self._behind.peers
        if not rule.admits(peer, connection):
            self._behind.log.warning("peerRefused", uid=peer.uid, gid=peer.gid, pid=peer.pid)
            return False
        self._peer = Caller(Access.OWNER if rule.is_owner(peer) else Access.TOKENS, peer.uid, "unix")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it, and tell whoever answers it."""
        self._hush()
        self._crowd.leave(self)
        self._forget_all()
        # It has none if its peer was not let in.
        if self.flow is not None:
            super().connection_lost(exc)

    def shutdown(self) -> None:
        """Answer what is being answered, waits at once, then close."""
        self._hush()
        self.pipeline.clear()
        if self._running is None:
            self._close()
        else:
            self._running.keep_alive = False
            if self._running.wants_to_wait and self._running.task is not None:
                self._running.task.cancel()

    def pause_writing(self) -> None:
        """Note since when the client does not read."""
        self._deadlines.written = self._crowd.now + BLOCKED_S
        super().pause_writing()

    def resume_writing(self) -> None:
        """Note that the client has read."""
        self._deadlines.written = NEVER
        super().resume_writing()

    def _hush(self) -> None:
        super()._hush()
        self._repeat = None

    # What the crowd asks.

    @property
    def resting_since(self) -> float | None:
        """Since when it asks for nothing; None if it does."""
        idle = self._deadlines.idle
        return None if idle == NEVER or self._in_head else idle - self._idle_s

    def due(self) -> float:
        """Return when it has to end, in seconds of the crowd's clock."""
        if self._deadlines.closed == NEVER and self.transport.is_closing():
            self._deadlines.closed = self._crowd.now + BLOCKED_S
        return self._deadlines.earliest()

    def expire(self) -> None:
        """End it: its time is over."""
        deadlines, now = self._deadlines, self._crowd.now
        if min(deadlines.written, deadlines.closed) <= now:
            self.drop()
        elif deadlines.read > now:
            self._close()
        elif self.flow.read_paused:
            # It is we who do not read.
            deadlines.read = now + BODY_S
        else:
            self._refuse(refusals.TOO_SLOW)

    # Requests.

    def data_received(self, data: bytes) -> None:
        """Answer *data* at once if it is the last request again, else parse it."""
        if data == self._repeat and self._answered_again():
            return
        was_between = self._is_between
        self._plain = self._repeat = None
        super().data_received(data)
        if was_between and self._begun == 1 and self._plain and not self._is_deaf and len(data) <= REPEAT_MAX:
            self._repeat = data
            self._repeat_version = self._gate.keys.version

    def _answered_again(self) -> bool:
        """Answer the last request from memory once more, if whatever let it in still holds."""
        if (
            self._plain is None
            or self._repeat_version != self._gate.keys.version
            or self._is_busy
            or not self._is_between
        ):
            return False
        answer = self._hot.find(*self._plain)
        if answer is None:
            return False
        self._write(answer)
        return True

    def _judge(self) -> None:
        """Let the request in, and begin to answer it."""
        try:
            head = head_of(self._method, self.url, self.parser.get_http_version(), self.headers)
            caller = admitted(head, self._gate, self._peer)
        except Refused as refused:
            self._stop(refused.refusal)
        if self._is_reserved and not head.is_about_health:
            self._stop(refusals.FULL)
        if self.is_stranger and caller.access > Access.NOTHING:
            self.is_stranger = False
            self._crowd.know(self)
        if head.is_plain and head.method == b"GET" and head.path.startswith(PREFIX) and not self._is_busy:
            self._plain = (head.path, head.accept)
            self._answer = self._hot.find(*self._plain)
        if self._answer is not None:
            return
        self._ask(
            self._hot.recording(self.app, *self._plain) if self._plain else self.app,
            self._scope(head, caller),
            keep_alive=head.version == "1.1" and self.parser.should_keep_alive() and not self._is_reserved,
            wants_to_wait=head.wants_to_wait,
        )

    @property
    def _is_busy(self) -> bool:
        """Whether an answer from memory would be out of turn, or would pile up."""
        return self._running is not None or self.flow.write_paused or self._is_reserved

    def on_message_complete(self) -> None:
        """Answer the request, if the answer is ready."""
        super().on_message_complete()
        answer, self._answer = self._answer, None
        if answer is not None:
            self._write(answer)

    def _write(self, answer: HotAnswer) -> None:
        self._deadlines.idle = self._crowd.now + IDLE_S
        self.transport.write(answer.whole(self._hot.date))
        if self._behind.tell is not None:
            self._behind.tell()

    def _scope(self, head: Head, caller: Caller) -> Any:
        return {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": head.version,
            "method": head.method.decode(),
            "scheme": "http",
            "server": self.server,
            "client": self.client,
            "root_path": "",
            "path": head.path,
            "raw_path": self.url.partition(b"?")[0],
            "query_string": head.query,
            "headers": self.headers,
            "state": {"caller": caller},
        }
