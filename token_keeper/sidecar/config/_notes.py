"""What reading a configuration finds: problems and warnings, at keys as the user wrote them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from token_keeper._errors import ConfigError, TokenKeeperError
from token_keeper._redact import redact_text
from token_keeper.sidecar.config._shown import shown, shown_key
from token_keeper.sources import Source

if TYPE_CHECKING:
    from token_keeper.sidecar.config._lookup import Lookup
    from token_keeper.sidecar.config._model import StoreConfig
    from token_keeper.store import Store

At = tuple[str | int, ...]
"""Where something stands: keys, and places in lists."""

FoundT = TypeVar("FoundT")

THE_FILE: Final = "the file"
"""The key of what concerns no single key."""
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


class BadConfig(TokenKeeperError, ValueError):
    """A configuration cannot work.

    Args:
        problems: All of them, in the order of the file.
    """

    def __init__(self, problems: tuple[ConfigError, ...]) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


@dataclass(slots=True)
class Storing:
    """Where grants are kept, and under which names.

    Args:
        running: The `[store]` that is used already, whatever the file says now.
        store: What was made of it, or of the file's.
        names: Which source keeps what under which name.
    """

    running: StoreConfig | None = None
    store: Store | None = None
    names: dict[str, At] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Notes:
    """What is known while one file is read.

    Args:
        environ: Where `${env:NAME}` looks.
        lookup: What references stand for.
        is_file_open: Whether every user of this machine can read the file.
        is_private: Whether values here are not shown.
        may_refer: Whether strings here may say that they stand elsewhere.
        problems: What cannot work.
        warnings: What can work, but should be looked at.
        claims: Which key writes to which place.
        sources: What was built, by the key of the source.
        settled: What files that are read only now said, by the name of the token.
        storing: Where grants are kept, and under which names.
        seen: What was found out about directories and files.
    """

    environ: Mapping[str, str] = field(repr=False)
    lookup: Lookup
    is_file_open: bool = False
    is_private: bool = False
    may_refer: bool = False
    problems: dict[At, str] = field(default_factory=dict)
    warnings: dict[At, str] = field(default_factory=dict)
    claims: dict[tuple[int, int, str], At] = field(default_factory=dict)
    sources: dict[At, Source] = field(default_factory=dict, repr=False)
    settled: dict[str | int, list[Any]] = field(default_factory=dict, repr=False)
    storing: Storing = field(default_factory=Storing)
    seen: dict[tuple[str, ...], Any] = field(default_factory=dict, repr=False)

    def once(self, find: Callable[..., FoundT], *names: str) -> FoundT:
        """Return what *find* says of *names*, which it is asked once for a file."""
        key = (find.__qualname__, *names)
        if key not in self.seen:
            self.seen[key] = find(*names)
        found: FoundT = self.seen[key]
        return found

    def wrong(self, at: At, problem: str) -> None:
        """Note that what stands at *at* cannot work. The first problem of a key is enough."""
        self.problems.setdefault(at, problem)

    def wrong_value(self, at: At, problem: str, value: object, *, hint: str = "") -> None:
        """Note *problem*, with the *value* if that may be shown."""
        seen = "" if self.is_private else f", not {shown(value)}"
        self.wrong(at, f"{problem}{seen}{hint}")

    def warn(self, at: At, problem: str) -> None:
        """Note that what stands at *at* should be looked at."""
        self.warnings.setdefault(at, problem)

    def within(self, *, is_private: bool = False, may_refer: bool = False) -> Notes:
        """Return notes that go to the same place, for values that are private or may refer."""
        return Notes(
            environ=self.environ,
            lookup=self.lookup,
            is_file_open=self.is_file_open,
            is_private=self.is_private or is_private,
            may_refer=self.may_refer or may_refer,
            problems=self.problems,
            warnings=self.warnings,
            claims=self.claims,
            sources=self.sources,
            settled=self.settled,
            storing=self.storing,
            seen=self.seen,
        )


def in_order(noted: Mapping[At, str], document: object) -> tuple[ConfigError, ...]:
    """Return what was *noted*, in the order of the *document*; what is missing in a table comes after it."""
    ranks: dict[int, dict[str | int, int]] = {}

    def rank(at: At) -> tuple[int, ...]:
        node, path = document, []
        for key in at:
            if isinstance(node, dict) and key in node:
                known = ranks.setdefault(id(node), {})
                if not known:
                    known.update((name, place) for place, name in enumerate(node))
                path.append(known[key])
                node = node[str(key)]
            elif isinstance(node, list) and isinstance(key, int) and key < len(node):
                path.append(key)
                node = node[key]
            else:
                path.append(sys.maxsize)
                break
        return tuple(path)

    return tuple(ConfigError(written(at), noted[at]) for at in sorted(noted, key=rank))


def written(at: At) -> str:
    """Return *at* as TOML writes keys, such as ``tokens."a.b".sinks[1].mode``."""
    parts: list[str] = []
    for key in at:
        if isinstance(key, int):
            parts.append(f"[{key}]")
        else:
            text = key if _BARE.fullmatch(key) and len(key) <= 64 else shown_key(key)
            text = text if redact_text(text) == text else '"<redacted>"'
            parts.append(f".{text}" if parts else text)
    return "".join(parts) or THE_FILE
