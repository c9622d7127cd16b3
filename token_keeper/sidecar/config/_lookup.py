"""Looks up what stands elsewhere, for the strings of a source."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from token_keeper._errors import TransientFetchError
from token_keeper._redact import redact_text
from token_keeper.sidecar.config._exact import Exact
from token_keeper.sidecar.config._notes import At, written
from token_keeper.sources._references import (
    BadReferenceError,
    Reference,
    read_regular,
    references_in,
    resolved,
)

LONGEST_NAME: Final = 200
"""Characters of a reference that are shown."""


class Lookup:
    """What references stand for. Each file is read once.

    Args:
        environ: Where `${env:NAME}` looks.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._texts: dict[str, str] = {}

    def of(self, value: object, at: At, wrong: Callable[[At, str], None]) -> Any:
        """Return *value* with the references in its strings replaced.

        Args:
            value: What stands in the file.
            at: Where it stands.
            wrong: Is told where a reference leads nowhere, and why. The string then stays.
        """
        if isinstance(value, str):
            return self._of_text(value, at, wrong) if "$" in value else value
        if isinstance(value, Mapping):
            return {key: self.of(one, (*at, key), wrong) for key, one in value.items()}
        if isinstance(value, list):
            return [self.of(one, (*at, place), wrong) for place, one in enumerate(value)]
        return value

    def _of_text(self, text: str, at: At, wrong: Callable[[At, str], None]) -> str:
        try:
            for reference in references_in(text):
                self._check_variable(reference)
            return resolved(text, environ=self._environ, read=self._read).reveal()
        except BadReferenceError as bad:
            problem = bad.problem + (f": {_shown(str(bad.reference))}" if bad.reference else "")
        except OSError as error:
            name = _shown(str(error.filename))
            problem = f"it refers to a file that cannot be read ({error.strerror}): {name}"
        wrong(at, problem)
        return text

    def _check_variable(self, reference: Reference) -> None:
        if reference.kind == "env" and self._environ.get(reference.name) == "":
            raise BadReferenceError("it refers to an environment variable that is empty", reference)

    def _read(self, path: str) -> str:
        if path not in self._texts:
            self._texts[path] = _read(path)
        return self._texts[path]


class _UnresolvedError(Exception):
    """A reference leads nowhere now."""


def look_up_again(words: Mapping[str, Any], at: At, environ: Mapping[str, str]) -> Exact:
    """Return what *words* mean now. Runs in a thread, and waits for files.

    Raises:
        TransientFetchError: If a reference leads nowhere now.
    """

    def give_up(place: At, problem: str) -> None:
        raise _UnresolvedError(f"{written(place)}: {problem}")

    try:
        return Exact(Lookup(environ).of(words, at, give_up))
    except _UnresolvedError as wrong:
        problem = str(wrong)
    raise TransientFetchError(f"{problem}; a valid token stays. Put it back, or change the configuration")


def refers(value: object, *, only_files: bool = False) -> bool:
    """Whether a string in *value* stands elsewhere, or *only_files*: in a file."""
    if isinstance(value, str):
        return any(not only_files or reference.kind != "env" for reference in references_in(value))
    members = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return any(refers(one, only_files=only_files) for one in members)


def _read(path: str) -> str:
    reference = Reference("file", path)
    if not path.startswith("/") or "\0" in path:
        raise BadReferenceError("it refers to a file without an absolute path", reference)
    try:
        text = read_regular(path)
    except BadReferenceError as wrong:
        problem = wrong.problem
    else:
        if text.removesuffix("\n"):
            return text
        problem = "it refers to a file that is empty"
    raise BadReferenceError(problem, reference)


def _shown(text: str) -> str:
    """Return a name as it may be shown: what stands at it is secret, where it stands is not."""
    return json.dumps(redact_text(text)[:LONGEST_NAME])[1:-1]
