"""The sidecar as a process: what is started in which order, and what ends it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from token_keeper import __version__
from token_keeper.sidecar._hardening import allow_files
from token_keeper.sidecar._household import Household
from token_keeper.sidecar._listening import Listening
from token_keeper.sidecar._reload import Reload, Reloaded
from token_keeper.sidecar._systemd import Notifier
from token_keeper.sidecar.api import make_app
from token_keeper.sidecar.config import Checked
from token_keeper.sidecar.config._model import ServerConfig
from token_keeper.sidecar.server._peers import own_rule
from token_keeper.sidecar.server._server import Server

STOP_S = 4.5
"""From the signal to the exit, whatever hangs."""
DRAIN_S = 1.0
"""How long requests may go on after the signal."""
CLOSE_S = 3.0
"""How long sinks, hooks and sources may take then."""
CANCEL_S = 0.2
"""How long what was cancelled may take to notice."""


def run(checked: Checked, server: ServerConfig, logger: Any) -> int:
    """Serve until a signal ends it, and return the exit code.

    Args:
        checked: The configuration.
        server: Its `[server]`, with what the command line says instead.
        logger: A structlog logger.

    Raises:
        CannotListenError: If a socket cannot be ours.
    """
    loop = _new_loop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(Process(checked, server, logger).run())
    finally:
        _end(loop)


class Process:
    """One run of the sidecar, from the first socket to the last.

    Args:
        checked: The configuration.
        server: Its `[server]`, with what the command line says instead.
        logger: A structlog logger.
    """

    def __init__(self, checked: Checked, server: ServerConfig, logger: Any) -> None:
        self._checked = checked
        self._config = server
        self._log = logger
        self._notifier = Notifier.of(os.environ)
        self._stop = asyncio.Event()
        self._signal = 0
        self._listening: Listening | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        """Serve until a signal comes."""
        self._heed(signal.SIGTERM, self._asked_to_stop, signal.SIGTERM)
        self._heed(signal.SIGINT, self._asked_to_stop, signal.SIGINT)
        # Until it can be obeyed it must not end us.
        self._heed(signal.SIGHUP, lambda: None)
        listening = self._listening = Listening.bind(self._config, os.environ)
        try:
            await self._serve(listening)
        finally:
            listening.close()
        self._log.info("sidecarStopped", pid=os.getpid())
        return os.EX_OK

    async def _serve(self, listening: Listening) -> None:
        config = self._config
        connections = allow_files(config.max_connections, self._log)
        household = Household(self._checked.parts, logger=self._log)
        reload = self._reload_of(household, listening)
        address = listening.tcp_address
        opening = asyncio.ensure_future(household.__aenter__())

        async def reload_once_open() -> Reloaded:
            await asyncio.shield(opening)
            return await reload()

        async def reload_quietly() -> None:
            await asyncio.wait({opening})
            await reload.quietly()

        app = make_app(
            household,
            keys=listening.keys,
            reload=reload_once_open,
            page=f"http://{address}/" if address else None,
        )
        server = Server(
            app,
            household,
            peers=own_rule(config.allow_uids, config.allow_gids),
            max_connections=connections,
            logger=self._log,
            is_verbose=config.log_level == "debug",
        )
        # It runs up to its first wait: then nobody is told that a configured token is unknown.
        await asyncio.sleep(0)
        await server.listen(listening.gates)
        # Before we say that we serve: who reads that may ask for a reload at once.
        self._heed(signal.SIGHUP, lambda: self._keep(reload_quietly()))
        self._started(listening)
        await opening
        self._keep(self._sign_of_life(household))
        await self._stop.wait()
        await self._end(server, household, listening)

    def _reload_of(self, household: Household, listening: Listening) -> Reload:
        return Reload(
            self._checked.path,
            household=household,
            keys=listening.keys,
            running=self._checked.config.server,
            store=self._checked.config.store,
            notifier=self._notifier,
            logger=self._log,
        )

    def _started(self, listening: Listening) -> None:
        for warning in self._checked.warnings:
            self._log.warning("configWarning", key=warning.key, problem=warning.problem)
        address = listening.tcp_address
        self._log.info(
            "sidecarStarted",
            socket=str(listening.path),
            **({"listen": address} if address else {}),
            tokens=len(self._checked.parts),
            config=str(self._checked.path),
            pid=os.getpid(),
            version=__version__,
        )
        self._notifier.ready(f"Keeping {len(self._checked.parts)} tokens")

    async def _end(self, server: Server, household: Household, listening: Listening) -> None:
        self._notifier.stopping()
        self._log.info("sidecarStopping", signal=signal.Signals(self._signal).name)
        _leave_in_time(listening)
        await server.drain(DRAIN_S)
        try:
            async with asyncio.timeout(CLOSE_S):
                await household.close()
        except TimeoutError:
            self._log.warning(
                "stoppedInHaste", after_s=CLOSE_S, remedy="see which sink, hook or source hangs"
            )

    async def _sign_of_life(self, household: Household) -> None:
        interval = self._notifier.watchdog_s
        while interval is not None:
            if household.is_live:
                self._notifier.alive()
            await asyncio.sleep(interval / 2)

    def _asked_to_stop(self, number: int) -> None:
        if self._stop.is_set():
            # Whoever asks twice does not want to wait.
            if self._listening is not None:
                self._listening.close()
            os._exit(128 + number)
        self._signal = number
        self._stop.set()

    def _heed(self, number: int, act: Callable[..., object], *args: object) -> None:
        asyncio.get_running_loop().add_signal_handler(number, act, *args)

    def _keep(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _leave_in_time(listening: Listening) -> None:
    """End the process by force if it has not ended by itself."""

    def leave() -> NoReturn:
        listening.close()
        os._exit(os.EX_OK)

    timer = threading.Timer(STOP_S, leave)
    timer.daemon = True
    timer.start()


def exit_now(code: int) -> NoReturn:
    """Exit without waiting for threads: one may hang in a name server or a dead file system."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop  # noqa: PLC0415 - There may be none for this machine.
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _end(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what is left in *loop*, and give it a moment to notice."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=CANCEL_S))
