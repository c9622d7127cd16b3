"""Everything that the sidecar listens on, and the keys that belong to it."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from token_keeper.sidecar._access import KeyFileError, Keys
from token_keeper.sidecar._systemd import Passed, passed_sockets
from token_keeper.sidecar.config._model import ServerConfig
from token_keeper.sidecar.server._guards import Gate, Hosts
from token_keeper.sidecar.server._sockets import CannotListenError, UnixListener, bind_tcp, usual_path

KEY_NAME = "access-key"
"""The access key's file, beside the socket."""


@dataclass(slots=True)
class Listening:
    """Bound sockets, each with what it asks of a request.

    Args:
        path: Where clients find the Unix socket.
        keys: For callers over TCP.
        gates: The sockets.
        own: The Unix socket that we made, and remove at the end.
    """

    path: Path
    keys: Keys
    gates: list[tuple[socket.socket, Gate]] = field(default_factory=list)
    own: UnixListener | None = None

    @classmethod
    def bind(cls, config: ServerConfig, environ: MutableMapping[str, str]) -> Self:
        """Listen as *config* says, or on what the service manager passed.

        Raises:
            CannotListenError: If that cannot be.
        """
        passed = passed_sockets(environ)
        path = passed.path() or (Path(config.socket) if config.socket else usual_path(environ))
        has_tcp = bool(passed.tcp or config.listen)
        access_file = Path(config.access_key_file) if config.access_key_file else path.with_name(KEY_NAME)
        metrics_file = Path(config.metrics_key_file) if config.metrics_key_file else None
        keys = Keys(access_file if has_tcp else None, metrics_file)
        listening = cls(path, keys)
        try:
            listening._bind_unix(config, passed)
            listening._bind_tcp(config, passed)
            keys.read()
        except KeyFileError as error:
            listening.close()
            raise CannotListenError(str(error), os.EX_CONFIG) from None
        except BaseException:
            listening.close()
            raise
        return listening

    def _bind_unix(self, config: ServerConfig, passed: Passed) -> None:
        sockets = passed.unix
        if not sockets:
            self.own = UnixListener.bind(self.path, is_open=bool(config.allow_uids or config.allow_gids))
            sockets = (self.own.socket,)
        self.gates += [(one, Gate("unix", self.keys)) for one in sockets]

    def _bind_tcp(self, config: ServerConfig, passed: Passed) -> None:
        sockets = passed.tcp
        if not sockets and config.listen:
            host, _, port = config.listen.rpartition(":")
            if not (host and port.isascii() and port.isdigit() and int(port) < 65_536):
                raise CannotListenError(
                    "server.listen: must be HOST:PORT, such as 127.0.0.1:8750", os.EX_CONFIG
                )
            sockets = (bind_tcp(host, int(port)),)
        for one in sockets:
            address = one.getsockname()
            hosts = Hosts.of(str(address[0]), int(address[1]), config.hosts)
            self.gates.append((one, Gate("tcp", self.keys, hosts)))

    @property
    def tcp_address(self) -> str | None:
        """Where callers over TCP find us, as ``HOST:PORT``; None if nowhere."""
        for one, gate in self.gates:
            if gate.over == "tcp":
                host, port = one.getsockname()[:2]
                return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return None

    def close(self) -> None:
        """Stop listening, and remove what we made. Does nothing the second time."""
        for one, _ in self.gates:
            with suppress(OSError):
                one.close()
        if self.own is not None:
            self.own.close()
