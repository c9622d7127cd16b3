"""Tables with known keys: the structs of the model."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from token_keeper.sidecar.config._notes import At, Notes
from token_keeper.sidecar.config._plain import choice, unknown
from token_keeper.sidecar.config._shapes import (
    FAILED,
    Converted,
    Leaf,
    Shape,
    example_of,
    is_required,
    shape_of,
)
from token_keeper.sidecar.config._shown import shown, type_of

TAG = "type"
_ARGUMENT = re.compile(r"^    (\w+): (.+?)(?=^    \w+: |\Z)", re.MULTILINE | re.DOTALL)


class Found:
    """What was read of one table, for checks that look at several keys.

    Args:
        values: By key. Missing ones have their default.
        stated: What stands in the file.
    """

    def __init__(self, values: Mapping[str, Any], stated: Mapping[str, Any]) -> None:
        self._values = values
        self.stated = stated

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def has(self, *keys: str) -> bool:
        """Whether each of *keys* could be read, or has a default."""
        return not any(self._values.get(key, FAILED) is FAILED for key in keys)


Check: TypeAlias = Callable[[Found, At, Notes], None]
"""Notes what is wrong with a table as a whole."""

CHECKS: dict[type[Struct], list[Check]] = {}


def check(struct: type[Struct]) -> Callable[[Check], Check]:
    """Have the decorated function check each table of *struct*."""

    def added(function: Check) -> Check:
        CHECKS.setdefault(struct, []).append(function)
        return function

    return added


@dataclass(frozen=True, slots=True)
class Record:
    """A table with the keys of *struct*."""

    struct: type[Struct]
    fields: Mapping[str, tuple[msgspec.structs.FieldInfo, Shape]]
    defaults: Mapping[str, Any]

    @property
    def tag(self) -> str | None:
        """The word under `type` that says that it is this one."""
        tag = self.struct.__struct_config__.tag
        return tag if isinstance(tag, str) else None

    def read(self, value: object, at: At, notes: Notes) -> Any:
        """As `Shape`."""
        if not isinstance(value, dict):
            notes.wrong(at, f"must be a table, not {type_of(value)}")
            return FAILED
        known, before = [*([TAG] if self.tag else []), *self.fields], len(notes.problems)
        values: dict[str, Any] = {}
        for key, one in value.items():
            if key in self.fields:
                values[key] = self.fields[key][1].read(one, (*at, key), notes)
            elif key not in known:
                notes.wrong((*at, key), unknown(key, known))
        for key in self.fields.keys() - self.defaults.keys() - value.keys():
            notes.wrong((*at, key), f"is required{_such(example_of(self.fields[key][0].type))}")
            values[key] = FAILED
        found = Found({**self.defaults, **values}, value)
        for function in CHECKS.get(self.struct, ()):
            function(found, at, notes)
        return self.struct(**values) if len(notes.problems) == before else FAILED

    def schema(self, definitions: dict[str, Any]) -> dict[str, Any]:
        """As `Shape`."""
        name = self.struct.__name__
        if name not in definitions:
            definitions[name] = {}  # Whoever refers to itself finds it.
            definitions[name] = self._definition(definitions)
        return {"$ref": f"#/$defs/{name}"}

    def write(self, value: Any) -> Any:
        """As `Shape`."""
        return {
            key: shape.write(getattr(value, key))
            for key, (_, shape) in self.fields.items()
            if getattr(value, key) not in (None, ())
        }

    def _definition(self, definitions: dict[str, Any]) -> dict[str, Any]:
        summary, arguments = _documented(self.struct)
        properties: dict[str, Any] = {TAG: {"const": self.tag}} if self.tag else {}
        required = [TAG] if self.tag else []
        for key, (field, shape) in self.fields.items():
            said = {"description": arguments[key]} if key in arguments else {}
            such = example_of(field.type)
            examples = {} if such is None else {"examples": [such]}
            properties[key] = shape.schema(definitions) | said | examples | _default(field, shape)
            if is_required(field):
                required.append(key)
        document = {"type": "object", "description": summary, "properties": properties}
        return document | {"additionalProperties": False} | ({"required": required} if required else {})


@dataclass(frozen=True, slots=True)
class OneOf:
    """A table whose `type` says which keys it has."""

    records: Mapping[str, Record]

    def read(self, value: object, at: At, notes: Notes) -> Any:
        """As `Shape`."""
        if not isinstance(value, dict):
            notes.wrong(at, f"must be a table, not {type_of(value)}")
            return FAILED
        record = self._named(value.get(TAG), (*at, TAG), notes)
        return FAILED if record is None else record.read(value, at, notes)

    def schema(self, definitions: dict[str, Any]) -> dict[str, Any]:
        """As `Shape`."""
        members = [record.schema(definitions) for record in self.records.values()]
        return members[0] if len(members) == 1 else {"oneOf": members}

    def write(self, value: Any) -> Any:
        """As `Shape`."""
        tag = value.__struct_config__.tag
        return {TAG: tag} | self.records[tag].write(value)

    def _named(self, tag: object, at: At, notes: Notes) -> Record | None:
        if isinstance(tag, str) and tag in self.records:
            return self.records[tag]
        words = tuple(self.records)
        if tag is None:
            notes.wrong(at, f"is required{_such(words[0])}")
        else:
            Leaf(choice(words)).read(tag, at, notes)
        return next(iter(self.records.values())) if len(words) == 1 and tag is None else None


@dataclass(frozen=True, slots=True)
class ConvertedTable:
    """A table that is kept as something else."""

    conversion: Converted

    def read(self, value: object, at: At, notes: Notes) -> Any:
        """As `Shape`."""
        table = shape_of(self.conversion.table).read(value, at, notes)
        if table is FAILED or not isinstance(value, dict):
            return FAILED
        return self.conversion.convert(table, frozenset(value), at, notes)

    def schema(self, definitions: dict[str, Any]) -> dict[str, Any]:
        """As `Shape`."""
        return shape_of(self.conversion.table).schema(definitions)

    def write(self, value: Any) -> Any:  # noqa: ARG002 - As `Shape`.
        """As `Shape`."""
        return {}


@functools.cache
def record_of(structs: tuple[type[Struct], ...]) -> Shape:
    """Return how a table is read that is one of *structs*."""
    records = [
        Record(
            struct,
            {field.name: (field, shape_of(field.type)) for field in msgspec.structs.fields(struct)},
            {
                field.name: _default_of(field)
                for field in msgspec.structs.fields(struct)
                if not is_required(field)
            },
        )
        for struct in structs
    ]
    if len(records) == 1 and records[0].tag is None:
        return records[0]
    return OneOf({str(record.tag): record for record in records})


def _default_of(field: msgspec.structs.FieldInfo) -> Any:
    made = field.default_factory
    return field.default if made is msgspec.NODEFAULT else made()


def _such(example: Any) -> str:
    return "" if example is None else f", such as {_inline(example)}"


def _inline(example: Any) -> str:
    if isinstance(example, dict):
        return f"{{ {', '.join(f'{key} = {_inline(one)}' for key, one in example.items())} }}"
    if isinstance(example, list):
        return f"[{', '.join(map(_inline, example))}]"
    return shown(example)


def _default(field: msgspec.structs.FieldInfo, shape: Shape) -> dict[str, Any]:
    default = field.default
    if is_required(field) or default in (None, msgspec.NODEFAULT):
        return {}
    written = shape.write(default)
    return {} if written in ([], {}) else {"default": written}


def _documented(struct: type[Struct]) -> tuple[str, dict[str, str]]:
    """Return what the docstring of *struct* says of it, and of each key."""
    summary, _, arguments = inspect.getdoc(struct).partition("\nArgs:\n")  # type: ignore[union-attr]
    found = {match[1]: " ".join(match[2].split()) for match in _ARGUMENT.finditer(arguments)}
    return " ".join(summary.split()), found
