"""What to do about denials: who is withheld the token, and what fetches that is worth.

A denial belongs to its reporter. All fetches that denials cause draw on one
bucket, which nothing but time refills, so that no behaviour of any server can
cause more of them.
"""

from __future__ import annotations

from dataclasses import replace

from token_keeper import _schedule as schedule
from token_keeper._inputs import Announce, Effects, Moment, TokenAccepted, TokenDenied
from token_keeper._model import DenialClass, EventKind, Phase, Verdict
from token_keeper._policy import RefreshPolicy
from token_keeper._state import MAX_DENIED, MAX_REPORTERS, NEVER, Current, Recovery, Reporter, State, announce


def judge(state: State, denial: TokenDenied, now: Moment, policy: RefreshPolicy) -> Verdict:
    """Return what a denial amounts to, before anything is done about it."""
    current, by = state.current, denial.by
    if current is None or denial.generation != current.generation:
        return Verdict.SUPERSEDED
    if denial.meaning is DenialClass.THROTTLED:
        return Verdict.THROTTLED
    if denial.meaning is DenialClass.FORBIDDEN:
        return Verdict.FORBIDDEN
    reporter = state.recovery.reporters.get(by, Reporter())
    if by in current.withheld:
        waits = reporter.gave_up and state.phase is not Phase.FETCHING
        return Verdict.GAVE_UP if waits else Verdict.DENIED
    if len(current.withheld) >= MAX_REPORTERS:
        return Verdict.GAVE_UP
    if not state.sourced:
        return Verdict.DENIED
    if denial.meaning is DenialClass.CONFIG and reporter.is_recovering:
        # It was given its one new token: somebody has to mend the backend first.
        return Verdict.GAVE_UP
    if state.phase is Phase.FETCHING or level(state.recovery, now.boot, policy) >= 1.0:
        return Verdict.DENIED
    return Verdict.DISPUTED if by in current.accepted else Verdict.GAVE_UP


def denied(state: State, denial: TokenDenied, now: Moment, policy: RefreshPolicy) -> tuple[State, Effects]:
    """Withhold the token from the reporter and want another one, as far as the verdict says so."""
    verdict = judge(state, denial, now, policy)
    current = state.current
    if current is None or verdict in {Verdict.SUPERSEDED, Verdict.THROTTLED, Verdict.FORBIDDEN}:
        return state, ()
    if denial.by in current.withheld or len(current.withheld) >= MAX_REPORTERS:
        return state, ()
    reporter = state.recovery.reporters.get(denial.by, Reporter())
    gives_up = verdict is not Verdict.DENIED
    heard = replace(reporter, heard=now.boot, gave_up=gives_up, told_failed=reporter.told_failed or gives_up)
    news: list[Announce] = []
    if verdict is not Verdict.DISPUTED:
        news.append(announce(state, EventKind.TOKEN_DENIED, by=denial.by, verdict=verdict))
        state = _hurry(_withhold(state, current, denial.by), now)
        wait = schedule.denial_wait_s(reporter.strikes, policy)
        if denial.meaning is DenialClass.CONFIG and gives_up:
            wait = policy.denial_refill_s
        heard = replace(heard, strikes=reporter.strikes + 1, recovers=NEVER)
        state = _want(state, now.boot + schedule.jittered_s(wait, now.jitter))
    state = _note(state, denial.by, heard)
    if gives_up and not reporter.told_failed:
        news.append(_failed(state, denial.by, verdict))
    return state, tuple(news)


def accepted(state: State, report: TokenAccepted) -> tuple[State, Effects]:
    """Note that a server accepted the current token from a reporter."""
    current, by = state.current, report.by
    if current is None or report.generation != current.generation or by in current.withheld:
        return state, ()
    reporter = state.recovery.reporters.get(by, Reporter())
    if by not in current.accepted and len(current.accepted) < MAX_REPORTERS:
        current = replace(current, accepted=current.accepted | {by})
    state = _forget(replace(state, current=current), by)
    if not reporter.is_recovering:
        return state, ()
    return state, (announce(state, EventKind.RECOVERED, by=by),)


def no_progress(state: State, now: Moment, policy: RefreshPolicy) -> tuple[State, Effects]:
    """Plan the next fetch after the source returned a token that was denied."""
    waiting = sorted(state.current.withheld) if state.current else []
    for by in waiting:
        reporter = state.recovery.reporters.get(by, Reporter())
        wait = schedule.denial_wait_s(max(reporter.strikes, 1), policy)
        state = _want(state, now.boot + schedule.jittered_s(wait, now.jitter))
        state = _note(state, by, replace(reporter, strikes=reporter.strikes + 1))
    gives_up = wanted(state.recovery, policy) > state.recovery.fetch
    news: list[Announce] = []
    for by in waiting:
        reporter = state.recovery.reporters.get(by, Reporter())
        if gives_up and not reporter.told_failed:
            news.append(_failed(state, by, Verdict.GAVE_UP))
        told_failed = reporter.told_failed or gives_up
        state = _note(state, by, replace(reporter, gave_up=gives_up, told_failed=told_failed))
    return state, tuple(news)


def progress(state: State, withheld: frozenset[str], now: Moment) -> State:
    """Start the time after which the silence of those who were refused counts as acceptance."""
    for by in sorted(withheld):
        reporter = state.recovery.reporters.get(by, Reporter())
        recovers = now.boot + schedule.RECOVERY_QUIET_S
        state = _note(state, by, replace(reporter, recovers=recovers))
    return replace(state, recovery=replace(state.recovery, fetch=NEVER))


def quiet(state: State, now: Moment) -> tuple[State, Effects]:
    """Call those recovered that were silent for long enough after a new token."""
    news: list[Announce] = []
    for by, reporter in sorted(state.recovery.reporters.items()):
        if reporter.recovers <= now.boot:
            state = _forget(state, by)
            news.append(announce(state, EventKind.RECOVERED, by=by))
    return state, tuple(news)


def level(recovery: Recovery, boot: float, policy: RefreshPolicy) -> float:
    """Return how many fetches denials may cause at *boot*."""
    return schedule.bucket_level(recovery.level, boot - recovery.level_at, policy)


def drawn(state: State, now: Moment, policy: RefreshPolicy) -> State:
    """Take one fetch out of the bucket."""
    left = level(state.recovery, now.boot, policy) - 1.0
    return replace(state, recovery=replace(state.recovery, level=left, level_at=now.boot))


def wanted(recovery: Recovery, policy: RefreshPolicy) -> float:
    """Return when denials cause the next fetch: when it is wanted and the bucket allows it."""
    if recovery.fetch == NEVER or recovery.level >= 1.0:
        return recovery.fetch
    return max(recovery.fetch, recovery.level_at + schedule.bucket_wait_s(recovery.level, policy))


def wakeup(recovery: Recovery) -> float:
    """Return when somebody's silence next counts as acceptance."""
    return min((reporter.recovers for reporter in recovery.reporters.values()), default=NEVER)


def is_denied(recovery: Recovery, fingerprint: str) -> bool:
    """Whether a server refused this token lately."""
    return fingerprint in recovery.denied


def _withhold(state: State, current: Current, by: str) -> State:
    remembered = tuple(known for known in state.recovery.denied if known != current.token.fingerprint)
    denied_now = (*remembered, current.token.fingerprint)[-MAX_DENIED:]
    return replace(
        state,
        current=replace(current, withheld=current.withheld | {by}),
        recovery=replace(state.recovery, denied=denied_now),
    )


def _want(state: State, at: float) -> State:
    if not state.sourced or state.phase is Phase.FETCHING:
        return state
    return replace(state, recovery=replace(state.recovery, fetch=min(state.recovery.fetch, at)))


def _hurry(state: State, now: Moment) -> State:
    """Return *state* with a `Retry-After` cut to what is honoured while nothing is valid."""
    return replace(state, floor=min(state.floor, now.boot + schedule.RETRY_AFTER_ABSENT_S))


def _note(state: State, by: str, reporter: Reporter) -> State:
    reporters = dict(state.recovery.reporters)
    reporters[by] = reporter
    while len(reporters) > MAX_REPORTERS:
        reporters.pop(min(reporters, key=lambda name: reporters[name].heard))
    return replace(state, recovery=replace(state.recovery, reporters=reporters))


def _forget(state: State, by: str) -> State:
    if by not in state.recovery.reporters:
        return state
    reporters = {name: known for name, known in state.recovery.reporters.items() if name != by}
    return replace(state, recovery=replace(state.recovery, reporters=reporters))


def _failed(state: State, by: str, verdict: Verdict) -> Announce:
    return announce(state, EventKind.RECOVERY_FAILED, by=by, verdict=verdict, error=state.last_error)
