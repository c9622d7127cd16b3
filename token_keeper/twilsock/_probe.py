"""Asks Twilsock itself what it makes of a token: one connection, one `init`, no retry."""

from __future__ import annotations

import asyncio
import math
import ssl
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from token_keeper._errors import ConfigError
from token_keeper._model import Secret
from token_keeper._redact import redact_text
from token_keeper.twilsock._frames import Frame, decode
from token_keeper.twilsock._messages import close, init
from token_keeper.twilsock._url import endpoint_of

if TYPE_CHECKING:
    from token_keeper.twilsock._socket import ClientConnection

_MAX_MESSAGES: Final = 100
"""Messages that are read before the answer to `init`."""
_MAX_DESCRIPTION: Final = 300
_MAX_FOREIGN: Final = 4_096
_MAX_RETRY_MS: Final = 86_400_000
_GOODBYE_S: Final = 1.5
_MAX_CAPABILITIES: Final = 32
_LEAST_SEGMENT: Final = 16
"""Shortest part of a token that is looked for in what a server says, in characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """What came of showing a token to Twilsock. Holds no part of it.

    Args:
        connected: Whether the server accepted the token.
        answered: Whether the server said anything of it at all.
        status: The server's, as of HTTP; None if there was none.
        code: Of Twilio's error dictionary, or None.
        description: The server's words, made safe to show, or what went wrong.
        endpoint: Who was asked: a URL without its query.
        took_s: Until the answer, in seconds.
        retry_after_s: How long the server asks to wait, in seconds, or None.
        capabilities: What the server offers to a client that it accepted.
    """

    connected: bool = False
    answered: bool = False
    status: int | None = None
    code: int | None = None
    description: str
    endpoint: str = ""
    took_s: float = 0.0
    retry_after_s: float | None = None
    capabilities: tuple[str, ...] = field(default=(), repr=False)


async def probe(
    token: Secret,
    *,
    url: str | None = None,
    region: str = "us1",
    timeout: float = 10.0,  # noqa: ASYNC109 - It bounds three steps, and what it hit is in the result.
    ssl_context: ssl.SSLContext | None = None,
) -> ProbeResult:
    """Connect to Twilsock, show it *token*, and return its answer.

        result = await probe(Secret(raw), region="ie1")
        print(result.connected, result.code, result.description)

    Whatever the network or the server does is in the result; nothing of it is raised.

    Args:
        token: Is sent as it is, also if it cannot work.
        url: Who is asked instead of Twilio. wss, or ws to loopback.
        region: Of Twilio, whose server is asked.
        timeout: For all of it, in seconds. Saying goodbye may take one more.
        ssl_context: Whom to trust, instead of the system's authorities.

    Raises:
        ConfigError: If *url* or *region* cannot be used, or the extra `[twilio]` is missing.
    """
    endpoint = endpoint_of(url, region=region)
    network = _network()
    loop = asyncio.get_running_loop()
    started_at = loop.time()
    connection: ClientConnection | None = None
    try:
        try:
            async with asyncio.timeout(timeout):
                connection = await network.opening(endpoint, ssl_context)
                result = await _ask(connection, token)
        except TimeoutError:
            result = _silence("connection" if connection is None else "answer", timeout)
        except Exception as error:  # noqa: BLE001 - It is named by its type: its text is foreign.
            result = ProbeResult(description=network.problem_of(error), status=network.http_status_of(error))
        return replace(result, endpoint=endpoint.shown, took_s=loop.time() - started_at)
    finally:
        if connection is not None:
            await _leave(connection)


def check_installed() -> None:
    """Check that the extra `[twilio]` is there.

    Raises:
        ConfigError: If it is not, with the line that installs it.
    """
    _network()


def _network() -> ModuleType:
    try:
        return import_module("token_keeper.twilsock._socket")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "websockets":
            raise
    raise ConfigError("twilsock", "needs the package websockets: pip install 'token-keeper[twilio]'")


async def _ask(connection: ClientConnection, token: Secret) -> ProbeResult:
    message_id = _new_id()
    await connection.send(init(message_id, token.reveal(), metadata=_metadata()))
    for _ in range(_MAX_MESSAGES):
        frame = decode(await connection.recv(decode=False))
        if frame is None:
            return ProbeResult(description="what answered does not speak Twilsock V3.0")
        if frame.method == "close" or (frame.method == "reply" and frame.id == message_id):
            return _result(frame, token)
    return ProbeResult(description=f"no answer among {_MAX_MESSAGES} messages")


async def _leave(connection: ClientConnection) -> None:
    with suppress(Exception):
        async with asyncio.timeout(_GOODBYE_S):
            await connection.send(close(_new_id()))
            await connection.close()
    connection.transport.abort()


def _result(frame: Frame, token: Secret) -> ProbeResult:
    status = frame.status
    connected = frame.method == "reply" and status.is_success
    words = _shown(status.description or status.status, token)
    return ProbeResult(
        connected=connected,
        answered=True,
        status=status.code,
        code=status.error_code,
        description=words or ("accepted" if connected else "no reason given"),
        retry_after_s=_retry_after(frame),
        capabilities=_capabilities(frame, token) if connected else (),
    )


def _silence(what: str, timeout_s: float) -> ProbeResult:
    return ProbeResult(description=f"no {what} within {timeout_s:g} s")


def _retry_after(frame: Frame) -> float | None:
    policy = frame.document().get("backoff_policy")
    least_ms = policy.get("reconnect_min_ms") if isinstance(policy, dict) else None
    if isinstance(least_ms, bool) or not isinstance(least_ms, int | float):
        return None
    return least_ms / 1000 if math.isfinite(least_ms) and 0 <= least_ms <= _MAX_RETRY_MS else None


def _capabilities(frame: Frame, token: Secret) -> tuple[str, ...]:
    names = frame.header.get("capabilities")
    if not isinstance(names, list):
        return ()
    return tuple(_shown(name, token) for name in names[:_MAX_CAPABILITIES] if isinstance(name, str))


def _shown(text: str, token: Secret) -> str:
    """Return foreign *text* as it may be shown: bounded, on one line, without the token."""
    text = text[:_MAX_FOREIGN]
    raw = token.reveal()
    for part in (raw, *raw.split(".")):
        if len(part) >= _LEAST_SEGMENT:
            text = text.replace(part, "<token>")
    printable = "".join(char if char.isprintable() else " " for char in redact_text(text))
    text = " ".join(printable.split())
    return text if len(text) <= _MAX_DESCRIPTION else f"{text[:_MAX_DESCRIPTION]}..."


def _metadata() -> dict[str, object]:
    try:
        release = version("token-keeper")
    except PackageNotFoundError:
        release = "0"
    return {"sdk": "token-keeper", "ver": release, "env": "python"}


def _new_id() -> str:
    return f"TM{uuid4()}"
