"""A program whose children fetch from one store, and die when they are told to. `crashing` drives it.

It has one thread and everything loaded, so that a child is a fork away. Orders
come on standard input, answers go to standard output: a JSON object in a line.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from typing import Any, Self, TextIO

from token_keeper import FetchError, OAuth2Source
from token_keeper.sources import _clients as clients
from token_keeper.store import DirectoryStore, MemoryStore

# What the system is asked to do or to tell. Whatever lies between two of them, nobody else sees.
ON_FILES = {"open", "close", "mkdir", "write", "fsync", "fdatasync", "ftruncate", "posix_fallocate"}
ON_NAMES = {"flock", "lockf", "replace", "rename", "link", "unlink", "remove", "fchmod", "fchown", "chmod"}
ON_SOCKETS = {"connect", "send", "sendall", "sendmsg", "recv", "recv_into", "recvmsg"}
MODULES = {"posix", "fcntl", "_io", "socket"}
STEPS = ON_FILES | ON_NAMES | ON_SOCKETS


class Doom:
    """Counts the steps of this process, before and after each, and kills it at one of them."""

    def __init__(self, at: int) -> None:
        self.steps: list[str] = []
        self._at = at

    def __enter__(self) -> Self:
        threading.setprofile(self._watch)
        sys.setprofile(self._watch)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]

    def _watch(self, _: object, event: str, called: Any) -> None:
        if event not in {"c_call", "c_return", "c_exception"} or called.__name__ not in STEPS:
            return
        owner = called.__self__
        if (called.__module__ or type(owner).__module__) not in MODULES:
            return  # Strings have a `replace`, too.
        if isinstance(owner, socket.socket) and owner.family == socket.AF_UNIX:
            return  # How the loop wakes itself.
        if self._at == len(self.steps):
            os.kill(os.getpid(), signal.SIGKILL)
        self.steps.append(f"{'before' if event == 'c_call' else 'after'} {called.__name__}")


class Child:
    """One process with a source of its own."""

    def __init__(self, order: dict[str, Any], others: list[Child]) -> None:
        ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if not self.pid:
            for channel in (ours, *(other.channel for other in others)):
                channel.close()
            _live(theirs, order)
        theirs.close()
        self.channel = ours
        self.answers = ours.makefile("r")
        self.is_dead = False

    def tell(self, **order: Any) -> None:
        self.channel.sendall(f"{json.dumps(order)}\n".encode())

    def told(self, timeout: float | None = None) -> dict[str, Any] | None:
        """Return its answer; None if there is none in *timeout* seconds."""
        if not select.select([self.channel], [], [], timeout)[0]:
            return None
        try:
            line = self.answers.readline()
        except ConnectionResetError:  # It died before it read what it was told.
            line = ""
        return json.loads(line) if line.endswith("\n") else self.bury()

    def bury(self) -> dict[str, Any]:
        """Wait for its end. Returns how it ended."""
        if not self.is_dead:
            self.is_dead = True
            self.status = os.waitpid(self.pid, 0)[1]
            self.answers.close()
            self.channel.close()
        return {"killed": os.WIFSIGNALED(self.status), "status": os.waitstatus_to_exitcode(self.status)}


def _live(channel: socket.socket, order: dict[str, Any]) -> None:
    """Fetch whenever told. Never returns."""
    status = 1
    try:
        with channel, channel.makefile("rw") as talk:
            _serve(talk, order)
        status = 0
    except Exception:  # noqa: BLE001 - Whoever waits for its answer learns that there is none.
        traceback.print_exc()
    finally:
        # What the parent has not written yet is not ours to write.
        os._exit(status)


def _serve(talk: TextIO, order: dict[str, Any]) -> None:
    source = OAuth2Source(store=DirectoryStore(order["directory"]), **order["source"])
    with asyncio.Runner() as runner:
        _answer(talk, ready=True)
        for told in talk:
            kill_at = json.loads(told)["kill_at"]
            begun = time.monotonic()
            if kill_at is None:
                outcome = runner.run(_fetched(source))
            else:
                with Doom(kill_at) as doom:
                    outcome = runner.run(_fetched(source))
                outcome["steps"] = doom.steps
            _answer(talk, seconds=time.monotonic() - begun, **outcome)
        runner.run(source.aclose())


def _answer(talk: TextIO, **answer: Any) -> None:
    talk.write(f"{json.dumps(answer)}\n")
    talk.flush()


async def _fetched(source: OAuth2Source) -> dict[str, Any]:
    try:
        issued = await source.fetch(tries=1)
    except FetchError as error:
        return {"error": type(error).__name__, "message": str(error)}
    return {"token": hashlib.sha256(issued.secret.reveal().encode()).hexdigest()[:16]}


class Crew:
    """All children of this process."""

    def __init__(self) -> None:
        self._children: dict[str, Child] = {}
        # Loading the authorities, and what a first fetch imports, takes longer than all the rest of one.
        self._context = clients._shared.context()
        nobody = OAuth2Source(
            "http://127.0.0.1:9/token",
            grant="refresh_token",
            client_id="nobody",
            refresh_token="none",
            store=MemoryStore(),
            stored_as="nothing",
        )
        asyncio.run(_fetched(nobody))

    def hire(self, name: str, **order: Any) -> dict[str, Any]:
        child = self._children[name] = Child(order, [*self._children.values()])
        return child.told() or {}

    def begin(self, name: str, kill_at: int | None = None) -> dict[str, Any]:
        """Let it fetch, and kill itself at that step."""
        self._children[name].tell(kill_at=kill_at)
        return {}

    def outcome(self, name: str, kill_after: float | None = None) -> dict[str, Any]:
        """Kill it if it is not done after *kill_after* seconds. Returns what came of its fetch."""
        child = self._children[name]
        answer = child.told(kill_after)
        if answer is None:
            os.kill(child.pid, signal.SIGKILL)
            answer = child.told()
        return answer or {}

    def signal(self, name: str, number: int) -> dict[str, Any]:
        os.kill(self._children[name].pid, number)
        return {}

    def dismiss(self, name: str) -> dict[str, Any]:
        child = self._children.pop(name)
        if not child.is_dead:
            child.channel.shutdown(socket.SHUT_WR)
        return child.bury()

    def end(self) -> None:
        for name, child in list(self._children.items()):
            if not child.is_dead:
                os.kill(child.pid, signal.SIGCONT)
            self.dismiss(name)


def main() -> None:
    """Do what standard input says, until it ends."""
    crew = Crew()
    try:
        for line in sys.stdin:
            order = json.loads(line)
            sys.stdout.write(json.dumps(getattr(crew, order.pop("order"))(**order)) + "\n")
            sys.stdout.flush()
    finally:
        crew.end()


if __name__ == "__main__":
    main()
