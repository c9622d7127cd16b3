"""What commands read: tokens, secrets, numbers, expectations."""

from __future__ import annotations

import hashlib
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import click

from token_keeper._secret import Secret
from token_keeper.cli._group import SafeUsageError, fail

MAX_INPUT = 16 * 1024 * 1024
"""Most bytes that are read of a token. What is longer than a token is measured, not understood."""

MAX_SECRET = 1024 * 1024
"""Most bytes of a secret, a key or a set of keys."""

SECRET_VARIABLE = "TOKEN_KEEPER_SECRET"
EXPECTABLE = ("account_sid", "api_key_sid", "service_sid", "identity")


class Value(NamedTuple):
    """A value that somebody wants to know about, and the fingerprint of its bytes."""

    secret: Secret
    fingerprint: str


def read_value(argument: str) -> Value:
    """Read the value from standard input if *argument* is ``-``, else take *argument* itself."""
    if argument != "-":
        return _text(argument)
    if sys.stdin is None:
        return _text("")
    if sys.stdin.isatty():
        typed = click.prompt(
            "Token (it will not be shown)", hide_input=True, default="", show_default=False, err=True
        )
        return _text(str(typed))
    try:
        raw = _without_line_end(sys.stdin.buffer.read(MAX_INPUT))
    except OSError as error:
        fail(f"standard input cannot be read ({error.strerror})", os.EX_NOINPUT)
    return Value(
        secret=Secret(raw.decode("utf-8", "surrogateescape")),
        fingerprint=hashlib.sha256(raw).hexdigest()[:8],
    )


def read_secret(path: str | None) -> Secret | None:
    """Read the secret from the file *path*, else from the environment; exit 66 if it cannot be read."""
    if path is None:
        found = os.environ.get(SECRET_VARIABLE)
        if found == "":
            fail(f"${SECRET_VARIABLE} is empty: set it to the secret, or unset it", os.EX_NOINPUT)
        return None if found is None else Secret(found)
    try:
        with open(path, "rb") as file:  # noqa: PTH123 # Importing pathlib takes longer than the rest.
            text = _without_line_end(file.read(MAX_SECRET)).decode("utf-8")
    except UnicodeDecodeError:
        fail("the secret file is not text", os.EX_NOINPUT)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its name cannot be one"
        fail(f"the secret file cannot be read ({reason})", os.EX_NOINPUT)
    if not text:
        fail("the secret file is empty", os.EX_NOINPUT)
    return Secret(text)


def expectations(products: Sequence[str], pairs: Sequence[str]) -> Mapping[str, object]:
    """Return what `--for` and `--expect` ask for."""
    stated: dict[str, object] = {"grants": list(products)} if products else {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if key not in EXPECTABLE or not value:
            raise SafeUsageError(
                f"--expect takes KEY=VALUE with a value; known keys are {', '.join(EXPECTABLE)}",
                click.get_current_context(),
            )
        stated[key] = value
    return stated


def instant(now: float | None) -> float:
    """Return *now*, or the present; Unix seconds."""
    return time.time() if now is None else now


class Seconds(click.ParamType[float]):
    """A finite number of seconds, at least *minimum*."""

    name = "seconds"

    def __init__(self, minimum: float = -math.inf) -> None:
        self.minimum = minimum

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return *value* as a number."""
        text = str(value)
        # float() also takes other scripts' digits, and underscores between them.
        if not text.isascii() or "_" in text:
            self.fail("not a number", param, ctx)
        try:
            number = float(text)
        except ValueError:
            self.fail("not a number", param, ctx)
        if not math.isfinite(number) or number < self.minimum:
            self.fail("out of range", param, ctx)
        return int(number) if number.is_integer() else number


def _text(text: str) -> Value:
    secret = Secret(text)
    return Value(secret=secret, fingerprint=secret.fingerprint)


def _without_line_end(raw: bytes) -> bytes:
    return raw.removesuffix(b"\n").removesuffix(b"\r") if raw.endswith(b"\n") else raw
