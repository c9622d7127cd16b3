"""Clients of Twilio's real JavaScript SDKs, kept fresh by examples/twilio-js out of a real sidecar."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from npm_client import NodeProgram
from sidecar import Sidecar, a_config, running

from token_keeper.testing import FakeBackend, FakeTwilsock

SDKS = ("twilsock", "sync", "conversations")
GRANTS = {"chat": {"service_sid": "IS" + "0" * 32}, "data_sync": {"service_sid": "IS" + "1" * 32}}


@dataclass(slots=True)
class Sessions:
    """One client of each SDK, all with the token `chat` of one sidecar.

    Attributes:
        server: To which all of them are connected.
        backend: Where the sidecar gets its tokens.
        sidecar: The process.
        lifetime: Of the tokens that are minted from now on, in seconds.
    """

    program: NodeProgram
    server: FakeTwilsock
    backend: FakeBackend
    sidecar: Sidecar
    lifetime: float = 3600.0
    serial: int = 0

    @property
    def where(self) -> dict[str, str]:
        """What keeper.mjs is told."""
        return {"socketPath": str(self.sidecar.socket_path), "token": "chat"}

    def name(self, sdk: str) -> str:
        """Return the name of the session of *sdk*: events of former tests are not taken for its own."""
        return f"{sdk}-{self.serial}"

    def open(self, **options: Any) -> None:
        """Make the clients with a token of the sidecar, and attach."""
        for sdk in SDKS:
            self.program.tell(
                order="open", name=self.name(sdk), sdk=sdk, url=self.server.url, where=self.where, **options
            )

    def opened(self, **options: Any) -> None:
        """Open them, and wait until all are connected, and Conversations is ready for use."""
        self.open(**options)
        self.all("state", state="connected")
        self.program.next("client", name=self.name("conversations"), state="initialized")
        self.server.wait_for_live(len(SDKS))

    def all(self, event: str, **details: Any) -> list[dict[str, Any]]:
        """Wait until each of them has told this."""
        return [self.program.next(event, name=self.name(sdk), **details) for sdk in SDKS]

    def said(self) -> list[dict[str, Any]]:
        """Return what they said, as far as it was waited for."""
        names = {self.name(sdk) for sdk in SDKS}
        return [said for said in self.program.seen if said["name"] in names]

    @contextmanager
    def restarted(self) -> Iterator[None]:
        """Start the sidecar again, in the same place, after it was stopped."""
        directory = self.sidecar.directory
        with running(self.sidecar.config_path.read_text(), directory=directory) as self.sidecar:
            yield

    def stop(self) -> None:
        """Let go of the clients."""
        for sdk in SDKS:
            self.program.tell(order="stop", name=self.name(sdk))


@contextmanager
def sessions(program: NodeProgram, serial: int) -> Iterator[Sessions]:
    """Start a server, a backend and a sidecar. *serial* is another one for each use of *program*."""

    def mint(now: float) -> str:
        return made[0].server.mint(now, lifetime=made[0].lifetime, grants=GRANTS)

    made: list[Sessions] = []
    with ExitStack() as stack:
        server = stack.enter_context(FakeTwilsock())
        backend = stack.enter_context(FakeBackend(mint=mint))
        policy = "[tokens.chat.policy]\nsplay = false"  # An hour's token is not renewed while a test looks.
        made.append(Sessions(program, server, backend, None, serial=serial))  # type: ignore[arg-type]
        made[0].sidecar = stack.enter_context(running(a_config(backend.url, extra=policy)))
        yield made[0]
        made[0].stop()
