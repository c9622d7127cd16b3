"""Answers the requests of one connection, one after the other, and refuses where it has to.

It knows the order of answers and how a connection ends, and nothing of what they say.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, cast

from token_keeper.sidecar.server import _refusals as refusals
from token_keeper.sidecar.server._behind import Behind, Cycle
from token_keeper.sidecar.server._bounded import PIPELINE_MAX, Bounded
from token_keeper.sidecar.server._crowd import BLOCKED_S, IDLE_S, LINGER_S, NEVER
from token_keeper.sidecar.server._refusals import Refusal

WRONG_KEY_S = 1.0
"""How long the answer to a wrong key is held back. Whoever has the right one never waits."""


class Turns(Bounded):
    """A protocol that answers in turn.

    Args:
        behind: What all connections share.
    """

    def __init__(self, behind: Behind) -> None:
        super().__init__(behind)
        self._behind = behind
        self._running: Cycle | None = None
        self._holds_stream = False
        self._last_words: Refusal | None = None
        self._pause: asyncio.TimerHandle | None = None

    def drop(self) -> None:
        """End it at once."""
        self._hush()
        self._crowd.leave(self)
        self.transport.abort()

    def _hush(self) -> None:
        """Read nothing any more."""
        self._is_deaf = True

    def _close(self) -> None:
        self._deadlines.only_close(self._crowd.now + BLOCKED_S)
        self.transport.close()

    def _ask(self, app: Any, scope: Any, *, keep_alive: bool, wants_to_wait: bool) -> None:
        """Have *app* answer, now or after what was asked before."""
        cycle = self._reading = Cycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )
        self.cycle = cycle
        cycle.wants_to_wait = wants_to_wait
        if self._running is None:
            self._start(cycle, app)
        elif len(self.pipeline) < PIPELINE_MAX:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, app))
        else:
            self._reading = None
            self._stop(refusals.PIPELINED)

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

    def _forget_all(self) -> None:
        """Tell whoever answers anything here that the client is gone."""
        if self._pause is not None:
            self._pause.cancel()
        if self._running is not None:
            self._let_go(self._running)
        self.pipeline.clear()

    def _refuse(self, refusal: Refusal) -> None:
        """Read nothing more; answer with *refusal* when it is its turn, then close."""
        self._hush()
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
        self.transport.write(refusal.answer(self._behind.hot.date, has_body=self._method != b"HEAD"))
        # Were it closed with something unread, the kernel would reset it, and the answer could be lost.
        self._deadlines.only_close(self._crowd.now + LINGER_S)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()
