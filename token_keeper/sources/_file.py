"""A source that reads what another program writes."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from token_keeper._errors import ConfigError, FetchError, ResponseError, TransientFetchError
from token_keeper._extract import parse_json
from token_keeper._model import Issued, Secret
from token_keeper._redact import redact_text
from token_keeper.sources._aside import Aside, StillRunningError
from token_keeper.sources._place import TokenPlace
from token_keeper.sources._references import BadReferenceError, read_regular
from token_keeper.sources._source import cleanly, without_traces
from token_keeper.sources._watch import Sight, changes, look

READ_S: Final = 10.0
"""A file that cannot be read within so many seconds is on a file system that does not answer."""
_PAUSE_S: Final = 0.2
"""Between two tries: so long a writer that does not replace the file may take to fill it."""
_REPLACED: Final = "Let its writer replace it as a whole: write another file beside it, then rename that"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """What came of reading the file.

    Args:
        sight: How it looked.
        text: What stood in it, or None.
        problem: Why there is no text.
    """

    sight: Sight
    text: Secret | None = None
    problem: str = ""


class FileSource:
    """Read the token from a file that another program keeps fresh.

        source = FileSource("/var/run/secrets/tokens/vault-token")

    The file holds the raw token, or JSON to search as an HTTP answer is searched.
    It is opened at its whole path anew at each fetch, so that symbolic links may
    be swapped, as Kubernetes does. A keeper looks once a second whether the file
    is another one, and then reads it at once.

    A writer that writes into the file, rather than to rename a new one over it,
    is waited for where that can be told: an empty file, JSON that is cut off. The
    first half of a raw token looks like a token; it is replaced when the rest came.

    Args:
        path: Of the file. It need not be there yet. Relative to the directory of now.
        token_path: JMESPath of the token in JSON. Without it the usual names are tried.
        expires_path: JMESPath of the lifetime in seconds, or of the time of expiry.
        default_lifetime: Seconds, for opaque tokens that do not say theirs.

    Raises:
        ConfigError: If a setting cannot work.
    """

    splay = False

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        token_path: str | None = None,
        expires_path: str | None = None,
        default_lifetime: float | None = None,
    ) -> None:
        self._path = _checked(path)
        self._shown = redact_text(self._path)
        self.origin = f"file:{self._shown}"
        self._place = TokenPlace(
            token_path=token_path, expires_path=expires_path, default_lifetime=default_lifetime
        )
        self._aside = Aside("token_keeper file")
        self._met: Sight | None = None

    def __repr__(self) -> str:
        return f"<FileSource {self._shown}>"

    async def fetch(self, *, tries: int = 1) -> Issued:
        """Read the file.

        Args:
            tries: How often at most, 0.2 s apart, as long as there is no token to read.

        Raises:
            TransientFetchError: If there is none now.
            ResponseError: If what stands in it is not a token.
        """
        return await cleanly(self._outcome(tries))

    async def changes(self) -> AsyncIterator[None]:
        """Yield about a second after the file was replaced, came, or went. Never ends."""
        async for _ in changes(self._path, met=lambda: self._met):
            yield

    async def aclose(self) -> None:
        """Do nothing: no file stays open."""

    async def _outcome(self, tries: int) -> Issued | FetchError:
        outcome = await self._try()
        for _ in range(tries - 1):
            if not isinstance(outcome, TransientFetchError) or outcome.timed_out:
                break
            await asyncio.sleep(_PAUSE_S)
            outcome = await self._try()
        return outcome

    async def _try(self) -> Issued | FetchError:
        try:
            work = self._aside.begin(lambda: _read(self._path))
            await asyncio.wait({work}, timeout=READ_S)
        except StillRunningError:
            return self._silent("still does not answer")
        if not work.done():
            return self._silent(f"did not answer within {READ_S:g} s")
        reading = work.result()
        self._met = reading.sight
        if reading.text is None:
            return TransientFetchError(f"the file {self._shown} {reading.problem}")
        try:
            return self._place.issued(reading.text.reveal())
        except ResponseError as error:
            return without_traces(self._problem(error, reading.text))

    def _problem(self, error: ResponseError, text: Secret) -> FetchError:
        """Return *error* as one about this file."""
        begins_json = text.reveal().lstrip("\ufeff \t\r\n").startswith(("{", "[", '"'))
        if begins_json and parse_json(text.reveal()) is None:
            return TransientFetchError(
                f"the file {self._shown} holds JSON that is cut off; a valid token stays. {_REPLACED}"
            )
        return ResponseError(f"the file {self._shown}: {error.message}")

    def _silent(self, what: str) -> TransientFetchError:
        return TransientFetchError(
            f"the file system of {self._shown} {what}; a valid token stays. Check its server and the network",
            timed_out=True,
        )


def _checked(path: object) -> str:
    """Return *path* as an absolute one.

    Raises:
        ConfigError: If it is none.
    """
    given = os.fspath(path) if isinstance(path, os.PathLike) else path
    is_path = isinstance(given, str) and given and "\0" not in given
    if not is_path or not isinstance(given, str):
        del path, given
        raise ConfigError("path", 'must be the path of a file, such as "/run/app/token"')
    return str(Path(given).absolute())


def _read(path: str) -> _Reading:
    sight = look(path)
    try:
        text = Secret(read_regular(path))
    except BadReferenceError as error:
        problem = f"leads to {error.problem.removeprefix('it refers to ')}"
        return _Reading(sight=sight, problem=f"{problem}; a valid token stays. Correct path")
    except OSError as error:
        return _Reading(sight=sight, problem=_words(error))
    after = look(path)
    if after[:2] == sight[:2] and after != sight:
        return _Reading(sight=sight, problem=f"is just being written; a valid token stays. {_REPLACED}")
    if not text.reveal().strip("\ufeff \t\r\n"):
        return _Reading(sight=sight, problem=f"is empty; a valid token stays. {_REPLACED}")
    return _Reading(sight=sight, text=text)


def _words(error: OSError) -> str:
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return "is not there; a valid token stays. Start what writes it, or correct path"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return (
            f"may not be read by uid {os.geteuid()}; a valid token stays. "
            "Correct its owner or mode, or those of its directories"
        )
    return f"cannot be read ({error.strerror}); a valid token stays. Correct path, or mend what is wrong"
