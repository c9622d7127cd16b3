"""What happens during the demo, and what it adds up to."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from token_keeper.cli.demo._server import REVOKED, Refusal

MAX_MARKS = 500
"""Requests whose outcome is remembered one by one: more fit on no screen."""


class Outcome(StrEnum):
    """How one request of the client ended."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    NO_TOKEN = "no token"


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """Something that is worth a line.

    Args:
        after_s: Seconds since the start.
        who: The keeper, the backend, the chat server, the client, or the demo itself.
        event: Its name: for the keeper's own, that of the event.
        text: What it means, for people.
        style: A key of `token_keeper.cli._output.STYLES`.
        details: More of it, for programs.
    """

    after_s: float
    who: str
    event: str
    text: str
    style: str = "plain"
    details: Mapping[str, object] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """Return it as programs read it."""
        told = {"t": round(self.after_s, 3), "who": self.who, "event": self.event, "text": self.text}
        return told | {key: value for key, value in self.details.items() if value is not None}


@dataclass(slots=True)
class Fault:
    """Something that went wrong on purpose."""

    name: str
    is_over: bool = False
    is_lost: bool = False

    @property
    def survived(self) -> bool:
        """Whether it passed, and no token ran out meanwhile."""
        return self.is_over and not self.is_lost


@dataclass(slots=True)
class Tally:
    """Counts what the client and the keeper went through."""

    refreshes: int = 0
    failed_fetches: int = 0
    accepted: int = 0
    refused: int = 0
    without_token: int = 0
    bad: int = 0
    valid_s: float = 0.0
    watched_s: float = 0.0
    faults: list[Fault] = field(default_factory=list)
    marks: deque[Outcome] = field(default_factory=lambda: deque(maxlen=MAX_MARKS))
    _refused_tokens: set[str] = field(default_factory=set)

    def run_out(self) -> None:
        """Note that a token expired before its successor came."""
        for fault in self.faults:
            fault.is_lost = fault.is_lost or not fault.is_over

    def watch(self, seconds: float, *, valid: bool) -> None:
        """Note that for *seconds* there was, or was not, a token to read."""
        self.watched_s += seconds
        self.valid_s += seconds if valid else 0.0

    def accept(self) -> None:
        """Note a request that the server accepted."""
        self.accepted += 1
        self.marks.append(Outcome.ACCEPTED)

    def do_without(self) -> None:
        """Note a request that was not made for want of a token."""
        self.without_token += 1
        self.marks.append(Outcome.NO_TOKEN)

    def refuse(self, refusal: Refusal, fingerprint: str) -> bool:
        """Note a request that the server refused. Returns whether the client should never have made it.

        The one that tells the client of a revocation is the news itself;
        anything else means that the keeper handed out a token that cannot work.
        """
        is_bad = refusal.code != REVOKED or fingerprint in self._refused_tokens
        self._refused_tokens.add(fingerprint)
        self.refused += 1
        self.bad += is_bad
        self.marks.append(Outcome.REFUSED)
        return is_bad


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What the demo adds up to.

    Args:
        seconds: How long it ran.
        valid_percent: Share of the time in which a token was to be had.
        without_s: The other share, in seconds.
        refreshes: Tokens after the first.
        failed_fetches: As the keeper announced them.
        faults: What went wrong on purpose, in order.
        faults_survived: Of these, those after which a new token came before the old one expired.
        faults_unfinished: Of these, those that were still going on at the end.
        requests: Made by the client.
        refused: Of these, by the server.
        without_token: Requests that were not made for want of a token.
        bad: Refused requests that should not have been made.
        signal: What ended the demo early, if it was a signal.
    """

    seconds: float
    valid_percent: float
    without_s: float
    refreshes: int
    failed_fetches: int
    faults: tuple[str, ...]
    faults_survived: int
    faults_unfinished: int
    requests: int
    refused: int
    without_token: int
    bad: int
    signal: int | None = None

    @classmethod
    def of(cls, tally: Tally, *, seconds: float, signal: int | None) -> Summary:
        """Add up *tally* after so many *seconds*."""
        percent = 100.0 * tally.valid_s / tally.watched_s if tally.watched_s else 100.0
        return cls(
            seconds=round(seconds, 1),
            valid_percent=round(percent, 1),
            without_s=round(tally.watched_s - tally.valid_s, 1),
            refreshes=tally.refreshes,
            failed_fetches=tally.failed_fetches,
            faults=tuple(fault.name for fault in tally.faults),
            faults_survived=sum(fault.survived for fault in tally.faults),
            faults_unfinished=sum(not fault.is_over for fault in tally.faults),
            requests=tally.accepted + tally.refused,
            refused=tally.refused,
            without_token=tally.without_token,
            bad=tally.bad,
            signal=signal,
        )

    @property
    def ok(self) -> bool:
        """Whether the client never saw an expired token, nor a denied one again."""
        return not self.bad

    @property
    def exit_code(self) -> int:
        """0, or 1 if the client ever saw a bad token, or what a shell expects after a signal."""
        if self.bad:
            return 1
        return 128 + self.signal if self.signal else 0

    def as_dict(self) -> dict[str, object]:
        """Return it as programs read it."""
        return {"event": "summary", "ok": self.ok, **asdict(self)}
