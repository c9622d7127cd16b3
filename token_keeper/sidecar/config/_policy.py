"""`[tokens.NAME.policy]`: the numbers of `RefreshPolicy`, as durations and shares."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Annotated, Any, Final

import msgspec
from msgspec import Struct

from token_keeper._errors import ConfigError
from token_keeper._policy import DEFAULT_POLICY, RefreshPolicy
from token_keeper.sidecar.config import _kinds as kinds
from token_keeper.sidecar.config._notes import At, Notes
from token_keeper.sidecar.config._shapes import FAILED, Converted

_LEADS: Final = ("lead_ratio", "lead_min", "lead_max")
_FIELD_OF: Final = {field.name.removesuffix("_s"): field.name for field in fields(RefreshPolicy)}
"""By the word in the file: the field of `RefreshPolicy`."""
_KEY_OF: Final = {name: key for key, name in _FIELD_OF.items()}


def _type_of(name: str) -> Any:
    if name.endswith("_s"):
        return Annotated[float, kinds.DURATION]
    if name.endswith("_ratio"):
        return Annotated[float, kinds.RATIO]
    return type(getattr(DEFAULT_POLICY, name))


def _policy_table() -> type[Struct]:
    members: list[tuple[str, Any, Any]] = [("lead", Annotated[Any, kinds.LEAD], None)]
    members += [(key, _type_of(name), getattr(DEFAULT_POLICY, name)) for key, name in _FIELD_OF.items()]
    _, _, arguments = (inspect.getdoc(RefreshPolicy) or "").partition("\nArgs:\n")
    arguments = arguments.partition("\nRaises:")[0].replace("_s:", ":").replace(", in seconds", "")
    return msgspec.defstruct(
        "PolicyTable",
        members,
        frozen=True,
        kw_only=True,
        forbid_unknown_fields=True,
        namespace={
            "__doc__": "`[tokens.NAME.policy]`: when the token is refreshed.\n\nArgs:\n"
            "    lead: For short: a share as lead_ratio, or a duration as both lead_min and lead_max.\n"
            f"{arguments}"
        },
    )


def _policy(table: Any, stated: frozenset[str], at: At, notes: Notes) -> RefreshPolicy | object:
    values = {_FIELD_OF[key]: getattr(table, key) for key in stated if key in _FIELD_OF}
    if table.lead is not None:
        for key in sorted(stated & set(_LEADS)):
            notes.wrong((*at, key), "cannot be combined with lead, which is short for it: write one of both")
            values.pop(_FIELD_OF[key])
        form, number = table.lead
        values |= {"lead_ratio": number} if form == "ratio" else {"lead_min_s": number, "lead_max_s": number}
    before = len(notes.problems)
    policy = _checked(values, at, notes, lead_key="lead" if table.lead is not None else "lead_ratio")
    if policy.lead_min_s > policy.lead_max_s:
        key, other = ("lead_min", "lead_max") if "lead_min" in stated else ("lead_max", "lead_min")
        relation = "more" if key == "lead_min" else "less"
        usual = kinds.written_duration(getattr(policy, _FIELD_OF[other]))
        notes.wrong((*at, key), f"must not be {relation} than {other}, which is {usual}")
    return policy if len(notes.problems) == before else FAILED


def _checked(values: dict[str, Any], at: At, notes: Notes, *, lead_key: str) -> RefreshPolicy:
    """Return the policy, without the numbers that it refuses, after notes on those."""
    while True:
        try:
            return RefreshPolicy(**values)
        except ConfigError as error:
            name, problem = _culprit(error, values)
        notes.wrong((*at, lead_key if name == "lead_ratio" else _KEY_OF[name]), problem)
        del values[name]


def _culprit(error: ConfigError, values: dict[str, Any]) -> tuple[str, str]:
    """Return the field that the user set, and the problem in the file's words."""
    if error.key not in values:
        # Only backoff_max_s is compared with another, which the user must have written.
        usual = kinds.written_duration(DEFAULT_POLICY.backoff_max_s)
        return "backoff_min_s", f"must not be more than backoff_max, which is {usual} by default: set both"
    problem = error.problem
    if error.key.endswith("_ratio"):
        return error.key, problem.replace("0 to 0.5", "0 to 0.5, which is 50%")
    if error.key.endswith("_s"):
        # Words that end in _s are names of fields: in the file they do not.
        return error.key, problem.replace("backoff_min_s", "backoff_min").replace("number", "duration") + (
            "" if "backoff_min_s" in problem else ", in seconds"
        )
    return error.key, problem


POLICY: Final = Converted(_policy_table(), _policy)
"""How the field of `TokenConfig` is read."""
