"""One connection: uvicorn's protocol with our guards, bounds and ready-made answers.

Everything that comes in passes here before anything else sees it, whether it is
answered from memory or by the API.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from token_keeper.sidecar._access import Access, Caller
from token_keeper.sidecar.server import _refusals as refusals
from token_keeper.sidecar.server._crowd import (
    BLOCKED_S,
    BODY_S,
    FIRST_S,
    HEAD_S,
    IDLE_S,
    LINGER_S,
    NEVER,
    RESERVED_S,
    Crowd,
    Deadlines,
)
from token_keeper.sidecar.server._guards import (
    BODY_MAX,
    HEAD_MAX,
    HEADERS_MAX,
    URL_MAX,
    Gate,
    Head,
    admitted,
    head_of,
)
from token_keeper.sidecar.server._hot import PREFIX, HotAnswer, HotAnswers
from token_keeper.sidecar.server._peers import PeerRule, peer_of
from token_keeper.sidecar.server._refusals import Refusal, Refused
from token_keeper.sidecar.server._sparing import SparingLog

PIECE = 16_384
"""Bytes that are parsed before the bounds are looked at."""
WIRE_MAX = 8 * BODY_MAX
"""Bytes that a body may take on the wire, with the sizes of its chunks."""
PIPELINE_MAX = 64
"""Requests of one connection that may wait behind another one, or come in one piece."""
TEMPLATE = "/v1/tokens/{name}"
"""As the API calls the path that is answered from memory."""
LINGER_MAX = 1 << 20
"""Bytes that a client may still send after it was refused."""
REPEAT_MAX = 2_048
"""Bytes of a request that is recognized when it comes again."""
WRITE_MAX = 65_536
"""Bytes that wait for a client to read them, before whoever writes has to wait."""
WRONG_KEY_S = 1.0
"""How long the answer to a wrong key is held back. Whoever has the right one never waits."""


@dataclass(frozen=True, slots=True)
class Behind:
    """What all connections share.

    Args:
        config: uvicorn's, loaded.
        state: uvicorn's; its first default header is `Date`.
        crowd: Counts connections.
        hot: The ready-made answers.
        peers: Who may connect to a Unix socket.
        log: Says who was refused, sparingly.
        tell: Called with the path's template and the status of what was answered from memory, if set.
    """

    config: Config
    state: ServerState
    crowd: Crowd
    hot: HotAnswers
    peers: PeerRule
    log: SparingLog
    tell: Callable[[str, str, int], None] | None = None


class Cycle(RequestResponseCycle):
    """A request that the API answers."""

    wants_to_wait = False
    task: asyncio.Task[None] | None = None


class Connection(HttpToolsProtocol):
    """One connection of a listener.

    Args:
        behind: What all connections share.
        gate: What the listener asks of a request.
    """

    def __init__(self, behind: Behind, gate: Gate) -> None:
        super().__init__(behind.config, behind.state, {}, asyncio.get_running_loop())
        self._behind = behind
        self._crowd = behind.crowd
        self._hot = behind.hot
        self._gate = gate
        self._peer: Caller | None = None
        self.is_stranger = gate.over == "tcp"
        self._is_reserved = False
        self._deadlines = Deadlines()
        self._idle_s = FIRST_S
        # What is being read.
        self._begun = 0
        self._method = b""
        self._in_head = False
        self._head_size = 0
        self._body_size = 0
        self._wire = 0
        self._wire_max = 0
        self._reading: Cycle | None = None
        self._answer: HotAnswer | None = None
        # What is being answered.
        self._running: Cycle | None = None
        self._holds_stream = False
        # A plain request for a token, which may come again to the byte.
        self._plain: tuple[str, bytes] = ("", b"")
        self._repeat: bytes | None = None
        self._repeat_version = 0
        # After a refusal nothing is read any more.
        self._is_deaf = False
        self._ignored = 0
        self._refusal: Refusal | None = None
        self._last_words: Refusal | None = None
        self._pause: asyncio.TimerHandle | None = None

    # How it comes and goes.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # As uvicorn.
        """Let the peer in, or close before a byte was read."""
        if self._gate.over == "unix" and not self._let_in(transport):
            self._is_deaf = True
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
        if not has_room:
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
        self._is_deaf = True
        self._repeat = None
        self._crowd.leave(self)
        if self._pause is not None:
            self._pause.cancel()
        if self._running is not None:
            self._let_go(self._running)
        for cycle, _ in self.pipeline:
            cycle.disconnected = True
        self.pipeline.clear()
        if self.flow is not None:
            super().connection_lost(exc)

    def shutdown(self) -> None:
        """Answer what is being answered, then close."""
        self._is_deaf = True
        self._repeat = None
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

    def drop(self) -> None:
        """End it at once."""
        self._is_deaf = True
        self._repeat = None
        self._crowd.leave(self)
        self.transport.abort()

    def _close(self) -> None:
        self._deadlines.only_close(self._crowd.now + BLOCKED_S)
        self.transport.close()

    # Reading.

    def data_received(self, data: bytes) -> None:
        """Answer *data* at once if it is the last request again, else parse it."""
        if data == self._repeat and self._running is None and self._wire_max == 0 and self._answered_again():
            return
        self._repeat = None
        was_between = self._wire_max == 0
        self._begun = 0
        self._plain = ("", b"")
        for start in range(0, len(data), PIECE):
            if self._is_deaf:
                self._ignore(len(data) - start)
                return
            self._parse(data[start : start + PIECE])
        if was_between and self._plain[0] and self._begun == 1 and len(data) <= REPEAT_MAX:
            self._repeat = data
            self._repeat_version = self._gate.keys.version

    def _answered_again(self) -> bool:
        """Answer the request that was answered from memory before, if nothing of it has changed."""
        if self._repeat_version != self._gate.keys.version or self.flow.write_paused:
            return False
        answer = self._hot.find(*self._plain)
        if answer is None:
            return False
        self._write(answer)
        return True

    def _parse(self, piece: bytes) -> None:
        while piece and not self._is_deaf:
            try:
                self._weigh(len(piece))
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade as upgrade:
                # We switch to no other protocol: what follows is the next request.
                piece = piece[upgrade.args[0] :]
                continue
            except Refused as refused:
                self._refuse(refused.refusal)
            except httptools.HttpParserCallbackError:
                self._refuse(self._refusal or refusals.GARBLED)
            except httptools.HttpParserError:
                self._refuse(refusals.GARBLED)
            return

    def _weigh(self, size: int) -> None:
        """Bound what one request may take on the wire, whatever it consists of."""
        self._wire += size
        if self._wire > self._wire_max > 0:
            raise Refused(refusals.HEADERS_TOO_LARGE if self._in_head else refusals.BODY_TOO_LARGE)

    def _ignore(self, size: int) -> None:
        self._ignored += size
        if self._ignored > LINGER_MAX:
            self.drop()

    # What the parser finds. What is raised here ends the parsing.

    def on_message_begin(self) -> None:
        """Begin to read a request."""
        self._begun += 1
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._in_head = True
        self._head_size = self._body_size = self._wire = 0
        self._wire_max = HEAD_MAX + URL_MAX + PIECE
        self._deadlines.read = self._crowd.now + HEAD_S
        if self._begun > PIPELINE_MAX:
            self._stop(refusals.PIPELINED)

    def on_url(self, url: bytes) -> None:
        """Read a piece of the URL."""
        self.url += url
        if len(self.url) > URL_MAX:
            self._stop(refusals.URL_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Read a header."""
        if not self._in_head:
            # A trailer would else join the headers that were already judged.
            self._stop(refusals.TRAILER)
        name = name.lower()
        self.headers.append((name, value))
        self._head_size += len(name) + len(value) + 4
        if self._head_size > HEAD_MAX or len(self.headers) > HEADERS_MAX:
            self._stop(refusals.HEADERS_TOO_LARGE)
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True

    def on_headers_complete(self) -> None:
        """Judge the request; begin to answer it."""
        self._in_head = False
        self._wire, self._wire_max = 0, WIRE_MAX
        self._deadlines.read = self._crowd.now + BODY_S
        self._deadlines.idle = NEVER
        self._idle_s = IDLE_S
        self._method = self.parser.get_method()
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
            self._answer = self._hot.find(head.path, head.accept)
            self._plain = (head.path, head.accept)
        if self._answer is None:
            self._ask(head, caller)

    @property
    def _is_busy(self) -> bool:
        return self._running is not None or self.flow.write_paused or self._is_reserved

    def on_body(self, body: bytes) -> None:
        """Read a piece of the body."""
        self._body_size += len(body)
        if self._body_size > BODY_MAX:
            self._stop(refusals.BODY_TOO_LARGE)
        if self._reading is not None:
            self._reading.body += body
            self._reading.message_event.set()

    def on_message_complete(self) -> None:
        """Answer the request, if the answer is ready."""
        self._wire_max = 0
        self._deadlines.read = NEVER
        reading, self._reading = self._reading, None
        answer, self._answer = self._answer, None
        if answer is not None:
            self._write(answer)
        elif reading is not None:
            reading.more_body = False
            reading.message_event.set()

    def _stop(self, refusal: Refusal) -> NoReturn:
        # The parser reports that a callback raised, not what.
        self._refusal = refusal
        raise Refused(refusal)

    # Answering.

    def _write(self, answer: HotAnswer) -> None:
        self._deadlines.idle = self._crowd.now + IDLE_S
        self.transport.write(answer.whole(self._hot.date))
        if self._behind.tell is not None:
            self._behind.tell("GET", TEMPLATE, 200)

    def _ask(self, head: Head, caller: Caller) -> None:
        """Have the API answer, now or after what was asked before."""
        cycle = self._reading = Cycle(
            scope=self._scope(head, caller),
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=head.version == "1.1" and self.parser.should_keep_alive() and not self._is_reserved,
            on_response=self.on_response_complete,
        )
        self.cycle = cycle
        cycle.wants_to_wait = head.wants_to_wait
        app = self._hot.recording(self.app, *self._plain) if self._plain[0] else self.app
        if self._running is None:
            self._start(cycle, app)
        elif len(self.pipeline) < PIPELINE_MAX:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, app))
        else:
            self._reading = None
            self._stop(refusals.PIPELINED)

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

    def _start(self, cycle: Cycle, app: Any) -> None:
        if cycle.wants_to_wait:
            if self._crowd.streams >= self._crowd.streams_max:
                self._behind.log.warning("streamsFull", limit=self._crowd.streams_max)
                app = refusals.TOO_MANY_STREAMS.app
            else:
                self._crowd.streams += 1
                self._holds_stream = True
        self._running = cycle
        cycle.task = self.loop.create_task(cycle.run_asgi(app))
        self.tasks.add(cycle.task)
        cycle.task.add_done_callback(self.tasks.discard)

    def on_response_complete(self) -> None:
        """Go on with what was asked next."""
        self._finish()
        if self.transport.is_closing():
            self._deadlines.only_close(self._crowd.now + BLOCKED_S)
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start(cast("Cycle", cycle), app)
        elif self._last_words is not None:
            self._say(self._last_words)
        else:
            self._deadlines.idle = self._crowd.now + IDLE_S

    def _finish(self) -> None:
        self._running = None
        if self._holds_stream:
            self._holds_stream = False
            self._crowd.streams -= 1

    def _let_go(self, cycle: Cycle) -> None:
        """Tell whoever answers *cycle* that nobody waits for it any more."""
        cycle.disconnected = True
        cycle.message_event.set()
        if cycle is self._running:
            self._finish()

    # Refusing.

    def _refuse(self, refusal: Refusal) -> None:
        """Read nothing more; answer with *refusal* when it is its turn, then close."""
        self._is_deaf = True
        self._repeat = None
        unread, self._reading = self._reading, None
        if unread is not None:
            if unread.response_started:
                self.drop()
                return
            self.pipeline = deque(one for one in self.pipeline if one[0] is not unread)
            self._let_go(unread)
        if self._running is not None:
            self._last_words = refusal
            self._deadlines.read = NEVER
        elif refusal is refusals.WRONG_KEY:
            self._behind.log.warning("wrongKey")
            self._deadlines.only_close(self._crowd.now + WRONG_KEY_S + BLOCKED_S)
            self._pause = self.loop.call_later(WRONG_KEY_S, self._say, refusal)
        else:
            self._say(refusal)

    def _say(self, refusal: Refusal) -> None:
        if self.transport.is_closing():
            return
        self.transport.write(refusal.answer(self._hot.date, has_body=self._method != b"HEAD"))
        # Were it closed with something unread, the kernel would reset it, and the answer could be lost.
        self._deadlines.only_close(self._crowd.now + LINGER_S)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()
