"""Log lines of the sidecar: one event a line on standard error, redacted last of all.

It decides how lines look, and that foreign libraries' records look the same.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import MutableMapping
from typing import Any, Literal, TextIO

from token_keeper.logs import redact
from token_keeper.sidecar._log_stream import LogStream

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

COLOURS = {"debug": "2", "info": "36", "warning": "33", "error": "31"}
"""Of the levels, as terminals name them."""

EventDict = MutableMapping[str, Any]

OURS = "token_keeper"
"""The standard logger to which a source writes its events."""
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__)


def sidecar_logger(
    look: Literal["json", "console"] | None, level: str, *, stream: TextIO | None = None
) -> Any:
    """Return a structlog logger that writes to *stream*, and send all other libraries' records there too.

    It never raises and never waits: lines that the stream does not take are lost, and counted.

    Args:
        look: ``json``, ``console``, or None: console in a terminal, else JSON.
        level: The least that is logged.
        stream: A file with a descriptor. Default: standard error.
    """
    import structlog  # noqa: PLC0415 - Takes a tenth of a second.

    # Python has none if the descriptor was closed when we were started.
    target = stream or sys.stderr or open(os.devnull, "w")  # noqa: SIM115, PTH123 - For as long as we live.
    is_terminal = target.isatty()
    lines = _Lines(is_coloured=is_terminal) if look == "console" or (not look and is_terminal) else _as_json
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)

    def told(lost: int) -> str:
        event = stamp(None, "", {"level": "warning", "event": "logLinesLost", "lines": lost})
        return lines(None, "", event)

    logger = structlog.wrap_logger(
        LogStream(target.fileno(), told),
        processors=[structlog.processors.add_log_level, stamp, redact, lines],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        context_class=dict,
        cache_logger_on_first_use=True,
    ).bind()
    logging.basicConfig(handlers=[_Foreign(logger)], level=max(LEVELS[level], logging.WARNING), force=True)
    return logger


def _as_json(_logger: Any, _method: str, event: EventDict) -> str:
    ordered = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    return json.dumps({**ordered, **event}, default=str)


class _Lines:
    """Renders an event for people: time, level, name, then what is known of it."""

    def __init__(self, *, is_coloured: bool) -> None:
        self._is_coloured = is_coloured

    def __call__(self, _logger: Any, _method: str, event: EventDict) -> str:
        at = str(event.pop("timestamp", ""))[11:23]
        level = str(event.pop("level", ""))
        name = _plain(event.pop("event", ""))
        exception = event.pop("exception", None)
        shown = f"{level:<7}"
        if self._is_coloured:
            shown = f"\x1b[{COLOURS.get(level, '0')}m{shown}\x1b[0m"
        pairs = " ".join(f"{_plain(key)}={_value(value)}" for key, value in event.items())
        line = f"{at} {shown} {name} {pairs}".rstrip()
        if not exception:
            return line
        indented = "\n".join(f"    {_plain(row)}" for row in str(exception).splitlines())
        return f"{line}\n{indented}"


def _plain(value: object) -> str:
    """Return *value* without what a terminal could obey, or what could pose as another line."""
    text = str(value)
    return text if text.isprintable() else json.dumps(text)[1:-1]


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    text = str(value)
    if text and text.isprintable() and not any(mark in text for mark in ' "=\\'):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())


class _Foreign(logging.Handler):
    """Hands records of other libraries to our logger, and events of our own that know no other way."""

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        level = min(record.levelno, logging.ERROR)
        name = next((name for name, value in reversed(LEVELS.items()) if level >= value), "debug")
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - The arguments may not fit the message.
            message = "(a record that cannot be rendered)"
        if record.name == OURS and isinstance(event := getattr(record, "event", None), str):
            # A source's own event, such as `refreshTokenSentAgain`: its keys are attributes of the record.
            getattr(self._logger, name)(event, **_keys_of(record))
            return
        error = record.exc_info[1] if record.exc_info else None
        extra = {"exc_info": error} if error else {}
        getattr(self._logger, name)("libraryMessage", library=record.name, message=message, **extra)


def _keys_of(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in record.__dict__.items() if key not in _STANDARD and key != "event"}
