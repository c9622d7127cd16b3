r"""Logs of the package, and a redacting processor that other programs can use too.

    from token_keeper.logs import redact

    structlog.configure(processors=[..., redact, structlog.processors.JSONRenderer()])

Nothing here configures logging or structlog: without a logger of the host's,
records go to the standard logger ``token_keeper``, and the host's handlers and
levels decide. A record's message reads ``tokenUpdated keeper=chat generation=3``,
with blanks quoted and control characters escaped; the same keys are attributes of the
record, for formatters that write JSON.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import Any

from token_keeper._errors import ConfigError
from token_keeper._redact import describe, redact_text, redact_value, render_traceback

__all__ = ["KeeperLog", "RedactingFilter", "keeper_logger", "redact"]

EventDict = MutableMapping[str, Any]

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
# `logging` refuses these as attributes of a record.
_TAKEN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}
_INTERNAL = frozenset({"_record", "_from_structlog"})
_CALLER = 6
"""Frames between the standard logger and the caller of `KeeperLog`."""


def redact(logger: Any, method: str, event_dict: EventDict) -> EventDict:
    """Mask tokens and credentials in an event. A structlog processor; never raises.

    Masked are: strings that look like JWTs (by their fingerprint), ``Bearer`` values,
    passwords in URLs, `Secret` objects, and values under names such as
    ``token``, ``authorization``, ``client_secret``, ``password``, ``api_key`` or ``cookie``; also
    in nested values, bytes, and the text of exceptions. ``exc_info`` becomes a
    redacted ``exception``. Put it last before the renderer.
    """
    del logger, method
    clean = {
        # structlog's own keys, such as `_record`, are for later processors and are not rendered.
        key: value if key in _INTERNAL else redact_value(value, key=key)
        for key, value in event_dict.items()
        if key != "exc_info"
    }
    if error := _exception_of(event_dict.get("exc_info")):
        clean["exception"] = render_traceback(error)
    return clean


class RedactingFilter(logging.Filter):
    """Masks the same in records of the standard `logging`. Add it to a handler.

    handler.addFilter(RedactingFilter())
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact *record* in place; never drop it."""
        try:
            record.msg = redact_text(record.getMessage())
        except Exception as misfit:  # noqa: BLE001 - The arguments may not fit the message, and may be secret.
            record.msg = f"(a record that cannot be rendered: {describe(misfit)})"
        record.args = None
        if error := _exception_of(record.exc_info):
            record.exc_text = render_traceback(error)
        elif record.exc_text:
            record.exc_text = redact_text(record.exc_text)
        record.exc_info = None
        for key in record.__dict__.keys() - _TAKEN:
            record.__dict__[key] = redact_value(record.__dict__[key], key=key)
        return True


class KeeperLog:
    """What a keeper logs with: an event's name and keys. Logging never breaks a keeper.

    Args:
        logger: A bound structlog logger.

    Attributes:
        failures: How often the host's logging raised.
    """

    __slots__ = ("_logger", "failures")

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self.failures = 0

    def debug(self, event: str, **values: object) -> None:
        """Log what only a developer wants to know."""
        self._log("debug", event, values)

    def info(self, event: str, **values: object) -> None:
        """Log what happened as it should."""
        self._log("info", event, values)

    def warning(self, event: str, **values: object) -> None:
        """Log what went wrong and will be tried again."""
        self._log("warning", event, values)

    def error(self, event: str, **values: object) -> None:
        """Log what somebody has to look at."""
        self._log("error", event, values)

    def _log(self, method: str, event: str, values: dict[str, object]) -> None:
        try:
            getattr(self._logger, method)(event, **values)
        except Exception:  # noqa: BLE001 - The host's processors and handlers may raise anything.
            self.failures += 1


def keeper_logger(logger: Any = None, *, name: str) -> KeeperLog:
    """Return the logger of the keeper called *name*, as the key ``keeper`` of each event.

    Loads structlog, which takes a tenth of a second, and configures nothing.

    Args:
        logger: A structlog logger or a standard one. Default: the standard
            logger ``token_keeper``. Events reach it redacted.
        name: The keeper's name.

    Raises:
        ConfigError: If *logger* is neither.
    """
    import structlog  # noqa: PLC0415 - A program that only imports us shall not wait for it.

    target = logging.getLogger("token_keeper") if logger is None else logger
    processors: list[Callable[[Any, str, EventDict], Any]]
    if isinstance(target, logging.Logger | logging.LoggerAdapter):
        processors = [_drop_unless_enabled, redact, _to_standard_logging]
    elif callable(getattr(target, "bind", None)) and callable(getattr(target, "info", None)):
        processors = [_drop_unless_wanted, redact, _to_structlog]
    else:
        raise ConfigError("logger", "must be a structlog logger or a logging.Logger")
    wrapped = structlog.wrap_logger(target, processors=processors, wrapper_class=structlog.stdlib.BoundLogger)
    # Not `name`: that is an attribute of every record, and `extra` may not have it.
    return KeeperLog(wrapped.bind(keeper=name))


def _drop_unless_enabled(logger: Any, method: str, event_dict: EventDict) -> EventDict:
    if logger.isEnabledFor(_LEVELS[method]):
        return event_dict
    from structlog import DropEvent  # noqa: PLC0415 - Loaded long before this is called.

    raise DropEvent


def _drop_unless_wanted(logger: Any, method: str, event_dict: EventDict) -> EventDict:
    # Loggers that filter by level say so; a line that nobody reads need not be redacted.
    is_wanted = getattr(logger, "is_enabled_for", None)
    if is_wanted is None or is_wanted(_LEVELS[method]):
        return event_dict
    from structlog import DropEvent  # noqa: PLC0415 - Loaded long before this is called.

    raise DropEvent


def _to_structlog(_logger: Any, _method: str, event_dict: EventDict) -> tuple[tuple[Any], EventDict]:
    return (event_dict.pop("event"),), event_dict


def _to_standard_logging(
    _logger: Any, _method: str, event_dict: EventDict
) -> tuple[tuple[str], dict[str, Any]]:
    event = _escaped(str(event_dict.pop("event")))
    message = " ".join([event, *(f"{_escaped(key)}={_rendered(value)}" for key, value in event_dict.items())])
    extra = {"event": event}
    for key, value in event_dict.items():
        free = f"keeper_{key}" if key in _TAKEN else key
        extra[free] = _escaped(value) if isinstance(value, str) else value
    return (message,), {"extra": extra, "stacklevel": _CALLER}


def _rendered(value: Any) -> str:
    """Return *value* so that neither a blank nor a line end in it can pose as another key or line."""
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    text = str(value)
    if text.isprintable() and not any(mark in text for mark in ' "=\\') and text:
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())


def _escaped(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)[1:-1]


def _exception_of(exc_info: Any) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple) and len(exc_info) == 3 and isinstance(exc_info[1], BaseException):
        return exc_info[1]
    if exc_info is True:
        return sys.exception()
    return None
