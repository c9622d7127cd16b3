"""Reads values by their types: one walk over the file that finds every problem, and the schema of the same.

The types are those of the structs in `_model`; nothing here knows a key.
"""

from __future__ import annotations

import functools
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Protocol

import msgspec
from msgspec import NODEFAULT, Struct

from token_keeper.sidecar.config._kinds import LARGEST_INT, Kind, WrongError
from token_keeper.sidecar.config._notes import At, Notes
from token_keeper.sidecar.config._plain import FLAG, STRING, WHOLE, choice
from token_keeper.sidecar.config._shown import type_of
from token_keeper.sources._references import looks_referring

FAILED: Final = object()
"""Stands for a value that could not be read; the notes say why."""

DEEPEST: Final = 32
"""Levels of a value that may be anything."""

MISPLACED: Final = (
    "does not look up ${env:...}, ${file:...} or ${credential:...}: they work in the strings"
    " of a token's source. Write the value itself"
)


class Mark:
    """Says something about a field that its type does not."""


PRIVATE: Final = Mark()
"""The value is never shown: it may hold a secret."""
REFERS: Final = Mark()
"""Strings in the value may say that a part of them stands elsewhere."""


@dataclass(frozen=True, slots=True, eq=False)
class Such:
    """An example of a value, for messages and the schema."""

    example: Any


@dataclass(frozen=True, slots=True, eq=False)
class Converted:
    """The field is written as *table*, and kept as what *convert* makes of it.

    Args:
        table: What stands in the file.
        convert: Makes the value of the table and of the keys that stand in it, or `FAILED` after a note.
    """

    table: type[Struct]
    convert: Callable[[Any, frozenset[str], At, Notes], Any]


class Shape(Protocol):
    """How to read the values of one type."""

    def read(self, value: object, at: At, notes: Notes) -> Any:
        """Return what is meant by *value*, or `FAILED` after a note."""
        ...

    def schema(self, definitions: dict[str, Any]) -> dict[str, Any]:
        """Return the JSON Schema; structs add themselves to *definitions*."""
        ...

    def write(self, value: Any) -> Any:
        """Return *value* as it stands in a file."""
        ...


@dataclass(frozen=True, slots=True)
class Leaf:
    """A string, a number, or one of a few words."""

    kind: Kind

    def read(self, value: object, at: At, notes: Notes) -> Any:
        """As `Shape`."""
        if isinstance(value, str) and not notes.may_refer and looks_referring(value):
            notes.wrong(at, MISPLACED)
            return FAILED
        try:
            return self.kind.read(value)
        except WrongError as wrong:
            notes.wrong_value(at, str(wrong), value, hint=wrong.hint)
            return FAILED

    def schema(self, definitions: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - As `Shape`.
        """As `Shape`."""
        return dict(self.kind.schema)

    def write(self, value: Any) -> Any:
        """As `Shape`."""
        return self.kind.write(value)


@dataclass(frozen=True, slots=True)
class Many:
    """A list."""

    member: Shape

    def read(self, value: object, at: At, notes: Notes) -> Any:
        """As `Shape`."""
        if not isinstance(value, list):
            notes.wrong(at, f"must be a list, not {type_of(value)}")
            return FAILED
        members = tuple(self.member.read(one, (*at, place), notes) for place, one in enumerate(value))
        return FAILED if any(one is FAILED for one in members) else members

    def schema(self, definitions: dict[str, Any]) -> dict[str, Any]:
        """As `Shape`."""
        return {"type": "array", "items": self.member.schema(definitions)}

    def write(self, value: Any) -> Any:
        """As `Shape`."""
        return [self.member.write(one) for one in value]


@dataclass(frozen=True, slots=True)
class Table:
    """A table with keys of the user's."""

    key: Shape
    member: Shape

    def read(self, value: object, at: At, notes: Notes) -> Any:
        """As `Shape`."""
        if not isinstance(value, dict):
            notes.wrong(at, f"must be a table, not {type_of(value)}")
            return FAILED
        read: dict[str, Any] = {}
        for key, one in value.items():
            # A bad name is no reason to be silent about what stands below it.
            name = self.key.read(key, (*at, key), _without_values(notes))
            read[key] = FAILED if name is FAILED else None
            member = self.member.read(one, (*at, key), notes)
            read[key] = FAILED if read[key] is FAILED else member
        return FAILED if any(one is FAILED for one in read.values()) else read

    def schema(self, definitions: dict[str, Any]) -> dict[str, Any]:
        """As `Shape`."""
        names = self.key.schema(definitions)
        limit = {} if names == {"type": "string"} else {"propertyNames": names}
        return {"type": "object", "additionalProperties": self.member.schema(definitions)} | limit

    def write(self, value: Any) -> Any:
        """As `Shape`."""
        return dict(value)


@dataclass(frozen=True, slots=True)
class Anything:
    """Whatever JSON can hold."""

    def read(self, value: object, at: At, notes: Notes) -> Any:
        """As `Shape`."""
        problem = _unfit(value, DEEPEST, may_refer=notes.may_refer)
        if problem is None:
            return value
        notes.wrong(at, problem)
        return FAILED

    def schema(self, definitions: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - As `Shape`.
        """As `Shape`."""
        return {}

    def write(self, value: Any) -> Any:
        """As `Shape`."""
        return value


@dataclass(frozen=True, slots=True)
class Marked:
    """A value with a mark."""

    inner: Shape
    mark: Mark

    def read(self, value: object, at: At, notes: Notes) -> Any:
        """As `Shape`."""
        return self.inner.read(
            value, at, notes.within(is_private=self.mark is PRIVATE, may_refer=self.mark is REFERS)
        )

    def schema(self, definitions: dict[str, Any]) -> dict[str, Any]:
        """As `Shape`."""
        return self.inner.schema(definitions)

    def write(self, value: Any) -> Any:
        """As `Shape`."""
        return self.inner.write(value)


_SIMPLE: Final[Mapping[Any, Kind]] = {str: STRING, int: WHOLE, bool: FLAG}


@functools.cache
def shape_of(kind: Any) -> Shape:
    """Return how values of the type *kind* are read.

    Raises:
        TypeError: If it is none that a file can hold.
    """
    if kind in _SIMPLE:
        return Leaf(_SIMPLE[kind])
    if kind is Any:
        return Anything()
    if isinstance(kind, type) and issubclass(kind, Struct):
        from token_keeper.sidecar.config._records import record_of  # noqa: PLC0415 - It reads by our shapes.

        return record_of((kind,))
    origin, members = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return _annotated(members[0], members[1:])
    if origin is Literal:
        return Leaf(choice(members))
    if origin in {typing.Union, types.UnionType}:
        return _union([one for one in members if one is not types.NoneType])
    if origin is tuple:
        return Many(shape_of(members[0]))
    if origin is Mapping:
        return Table(shape_of(members[0]), shape_of(members[1]))
    raise TypeError(f"no file can hold {kind}")


def example_of(kind: Any) -> Any:
    """Return the example that a field's type names, or None."""
    if typing.get_origin(kind) is Annotated:
        for mark in typing.get_args(kind)[1:]:
            if isinstance(mark, Such):
                return mark.example
    return None


def _annotated(kind: Any, marks: Sequence[Any]) -> Shape:
    from token_keeper.sidecar.config._records import ConvertedTable  # noqa: PLC0415 - As above.

    shape: Shape | None = None
    for mark in marks:
        if isinstance(mark, Kind):
            shape = Leaf(mark)
        elif isinstance(mark, Converted):
            shape = ConvertedTable(mark)
    shape = shape or shape_of(kind)
    for mark in marks:
        if isinstance(mark, Mark):
            shape = Marked(shape, mark)
    return shape


def _union(members: Sequence[Any]) -> Shape:
    if len(members) == 1:
        return shape_of(members[0])
    from token_keeper.sidecar.config._records import record_of  # noqa: PLC0415 - As above.

    return record_of(tuple(members))


def _without_values(notes: Notes) -> Notes:
    return notes.within(is_private=True)


def _unfit(value: object, levels: int, *, may_refer: bool) -> str | None:
    """Return why *value* cannot be sent, or None."""
    if not levels:
        return f"is nested more than {DEEPEST} levels deep: write less of it"
    if isinstance(value, str):
        return MISPLACED if not may_refer and looks_referring(value) else None
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return None if abs(value) < LARGEST_INT else "holds a whole number of more than 64 bits"
    if isinstance(value, float):
        return None if math.isfinite(value) else "holds a number that JSON does not have: nan or inf"
    if isinstance(value, dict | list):
        members = value.values() if isinstance(value, dict) else value
        problems = (_unfit(one, levels - 1, may_refer=may_refer) for one in members)
        return next((problem for problem in problems if problem), None)
    return "holds a date or time without quotes: JSON has none, so write it as a string"


def is_required(field: msgspec.structs.FieldInfo) -> bool:
    """Whether a file cannot leave *field* out."""
    return field.default is NODEFAULT and field.default_factory is NODEFAULT
