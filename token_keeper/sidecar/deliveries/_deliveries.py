"""Where the tokens of one name go after they were published: into files, then to hooks.

It listens to events and reads the current token. Nothing that happens here changes the token.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from token_keeper._errors import InvalidToken, KeeperClosed
from token_keeper._model import EventKind, Secret, TokenEvent
from token_keeper.logs import KeeperLog, keeper_logger
from token_keeper.sidecar._documents import token_answer
from token_keeper.sidecar._served import ServedToken
from token_keeper.sidecar.config._model import FileSinkConfig, HookConfig, TokenConfig
from token_keeper.sidecar.deliveries._crew import Crew
from token_keeper.sidecar.deliveries._file_sink import FileSink, SinkState
from token_keeper.sidecar.deliveries._hooks import Hook, label_of
from token_keeper.sidecar.deliveries._processes import REAP_S, STOP_GRACE_S
from token_keeper.sinks import Reread, reread

__all__ = ["Deliveries", "SinkState"]

FLUSH_S = 1.5
"""What sinks get at the end for what is still due."""
CLOSE_S = 2.0
"""What sinks and hooks get together, before the hooks are ended."""
ADOPT_S = 2.0
"""How long the files of a former run are waited for, all together."""


class Deliveries:
    """The sinks and hooks of one token. Only in the loop.

    Args:
        served: The token. Its configuration says where it goes.
        start: Names this start, in the documents that are written.
        logger: A structlog logger.
        crew: Who writes and runs, shared by all tokens; None makes one for this token alone.

    Attributes:
        hook_failures: Runs of hooks that failed.
    """

    __slots__ = (
        *("_crew", "_hooks", "_is_closing", "_leaving", "_log", "_logger", "_served"),
        *("_sinks", "_start", "hook_failures", "sinks"),
    )

    sinks: tuple[SinkState, ...]
    """How each sink is doing, in the order of the configuration."""

    def __init__(
        self, served: ServedToken, *, start: str, logger: Any = None, crew: Crew | None = None
    ) -> None:
        self.hook_failures = 0
        self.sinks = ()
        self._served = served
        self._start = start
        self._logger = logger
        self._log: KeeperLog | None = None
        self._crew = crew
        self._sinks: tuple[FileSink, ...] = ()
        self._hooks: tuple[Hook, ...] = ()
        self._leaving: set[Hook] = set()
        self._is_closing = False
        self._arrange(served.config)

    def notify(self, event: TokenEvent) -> None:
        """Write and call what *event* asks for. Never blocks."""
        if self._is_closing or not (self._sinks or self._hooks):
            return
        # At any event: one that was lost is made good by the next.
        self._offer()
        for hook in self._hooks:
            hook.hear(event)

    def become(self, config: TokenConfig) -> None:
        """Write and call as *config* says from now on. Files of sinks that are gone stay."""
        self._arrange(config)
        # Soon, not now: whether the current token still serves is decided right after this.
        asyncio.get_running_loop().call_soon(self._offer)

    async def adopt(self) -> None:
        """Take back the token of a former run from the first sink that has one and may be believed."""
        files = [sink.config for sink in self._sinks if sink.config.adopt and sink.config.format == "json"]
        if not files:
            return
        loop = asyncio.get_running_loop()
        until = loop.time() + ADOPT_S
        for config in files:
            directory = os.path.split(config.path)[0]
            if directory in self._shared().silent:
                continue
            reading = loop.run_in_executor(self._shared().writers, reread, config.path)
            await asyncio.wait({reading}, timeout=until - loop.time())
            if reading.done():
                why = self._taken(reading.result())
            else:
                reading.cancel()
                self._shared().silent.add(directory)
                why = f"its file system did not answer within {ADOPT_S:g} s"
            if why is None:
                self._logged().info("sinkAdopted", path=config.path)
                return
            if why:
                self._logged().warning("sinkNotAdopted", path=config.path, error=why)

    async def close(self) -> None:
        """Write what is due and let hooks end, within 2 s; then hooks are ended. Idempotent."""
        if self._is_closing:
            return
        # Its event may still be on its way.
        self._offer()
        self._is_closing = True
        loop = asyncio.get_running_loop()
        until = loop.time() + CLOSE_S
        if self._sinks:
            await asyncio.gather(*(sink.flush(FLUSH_S) for sink in self._sinks))
        for hook in self._hooks:
            hook.hurry()
        await self._until_hooks_ended(until)
        await self._end_hooks()
        for sink in self._sinks:
            sink.close(abandon=True)

    def _arrange(self, config: TokenConfig) -> None:
        """Have the sinks and hooks of *config*; keep those that stay."""
        sinks = {sink.config.path: sink for sink in self._sinks}
        wanted = []
        for sink_config in config.sinks:
            sink = sinks.pop(sink_config.path, None) or self._sink(sink_config)
            if sink.config != sink_config:
                sink.become(sink_config)
            wanted.append(sink)
        for sink in sinks.values():
            sink.close()
        self._sinks = tuple(wanted)
        self.sinks = tuple(sink.state for sink in wanted)
        former = list(self._hooks)
        self._hooks = tuple(self._hook(former, *numbered) for numbered in enumerate(config.hooks))
        for hook in former:
            hook.forget()
            if hook.run is not None:
                self._leaving.add(hook)

    def _sink(self, config: FileSinkConfig) -> FileSink:
        return FileSink(
            config,
            name=self._served.name,
            answer=self._answer,
            crew=self._shared(),
            log=self._logged(),
            on_tried=self._look,
        )

    def _hook(self, former: list[Hook], index: int, config: HookConfig) -> Hook:
        for hook in former:
            if hook.config == config:
                former.remove(hook)
                return hook
        return Hook(
            config,
            label_of(index, config),
            crew=self._shared(),
            log=self._logged(),
            is_ripe=self._is_ripe,
            secret=self._secret,
            on_ended=self._hook_ended,
        )

    def _shared(self) -> Crew:
        if self._crew is None:
            self._crew = Crew()
        return self._crew

    def _logged(self) -> KeeperLog:
        # Most tokens have neither sinks nor hooks, and need none.
        if self._log is None:
            self._log = keeper_logger(self._logger, name=self._served.name)
        return self._log

    def _answer(self) -> dict[str, Any] | None:
        return token_answer(self._served, self._start)

    def _secret(self) -> Secret | None:
        kept = self._served.kept
        current = kept.state.usable_by("", kept.boot())
        return None if current is None else current.token.secret

    def _offer(self) -> None:
        generation = self._served.kept.state.generation
        if generation and not self._is_closing:
            for sink in self._sinks:
                sink.offer(generation)

    def _look(self) -> None:
        for hook in self._hooks:
            hook.look()

    def _is_ripe(self, event: TokenEvent) -> bool:
        if event.kind is not EventKind.TOKEN_UPDATED:
            return True
        return all(sink.tried >= event.generation for sink in self._sinks)

    def _hook_ended(self, hook: Hook, went_well: bool) -> None:  # noqa: FBT001 - a fact, of a callback
        self._leaving.discard(hook)
        if not went_well:
            self.hook_failures += 1

    def _taken(self, found: Reread | str | None) -> str | None:
        """Hand *found* to the keeper. Returns why not, empty if there is nothing to say."""
        if found is None:
            return ""
        if isinstance(found, str):
            return found
        try:
            self._served.update(found.secret.reveal(), expires_at=found.expires_at)
        except (InvalidToken, KeeperClosed) as error:
            return str(error)
        return None

    async def _until_hooks_ended(self, until: float) -> None:
        loop = asyncio.get_running_loop()
        while runs := {hook.run for hook in (*self._hooks, *self._leaving) if hook.run is not None}:
            rest = until - loop.time()
            if rest <= 0:
                return
            # One that ends may be followed by what came for the same hook meanwhile.
            await asyncio.wait(runs, timeout=rest)

    async def _end_hooks(self) -> None:
        hooks = (*self._hooks, *self._leaving)
        for hook in hooks:
            hook.forget()
        # Those that wait first: the end of another would give them its place.
        for hook in sorted(hooks, key=lambda hook: hook.has_begun):
            hook.stop()
        await self._until_hooks_ended(asyncio.get_running_loop().time() + STOP_GRACE_S + REAP_S)
        for hook in hooks:
            hook.abandon()
