"""Values that stand elsewhere, so that neither a file nor a command line holds a secret.

`${env:NAME}` is an environment variable, `${file:PATH}` the text of a file, and
`${credential:NAME}` a file in the directory that systemd gives a service; `$$` is `$`.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, NamedTuple

from token_keeper._model import Secret

LARGEST_FILE: Final = 1_048_576
"""Bytes of a file that a reference may name."""
CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"
"""Where systemd says in which directory the credentials of a service are."""

_KINDS: Final = "env|file|credential"
_REFERENCE: Final = re.compile(rf"\$(?:\$|\{{({_KINDS}):([^{{}}]+)\}})")
_MEANT: Final = re.compile(rf"\$\{{(?:{_KINDS}):")
_LEFT_OVER: Final = re.compile(r"\$\{")


class Reference(NamedTuple):
    """One reference in a text."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"${{{self.kind}:{self.name}}}"


class BadReferenceError(Exception):
    """A reference that leads nowhere. Its text does not repeat what was written.

    Args:
        problem: What is wrong with it.
        reference: Which one, if it can be told.
    """

    def __init__(self, problem: str, reference: Reference | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.reference = reference

    def __str__(self) -> str:
        return self.problem


def has_reference(text: str) -> bool:
    """Whether a part of *text* stands elsewhere."""
    return any(match[1] for match in _REFERENCE.finditer(text))


def references_in(text: str) -> tuple[Reference, ...]:
    """Return the references in *text*, in their order."""
    if "${" not in text:
        return ()
    return tuple(Reference(match[1], match[2]) for match in _REFERENCE.finditer(text) if match[1])


def looks_referring(text: str) -> bool:
    """Whether whoever wrote *text* meant a part of it to stand elsewhere, however badly it is written."""
    return "${" in text and _MEANT.search(text) is not None


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
        raise BadReferenceError(
            "a reference is written ${env:NAME}, ${file:PATH} or ${credential:NAME}, and $$ stands for $"
        )

    def value(match: re.Match[str]) -> str:
        kind, name = match[1], match[2]
        if kind is None:
            return "$"
        if kind == "file":
            return read(name).removesuffix("\n")
        if kind == "credential":
            return read(_credential(name, environ)).removesuffix("\n")
        if name not in environ:
            raise BadReferenceError(
                "it refers to an environment variable that is not set", Reference(kind, name)
            )
        return environ[name]

    return Secret(_REFERENCE.sub(value, text))


def read_regular(path: str) -> str:
    """Return the text of the file *path*, at most `LARGEST_FILE` bytes. Never waits for another program.

    Raises:
        BadReferenceError: If it is no regular file, too large, or no text.
        OSError: If it cannot be read.
    """
    # A named pipe without a writer would block the opening for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BadReferenceError("it refers to what is no regular file")
    with os.fdopen(descriptor, "rb") as file:
        raw = file.read(LARGEST_FILE + 1)
    if len(raw) > LARGEST_FILE:
        raise BadReferenceError(f"it refers to a file of more than {LARGEST_FILE // 1_048_576} MiB")
    # That exception holds the file, so ours is raised out of its handler.
    with suppress(UnicodeDecodeError):
        return raw.decode("utf-8")
    raise BadReferenceError("it refers to a file that is no text in UTF-8")


def _credential(name: str, environ: Mapping[str, str]) -> str:
    reference = Reference("credential", name)
    directory = environ.get(CREDENTIALS)
    if not directory:
        raise BadReferenceError(
            f"it needs ${CREDENTIALS}, which systemd sets for units with LoadCredential=", reference
        )
    if "/" in name or name in {".", ".."}:
        raise BadReferenceError("a credential has a plain name, without a directory", reference)
    return os.path.join(directory, name)  # noqa: PTH118 # A name, as it is shown.
