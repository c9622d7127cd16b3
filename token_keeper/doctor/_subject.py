"""What can be examined besides a request that is written down: a source, as it would be made."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from token_keeper.doctor._fetch import Request
from token_keeper.sources import HttpSource

_KNOWN = frozenset(one.name for one in fields(Request))


@dataclass(frozen=True, slots=True)
class Subject:
    """A source that is not made yet, so that its steps can be looked at one by one.

        Subject.of(OAuth2Source, issuer="https://login.example", client_id="app", client_secret=secret)
        Subject.of(ChainSource, {"file": Subject.of(FileSource, path), "backend": Request(url=url)})

    Args:
        kind: The class of the source.
        words: What it is made with, by name.
    """

    kind: Callable[..., Any]
    words: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, kind: Callable[..., Any], /, *args: Any, **words: Any) -> Self:
        """Return a source of the class *kind* that would be made with these arguments.

        Raises:
            TypeError: If the class does not take them.
        """
        return cls(kind, dict(inspect.signature(kind).bind(*args, **words).arguments))

    def made(self, **instead: Any) -> Any:
        """Return the source, with some words *instead* of its own.

        Raises:
            ConfigError: If a word cannot work.
        """
        return self.kind(**{**self.words, **instead})


def request_of(subject: Subject) -> Request | None:
    """Return what an HTTP source would ask with; None if it is of another kind, or has an `auth`."""
    if subject.kind is not HttpSource or not subject.words.keys() <= _KNOWN:
        return None
    return Request(**{"headers": {}, **subject.words})
