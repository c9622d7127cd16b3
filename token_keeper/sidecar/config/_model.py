"""What may stand in the configuration, once it was checked. Lengths of time are seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct, field

from token_keeper._policy import DEFAULT_POLICY, RefreshPolicy

EventName = Literal[
    "tokenUpdated",
    "tokenAboutToExpire",
    "tokenExpired",
    "tokenDenied",
    "recovered",
    "refreshFailed",
    "refreshRefused",
    "recoveryFailed",
    "clockJumped",
]
LogFormat = Literal["json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]
SinkFormat = Literal["raw", "json", "env", "template"]


class ServerConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[server]`: where the sidecar is found, and by whom.

    Args:
        socket: Path of the Unix socket; None is the usual place.
        listen: ``HOST:PORT`` on loopback, which adds TCP; None is no TCP.
        access_key_file: Holds the key for TCP, made if missing; None is `access-key` beside the socket.
        metrics_key_file: Holds a second key, which reads metrics, status and events only; None is none.
        allow_uids: Users besides our own and root who may connect to the socket.
        allow_gids: Groups whose members may.
        hosts: Names that `Host` may have over TCP, besides the loopback's own.
        max_connections: At once, over all listeners.
        log_format: How log lines look; None is console in a terminal, else json.
        log_level: The least that is logged.
    """

    socket: str | None = None
    listen: str | None = None
    access_key_file: str | None = None
    metrics_key_file: str | None = None
    allow_uids: tuple[int, ...] = ()
    allow_gids: tuple[int, ...] = ()
    hosts: tuple[str, ...] = ()
    max_connections: int = 256
    log_format: LogFormat | None = None
    log_level: LogLevel = "info"


class HttpSourceConfig(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="http"
):
    """`[tokens.NAME.source]` of type ``http``: the words of `HttpSource`.

    Strings may hold ``${env:NAME}``, ``${file:PATH}`` and ``${credential:NAME}``; they are kept as written.
    """

    url: str
    method: str | None = None
    headers: Mapping[str, str] | None = None
    params: Mapping[str, Any] | None = None
    json: Any = None
    data: Mapping[str, Any] | None = None
    timeout: float = 10.0
    token_path: str | None = None
    expires_path: str | None = None
    default_lifetime: float | None = None
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    proxy: str | None = None
    allow_http: bool = False


SourceConfig = HttpSourceConfig
"""One struct for each type of source; `type` tells which."""


class FileSinkConfig(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="file"
):
    """`[[tokens.NAME.sinks]]` of type ``file``.

    Args:
        path: Absolute. Its directory must exist.
        format: What is written.
        variable: Name of the variable, for ``env``.
        template: Text with ``{{token}}`` and so on, for ``template``.
        mode: Permission bits.
        owner: Numeric uid, or None for our own.
        group: Numeric gid, or None for our own.
        adopt: Whether a file of a former run is taken back at the start.
    """

    path: str
    format: SinkFormat = "raw"
    variable: str | None = None
    template: str | None = None
    mode: int = 0o600
    owner: int | None = None
    group: int | None = None
    adopt: bool = False


class HookConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[tokens.NAME.hooks]]`: a command, or a signal, after the sinks were written.

    Args:
        on: The events that call it.
        run: The command and its arguments; empty if it is a signal.
        signal: Such as ``SIGHUP``, with *pid_file*.
        pid_file: Holds the number of the process to signal.
        stdin: ``token`` gives the raw token on standard input.
        timeout: Seconds that the command may take.
    """

    on: tuple[EventName, ...] = ("tokenUpdated",)
    run: tuple[str, ...] = ()
    signal: str | None = None
    pid_file: str | None = None
    stdin: Literal["none", "token"] = "none"
    timeout: float = 30.0


class TokenConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[tokens.NAME]`: one token.

    Args:
        source: Where it comes from.
        profile: The rules that it must pass.
        expect: What it must be good for.
        policy: When it is refreshed.
        sinks: Where it is written.
        hooks: What is called.
    """

    source: SourceConfig
    profile: str = "auto"
    expect: Mapping[str, Any] = field(default_factory=dict)
    policy: RefreshPolicy = DEFAULT_POLICY
    sinks: tuple[FileSinkConfig, ...] = ()
    hooks: tuple[HookConfig, ...] = ()


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file. Two are equal if the same stands in them, however it is written."""

    server: ServerConfig = ServerConfig()
    tokens: Mapping[str, TokenConfig] = field(default_factory=dict)
