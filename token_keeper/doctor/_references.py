"""Values that stand elsewhere: `${env:NAME}` and `${file:PATH}`, so that no command line holds a secret."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from token_keeper._model import Secret

_REFERENCE: Final = re.compile(r"\$(?:\$|\{(env|file):([^{}]+)\})")
_LEFT_OVER: Final = re.compile(r"\$\{")


class BadReferenceError(Exception):
    """A reference that leads nowhere. Its text does not repeat what was written."""


def has_reference(text: str) -> bool:
    """Whether a part of *text* stands elsewhere."""
    return any(match[1] for match in _REFERENCE.finditer(text))


def resolved(text: str, *, environ: Mapping[str, str], read: Callable[[str], str]) -> Secret:
    """Return *text* with its references replaced; `$$` is `$`.

    Args:
        text: What was written.
        environ: Where `${env:NAME}` looks.
        read: Returns the text of a file. One final line feed of it is dropped.

    Raises:
        BadReferenceError: If a variable is not set, or a reference is written wrongly.
        OSError: By *read*.
    """
    if _LEFT_OVER.search(_REFERENCE.sub("", text)):
        raise BadReferenceError("a reference is written ${env:NAME} or ${file:PATH}, and $$ stands for $")

    def value(match: re.Match[str]) -> str:
        kind, name = match[1], match[2]
        if kind is None:
            return "$"
        if kind == "file":
            return read(name).removesuffix("\n")
        if name not in environ:
            raise BadReferenceError("it refers to an environment variable that is not set")
        return environ[name]

    return Secret(_REFERENCE.sub(value, text))
