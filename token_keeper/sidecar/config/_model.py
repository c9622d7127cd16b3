"""What may stand in the configuration, once it was checked. Lengths of time are seconds.

The types say how each value is written in the file: reading, `check --schema`
and the messages all come from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Struct, field

from token_keeper._policy import DEFAULT_POLICY, RefreshPolicy
from token_keeper.sidecar.config import _kinds as kinds
from token_keeper.sidecar.config._policy import POLICY
from token_keeper.sidecar.config._shapes import PRIVATE, REFERS, Such
from token_keeper.sidecar.config._source_model import Duration, HttpSourceConfig, SourceConfig

__all__ = [
    "Config",
    "ServerConfig",
    "StoreConfig",
    "TokenConfig",
    "FileSinkConfig",
    "HookConfig",
    "HttpSourceConfig",
]

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
ProfileName = Literal["auto", "jwt", "twilio", "opaque"]

Path: TypeAlias = Annotated[str, kinds.PATH]
User: TypeAlias = Annotated[int, kinds.USER]
Group: TypeAlias = Annotated[int, kinds.GROUP]


class ServerConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[server]`: where the sidecar is found, and by whom.

    Args:
        socket: Path of the Unix socket. Without it the usual place.
        listen: ``HOST:PORT`` on loopback, which adds TCP.
        access_key_file: Holds the key for TCP, made if missing. Without it `access-key` beside the socket.
        metrics_key_file: Holds a second key, which reads metrics, status and events only.
        allow_uids: Users besides our own and root who may connect to the socket.
        allow_gids: Groups whose members may.
        hosts: Names that `Host` may have over TCP, besides the loopback's own.
        max_connections: At once, over all listeners.
        log_format: How log lines look. Without it console in a terminal, else json.
        log_level: The least that is logged.
    """

    socket: Path | None = None
    listen: Annotated[str, kinds.LISTEN] | None = None
    access_key_file: Path | None = None
    metrics_key_file: Path | None = None
    allow_uids: tuple[User, ...] = ()
    allow_gids: tuple[Group, ...] = ()
    hosts: tuple[Annotated[str, kinds.HOST], ...] = ()
    max_connections: int = 256
    log_format: LogFormat | None = None
    log_level: LogLevel = "info"


class StoreConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[store]`: where refresh tokens are, and access tokens of sources with `keep`.

    Args:
        directory: Made if missing, below one that is there. Without it the usual place.
        key_file: Holds the key that encrypts what is stored.
        key_credential: Name of the credential of systemd that is the key.
        keyring: Whether the key is in the keyring of our user.
    """

    directory: Path | None = None
    key_file: Path | None = None
    key_credential: str | None = None
    keyring: bool = False


class FileSinkConfig(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="file"
):
    """`[[tokens.NAME.sinks]]` of type ``file``: where the token is written.

    Args:
        path: Absolute. Its directory must exist.
        format: What is written.
        variable: Name of the variable, for ``env``.
        template: Text with ``{{token}}`` and so on, for ``template``.
        mode: Permission bits.
        owner: A user's name or number. Without it our own.
        group: A group's name or number. Without it our own.
        adopt: Whether a file of a former run is taken back at the start.
    """

    path: Annotated[Path, Such("/run/app/token")]
    format: SinkFormat = "raw"
    variable: Annotated[str, kinds.VARIABLE] | None = None
    template: Annotated[str, PRIVATE] | None = None
    mode: Annotated[int, kinds.MODE] = 0o600
    owner: User | None = None
    group: Group | None = None
    adopt: bool = False


class HookConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[tokens.NAME.hooks]]`: a command, or a signal, after the sinks were written.

    Args:
        on: The events that call it.
        run: The command and its arguments. Not with a signal.
        signal: Such as ``SIGHUP``, with `pid_file`.
        pid_file: Holds the number of the process to signal.
        stdin: ``token`` gives the raw token on standard input.
        timeout: How long the command may take.
    """

    on: tuple[EventName, ...] = ("tokenUpdated",)
    run: Annotated[tuple[str, ...], PRIVATE] = ()
    signal: Annotated[str, kinds.SIGNAL] | None = None
    pid_file: Path | None = None
    stdin: Literal["none", "token"] = "none"
    timeout: Duration = 30.0


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

    source: Annotated[SourceConfig, REFERS]
    profile: ProfileName = "auto"
    expect: Mapping[str, Annotated[Any, kinds.EXPECTED]] = field(default_factory=dict)
    policy: Annotated[RefreshPolicy, POLICY] = DEFAULT_POLICY
    sinks: tuple[FileSinkConfig, ...] = ()
    hooks: tuple[HookConfig, ...] = ()


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file. Two are equal if the same stands in them, however it is written.

    Args:
        server: Where the sidecar is found, and by whom.
        store: Where what must survive a restart is kept.
        tokens: The tokens that it keeps, by name.
    """

    server: ServerConfig = ServerConfig()
    store: StoreConfig = StoreConfig()
    tokens: Mapping[Annotated[str, kinds.TOKEN_NAME], TokenConfig] = field(default_factory=dict)
