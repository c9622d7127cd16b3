"""Real packages of npm, in processes of Node.js that the tests drive."""

from __future__ import annotations

import fcntl
import json
import os
import queue
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any, Self

import pytest

JS = Path(__file__).parent / "js"
INSTALL_TIMEOUT_S = 90.0
EVENT_TIMEOUT_S = 15.0


class CannotInstallError(Exception):
    """Node.js, npm or the registry is not there."""


def installed(folder: Path, package: Path = JS / "package.json") -> Path:
    """Install what *package* wants below *folder*, once. Returns its node_modules."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise CannotInstallError(f"{program} is not installed")
    wanted = package.read_text()
    stamp = folder / "installed.json"
    with (folder / "lock").open("w") as lock:  # Tests of several files run side by side.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (stamp.exists() and stamp.read_text() == wanted):
            _install(folder, wanted)
            stamp.write_text(wanted)
    return folder / "node_modules"


def modules_or_skip(
    config: pytest.Config, package: Path = JS / "package.json", *, cache: str = "twilio-npm"
) -> Path:
    """Return the installed packages, or skip the test."""
    try:
        return installed(config.cache.mkdir(cache), package)
    except CannotInstallError as error:
        pytest.skip(f"the real packages of npm cannot be had: {error}")


def _install(folder: Path, wanted: str) -> None:
    (folder / "package.json").write_text(wanted)
    command = [
        *("npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"),
        *("--fetch-retries=1", "--fetch-retry-mintimeout=1000"),
    ]
    try:
        run = subprocess.run(command, cwd=folder, capture_output=True, timeout=INSTALL_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise CannotInstallError(f"npm install took over {INSTALL_TIMEOUT_S:g} s") from None
    if run.returncode:
        raise CannotInstallError(f"npm install failed with exit code {run.returncode}: no registry?")


class NodeProgram:
    """A script of tests/js that takes orders and tells events, a JSON object in a line each."""

    def __init__(self, script: str, modules: Path) -> None:
        self.seen: list[dict[str, Any]] = []
        self._coming: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._passed: dict[object, list[dict[str, Any]]] = {}
        self._process = subprocess.Popen(
            ["node", str(JS / script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "NODE_PATH": str(modules)},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(EVENT_TIMEOUT_S)
        self._reader.join(EVENT_TIMEOUT_S)
        self._process.stdout.close()

    def tell(self, **order: Any) -> None:
        """Give an order."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def next(self, event: str, *, name: str | None = None, **details: Any) -> dict[str, Any]:
        """Wait for *event* of *name* with these *details*, past all others of that name. Returns it."""
        passed = self._passed.setdefault(name, [])
        while True:
            said = passed.pop(0) if passed else self._more(name)
            if said is not None and {"event": event, **details}.items() <= said.items():
                return said

    def _more(self, name: str | None) -> dict[str, Any] | None:
        try:
            said = self._coming.get(timeout=EVENT_TIMEOUT_S)
        except queue.Empty:
            raise AssertionError(f"it did not happen; the program said {self.seen}") from None
        assert said is not None, f"the program ended; it said {self.seen}"
        self.seen.append(said)
        if said.get("name") == name:
            return said
        self._passed.setdefault(said.get("name"), []).append(said)
        return None

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._coming.put(json.loads(line))
        self._coming.put(None)


class NpmClient:
    """One twilsock client. What it says is an event: a dict with `event` and what belongs to it."""

    def __init__(self, modules: Path) -> None:
        self._program = NodeProgram("twilsock-client.js", modules)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._program.__exit__()

    @property
    def seen(self) -> list[dict[str, Any]]:
        """What it said, as far as it was waited for."""
        return self._program.seen

    def connect(self, url: str, token: str) -> None:
        self._program.tell(order="connect", url=url, token=token)

    def update(self, token: str) -> None:
        self._program.tell(order="update", token=token)

    def disconnect(self) -> None:
        self._program.tell(order="disconnect")

    def next(self, event: str, **details: Any) -> dict[str, Any]:
        """Wait for *event* with these *details*, past all others. Returns it."""
        return self._program.next(event, **details)

    def states(self) -> list[str]:
        """Return the states that it was in, as far as they were waited for."""
        return [said["state"] for said in self.seen if said["event"] == "stateChanged"]
