"""The demo's words: what events, states and results mean. Pure functions."""

from __future__ import annotations

import re

from token_keeper._model import EventKind, Phase, Snapshot, Status, TokenEvent
from token_keeper.cli.demo._record import Summary

TITLE = "token-keeper demo"
NEXT = (
    'Put a keeper into your program: README.md, section "Embedding".',
    'What it does in each kind of trouble: section "When things go wrong".',
)

STATUS_STYLES = {
    Status.FRESH: "good",
    Status.STALE: "warning",
    Status.DENIED: "error",
    Status.EXPIRED: "error",
}
_ORIGIN = re.compile(r"https?://\S+ ")


def intro(lifetime_s: float) -> str:
    """Return what a newcomer has to know, in a line."""
    return f"Access tokens expire, here after {lifetime_s:g} s. The keeper renews them, whatever breaks."


def clock(seconds: float) -> str:
    """Return a length of time as minutes and seconds."""
    minutes, rest = divmod(int(max(seconds, 0.0)), 60)
    return f"{minutes}:{rest:02}"


def meaning(event: TokenEvent, *, left_s: float, after_denial: bool) -> tuple[str, str]:
    """Return what *event* means in a few words, and how to style it.

    Args:
        event: As the keeper announced it.
        left_s: Seconds that the token had left, of which the event is or which it replaced.
        after_denial: Whether that token was denied.
    """
    generation = event.generation
    match event.kind:
        case EventKind.TOKEN_UPDATED if generation == 1:
            return f"generation 1, the first token, valid for {left_s:.1f} s", "good"
        case EventKind.TOKEN_UPDATED if after_denial:
            return f"generation {generation} takes the place of the denied one", "good"
        case EventKind.TOKEN_UPDATED if left_s <= 0:
            return f"generation {generation} follows the expired one", "good"
        case EventKind.TOKEN_UPDATED:
            return f"generation {generation} takes over; {generation - 1} had {left_s:.1f} s left", "good"
        case EventKind.TOKEN_ABOUT_TO_EXPIRE:
            return f"{left_s:.1f} s left: the keeper asks for a new one now", "info"
        case EventKind.TOKEN_EXPIRED:
            return "no valid token until a refresh succeeds", "error"
        case EventKind.TOKEN_DENIED:
            return f"generation {generation} is never handed out again", "error"
        case EventKind.RECOVERED:
            return f"the chat server accepts generation {generation}", "good"
        case EventKind.REFRESH_FAILED:
            return f"{_reason(event.error)}; {max(left_s, 0.0):.1f} s left", "warning"
        case _:
            return _reason(event.error), "warning"


def business(snapshot: Snapshot, *, now: float) -> str:
    """Return what the keeper does at *now*, Unix seconds."""
    if snapshot.phase is Phase.FETCHING:
        return "fetching a token from the backend"
    due = snapshot.next_attempt_at
    in_s = f"in {max(due - now, 0.0):.1f} s" if due is not None else "later"
    if snapshot.status is Status.DENIED:
        return f"asks for another token {in_s}"
    if snapshot.phase is Phase.WAITING:
        return f"waiting; refresh {in_s}"
    return f"failed attempts: {snapshot.failures}; next {in_s}"


def results(summary: Summary) -> list[tuple[str, str]]:
    """Return the summary, as labels and values."""
    return [
        ("time with a valid token", _validity(summary)),
        ("refreshes", _refreshes(summary)),
        ("faults survived", _faults(summary)),
        ("requests of the client", _requests(summary)),
    ]


def conclusion(summary: Summary) -> str:
    """Return the last word on whether the keeper did its work."""
    if summary.ok:
        return "The client never used an expired token, nor the denied one again."
    times = "once" if summary.bad == 1 else f"{summary.bad} times"
    return f"The client used a token that could not work: {times}. That is a defect of the keeper."


def _validity(summary: Summary) -> str:
    percent = f"{summary.valid_percent:.1f} %"
    if not summary.without_s:
        return percent
    why = ", after the denial" if summary.refused and summary.ok else ""
    return f"{percent}; {summary.without_s:g} s without one{why}"


def _refreshes(summary: Summary) -> str:
    failed = summary.failed_fetches
    if not failed:
        return str(summary.refreshes)
    return f"{summary.refreshes}, and {failed} failed attempt{'s' if failed > 1 else ''}"


def _faults(summary: Summary) -> str:
    if not summary.faults:
        return "none was met"
    count = f"{summary.faults_survived} of {len(summary.faults)}"
    unfinished = f", {summary.faults_unfinished} not over yet" if summary.faults_unfinished else ""
    return f"{count}{unfinished}: {', '.join(summary.faults)}"


def _requests(summary: Summary) -> str:
    if not summary.refused:
        return f"{summary.requests}, none refused"
    news = ": so it learnt of the denial" if summary.refused == 1 and summary.ok else ""
    return f"{summary.requests}, {summary.refused} refused{news}"


def _reason(error: str | None) -> str:
    """Return the first clause of *error*, without the address, which says nothing here."""
    clause = (error or "no reason was given").partition(";")[0]
    return _ORIGIN.sub("the backend ", clause)
