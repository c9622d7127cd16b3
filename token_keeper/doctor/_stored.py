"""What a store holds of a grant. It is only read: nothing is sent, and no refresh token is spent."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from token_keeper._errors import StoreError
from token_keeper._model import Issued, Secret
from token_keeper.doctor._findings import found_step
from token_keeper.doctor._report import Status, Step, skipped
from token_keeper.doctor._words import length
from token_keeper.sources.oauth2 import _rotation as rotation
from token_keeper.sources.oauth2._words import STORED
from token_keeper.store import DirectoryStore, Mark, Record, Slot, Store
from token_keeper.store._directory import DirectorySlot

LOGIN: Final = "Log in: token-keeper login NAME."
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Whose grant is looked for.

    Args:
        owner: To whom the tokens may be shown, as records say it.
        grant: ``refresh_token``, ``device_code``, or one that needs no refresh token.
        seed: The refresh token of the configuration, if there is one.
        rule: What the server forgives.
    """

    owner: str
    grant: str
    seed: Secret | None
    rule: rotation.ReplayRule

    @property
    def rotates(self) -> bool:
        """Whether a refresh token is needed."""
        return self.grant in STORED


def look_into(store: Store, stored_as: str) -> tuple[Step, Record | None]:
    """Say how the store is, and return what it remembers under the name *stored_as*."""
    slot = store.slot(stored_as)
    details: dict[str, object] = {"place": slot.place, "sealed": None, "mode": None}
    try:
        record = slot.read()
        is_sealed = slot.is_sealed() if isinstance(slot, DirectorySlot) else None
        if isinstance(store, DirectoryStore):
            store.check_key()
    except StoreError as error:
        found, _, remedy = error.problem.partition(". ")
        return Step(
            name="store",
            status=Status.FAILED,
            summary=f"{error.place} {found}",
            details=details,
            remedy=f"{remedy[:1].upper()}{remedy[1:].rstrip('.')}.",
        ), None
    details["sealed"] = is_sealed
    has_key = isinstance(store, DirectoryStore) and store.has_key
    return _directory_step(slot, details, record=record, is_sealed=is_sealed, has_key=has_key), record


def _directory_step(
    slot: Slot, details: dict[str, object], *, record: Record | None, is_sealed: bool | None, has_key: bool
) -> Step:
    if slot.path is None:
        summary = f"{slot.place}: what is kept is lost when this process ends"
        return Step(
            name="store",
            status=Status.OK,
            summary=summary,
            details={**details, "recorded": record is not None},
        )
    directory = slot.path.parent
    if not directory.is_dir():
        return _no_directory(directory, details)
    mode = stat.S_IMODE(directory.stat().st_mode)
    details["mode"] = f"{mode:04o}"
    seal = "sealed" if is_sealed else "not sealed" if is_sealed is not None else "nothing in it yet"
    remedy = ""
    if mode & _OTHERS:
        remedy = f"Others can list it: chmod 700 {directory}."
    elif not os.access(directory, os.W_OK | os.X_OK):
        remedy = f"This user ({os.geteuid()}) cannot write it: run as the user of the sidecar."
    elif has_key and is_sealed is False:
        remedy = "There is a key, and this record is not sealed yet: it will be at its next change."
    return Step(
        name="store",
        status=Status.WARNING if remedy else Status.OK,
        summary=f"{slot.place}: {seal}, in a directory of mode {mode:04o}",
        details={**details, "recorded": record is not None},
        remedy=remedy,
    )


def _no_directory(directory: Path, details: dict[str, object]) -> Step:
    if directory.parent.is_dir():
        summary = f"{directory} is not there yet; it is made at the first use"
        return Step(name="store", status=Status.OK, summary=summary, details=details)
    return Step(
        name="store",
        status=Status.FAILED,
        summary=f"there is no directory {directory}, nor the one above it",
        details=details,
        remedy=f"Make it: mkdir -p {directory} && chmod 700 {directory}.",
    )


def grant_step(record: Record | None, asked: Asked, *, now: float) -> Step:
    """Say what becomes of the grant at the next fetch.

    Args:
        record: What is remembered.
        asked: Whose it should be.
        now: Unix seconds.
    """
    if record is None:
        return _nothing(asked)
    details = _details(record, now)
    if record.owner != asked.owner:
        return _foreign(record, asked, details)
    if not asked.rotates:
        summary = "only access tokens are kept; there is nothing to lose"
        return Step(name="grant", status=Status.OK, summary=summary, details=details)
    is_new_login = rotation.is_new_login(record, asked.seed)
    if record.refresh_token is None and not is_new_login:
        return _nothing(asked)
    status, remedy, notes = Status.OK, "", [_age(record, now)]
    if is_new_login:
        notes.append("another refresh token is configured since: the next fetch starts anew with that one")
    elif record.mark is not None:
        status, remedy = Status.WARNING, _doubt(record, record.mark, asked.rule, now)
        notes.append(
            f"it was sent {length(now - record.mark.sent_at)} ago, {_times(record.mark.times)}, "
            f"by {record.mark.by}, and no answer was recorded"
        )
    return Step(
        name="grant",
        status=status,
        summary=f"there is a refresh token, {_replaced(record.rotations)} so far",
        details=details,
        remedy=remedy,
        notes=tuple(note for note in notes if note),
    )


def _foreign(record: Record, asked: Asked, details: dict[str, object]) -> Step:
    return Step(
        name="grant",
        status=Status.FAILED,
        summary="the record was issued to another client, or by another server",
        details=details,
        remedy="It is not used, so that its tokens are never shown to a stranger: correct issuer, "
        "token_url and client_id, or move the record away and log in again.",
        notes=(f"it is of {record.owner}", f"the source is {asked.owner}"),
    )


def _nothing(asked: Asked) -> Step:
    details = {"recorded": False}
    if not asked.rotates:
        summary = "nothing is kept yet"
        return Step(name="grant", status=Status.OK, summary=summary, details=details)
    if asked.seed is not None:
        summary = "nothing is kept yet: the first fetch sends the configured refresh token"
        return Step(name="grant", status=Status.OK, summary=summary, details=details)
    return Step(
        name="grant",
        status=Status.FAILED,
        summary="nobody has logged in yet",
        details=details,
        remedy=LOGIN if asked.grant == "device_code" else "Give the source a refresh_token.",
    )


def _details(record: Record, now: float) -> dict[str, object]:
    mark = record.mark
    return {
        "recorded": True,
        "owner": record.owner,
        "rotations": record.rotations,
        "age": None if record.received_at is None else round(now - record.received_at, 1),
        "access_token_expires_at": record.expires_at,
        "mark": None if mark is None else {"sent_at": mark.sent_at, "times": mark.times, "by": mark.by},
    }


def _doubt(record: Record, mark: Mark, rule: rotation.ReplayRule, now: float) -> str:
    """Say what a keeper does about a lost answer."""
    may = rotation.permission(record, rule, now)
    if isinstance(may, rotation.Hold):
        return (
            f"A keeper sends it once more in {length(may.until - now)}, when there is nothing left to lose. "
            "To be sure, log in again before that."
        )
    if may is rotation.Sending.REPLAY:
        left = length(mark.sent_at + rule.window_s - now)
        return f"A keeper sends it once more now; for another {left} the server should forgive that."
    return "A keeper sends it once more; if the server refuses it, log in again."


def _age(record: Record, now: float) -> str:
    if record.received_at is None:
        return ""
    return f"the last access token came {length(max(now - record.received_at, 0.0))} ago"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _replaced(count: int) -> str:
    return f"replaced {_times(count)}" if count else "not replaced"


def kept_token(record: Record | None, asked: Asked, *, now: float) -> tuple[Issued | None, Step]:
    """Return the access token that is kept, if it still serves, and say how it is.

    Args:
        record: What is remembered.
        asked: Whose it should be.
        now: Unix seconds.
    """
    if record is None or record.access_token is None or record.owner != asked.owner:
        return None, skipped(("token",), "no access token of this source is kept")[0]
    if record.expires_at is not None and record.expires_at <= now:
        ago = length(now - record.expires_at)
        why = f"the access token that is kept expired {ago} ago; a keeper gets another one"
        return None, skipped(("token",), why)[0]
    issued = rotation.adopted(record, now)
    return issued, found_step(issued, "kept in the store")
