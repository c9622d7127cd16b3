"""What holds for any history, whatever the backend, the servers and the clocks do."""

from __future__ import annotations

import math
from collections import deque

from helpers import DAY, HOUR, PLAIN, T0, a_token, backend
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from token_keeper._errors import FetchError, RefusedError, TransientFetchError
from token_keeper._inputs import Closed, CredentialsChanged, Fetched, FetchFailed, Input, Tick, TokenSupplied
from token_keeper._machine import next_wakeup, step
from token_keeper._model import DenialClass, EventKind, Phase, Status, Token, Verdict
from token_keeper._policy import RefreshPolicy
from token_keeper._state import MAX_DENIED, SUCCESSIONS, State
from token_keeper.testing._simulation import Simulation

REPORTERS = ("", "chat", "voice")
POLICIES = (
    RefreshPolicy(),
    PLAIN,
    RefreshPolicy(lead_ratio=0.5, jitter_ratio=0.5, jitter_max_s=DAY),
    RefreshPolicy(min_interval_s=100.0),
    RefreshPolicy(denial_bucket=1, denial_refill_s=1_000.0),
    RefreshPolicy(settle_s=10.0),
    RefreshPolicy(settle_s=10_000.0, splay=False),
    RefreshPolicy(min_interval_s=0.1, backoff_min_s=0.1, max_refresh_interval_s=600.0),
    RefreshPolicy(lead_ratio=0.0, lead_min_s=0.0, jitter_ratio=0.0),
)
LIFETIMES_S = (0.5, 2.0, 5.0, 12.0, 60.0, HOUR, 365 * DAY, None)
TINY = 1e-6
SPANS_S = st.one_of(
    st.sampled_from([0.0, TINY, 1.0, 5.0, 300.0]), st.floats(0.0, 20.0), st.floats(0.0, 600.0)
)
SETTINGS = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


class Watched(Simulation):
    """A simulation that checks each single step against a ledger of its own."""

    def __init__(self, *, policy: RefreshPolicy, seed: int, fetch_s: float, sourced: bool) -> None:
        self.answers = Answers(self)
        self.expiries: dict[str, float] = {}
        self.denials: dict[str, set[str]] = {}
        self.drawn: list[float] = []
        self.turns: deque[float] = deque(maxlen=50)
        self.seen: set[tuple[Phase, Phase]] = set()
        super().__init__(self.answers, policy=policy, seed=seed, fetch_s=fetch_s, sourced=sourced)

    def post(self, what: Input) -> None:
        before, fetched = self.state, len(self.fetches)
        self._note_expiry(what)
        super().post(what)
        self._check_succession(before)
        self._check_fetch(before, fetched)
        self._check_pace(what)
        self.check_reads()

    def deny(self, by: str = "", *, meaning: DenialClass = DenialClass.DENIED) -> Verdict:
        current = self.state.current
        verdict = super().deny(by, meaning=meaning)
        if current is not None and verdict in {Verdict.DENIED, Verdict.GAVE_UP}:
            self._note_denial(current.token.fingerprint, by)
        self.check_reads()
        return verdict

    def check_reads(self) -> None:
        for by in REPORTERS:
            token = self.usable(by)
            if token is not None:
                assert self.boot < self.expiries[token.fingerprint], "an expired token is readable"
                assert by not in self.denials.get(token.fingerprint, ()), "a denied token is readable"

    def _note_expiry(self, what: Input) -> None:
        # What counts is the wall clock at receipt, whichever way it is set later.
        current = self.state.current
        if isinstance(what, Fetched | TokenSupplied) and (current is None or current.token != what.token):
            expires_at = what.token.expires_at
            expires = math.inf if expires_at is None else self.boot + (expires_at - self.wall)
            self.expiries[what.token.fingerprint] = expires

    def _note_denial(self, fingerprint: str, by: str) -> None:
        self.denials[fingerprint] = self.denials.pop(fingerprint, set()) | {by}
        while len(self.denials) > MAX_DENIED:
            self.denials.pop(next(iter(self.denials)))

    def _check_succession(self, before: State) -> None:
        after = self.state.phase
        assert after is before.phase or after in SUCCESSIONS[before.phase]
        self.seen.add((before.phase, after))
        assert (self.state.flight is not None) == (after is Phase.FETCHING)

    def _check_fetch(self, before: State, fetched: int) -> None:
        for fetch in self.fetches[fetched:]:
            assert before.flight is None, "two fetches at once"
            assert fetch.started >= before.fetch_ended + self.policy.min_interval_s
            assert 2.0 <= fetch.timeout_s <= self.policy.fetch_timeout_s
            if self.state.recovery.level_at == self.boot and self.state.recovery.level < 1e9:
                self.drawn.append(self.boot)

    def _check_pace(self, what: Input) -> None:
        if not isinstance(what, Tick):
            return
        self.turns.append(self.boot)
        if len(self.turns) == self.turns.maxlen:
            assert self.boot - self.turns[0] >= self.policy.min_interval_s, "a hot loop"


class Answers:
    """What the backend answers next: whatever was chosen last."""

    def __init__(self, sim: Watched) -> None:
        self.sim = sim
        self.mode = "new"
        self.lifetime_s: float | None = HOUR
        self.retry_after_s = 60.0
        self.seen: list[Token] = []

    def __iter__(self) -> Answers:
        return self

    def __next__(self):
        return self.answer

    def answer(self, wall: float) -> Token | FetchError:
        match self.mode:
            case "same" if self.sim.state.current is not None:
                return self.sim.state.current.token
            case "old" if self.old() is not None:
                return self.old() or self.new(wall)
            case "down":
                return TransientFetchError("the backend is down")
            case "busy":
                return TransientFetchError("busy", retry_after=self.retry_after_s)
            case "refused":
                return RefusedError("invalid_grant")
            case "doubtful":
                return RefusedError("http_403")
            case "expired":
                return a_token(expires_at=wall - 1)
        return self.new(wall)

    def new(self, wall: float) -> Token:
        self.seen.append(a_token(expires_at=None if self.lifetime_s is None else wall + self.lifetime_s))
        return self.seen[-1]

    def old(self) -> Token | None:
        denied = self.sim.state.recovery.denied
        return next((token for token in self.seen if token.fingerprint in denied), None)


MODES = ("new", "same", "old", "down", "busy", "refused", "doubtful", "expired")
NONSENSE = (0.0, -5.0, float("nan"), float("inf"), 1e300)


class Histories(RuleBasedStateMachine):
    """Any history of a keeper with a source."""

    sourced = True

    @initialize(
        policy=st.sampled_from(POLICIES),
        seed=st.integers(0, 9),
        fetch_s=st.sampled_from([0.0, 0.5, 2.0, 10.0]),
    )
    def start(self, policy: RefreshPolicy, seed: int, fetch_s: float) -> None:
        self.sim = Watched(policy=policy, seed=seed, fetch_s=fetch_s, sourced=self.sourced)
        self.closed = False

    @rule(seconds=SPANS_S)
    def time_passes(self, seconds: float) -> None:
        self.sim.run_for(seconds)

    @precondition(lambda self: self.sim.answers.lifetime_s is None or self.sim.answers.lifetime_s >= HOUR)
    @rule(seconds=st.floats(0.0, 3 * HOUR))
    def hours_pass(self, seconds: float) -> None:
        self.sim.run_for(seconds)

    @rule()
    def time_passes_until_something_is_due(self) -> None:
        due = min(next_wakeup(self.sim.state, self.sim.policy), self.sim.boot + HOUR)
        self.sim.run_for(max(due - self.sim.boot, 0.0))

    @rule(mode=st.sampled_from(MODES), lifetime_s=st.sampled_from(LIFETIMES_S))
    def the_backend_changes(self, mode: str, lifetime_s: float | None) -> None:
        self.sim.answers.mode = mode
        self.sim.answers.lifetime_s = lifetime_s

    @rule(seconds=st.one_of(st.sampled_from(NONSENSE), st.floats(0, 2 * HOUR)))
    def the_backend_is_busy(self, seconds: float) -> None:
        self.sim.answers.mode = "busy"
        self.sim.answers.retry_after_s = seconds

    @rule(by=st.sampled_from(REPORTERS), meaning=st.sampled_from(DenialClass))
    def a_server_refuses(self, by: str, meaning: DenialClass) -> None:
        self.sim.deny(by, meaning=meaning)

    @rule(by=st.sampled_from(REPORTERS), seconds=st.floats(0.1, 100.0))
    def a_server_refuses_whatever_it_is_shown(self, by: str, seconds: float) -> None:
        for _ in range(8):
            self.sim.deny(by)
            self.sim.run_for(seconds)

    @rule(by=st.sampled_from(REPORTERS))
    def a_server_accepts(self, by: str) -> None:
        if self.sim.usable(by) is not None:
            self.sim.accept(by)

    @rule(lifetime_s=st.sampled_from(LIFETIMES_S))
    def a_token_is_handed_in(self, lifetime_s: float | None) -> None:
        self.sim.supply(a_token(expires_at=None if lifetime_s is None else self.sim.wall + lifetime_s))

    @rule(pick=st.integers(0, 99))
    def a_former_token_is_handed_in(self, pick: int) -> None:
        seen = self.sim.answers.seen
        if seen:
            self.sim.supply(seen[-1 - pick % len(seen)])

    @rule()
    def somebody_wants_a_refresh(self) -> None:
        self.sim.refresh()

    @rule(keeps=st.booleans())
    def credentials_change(self, keeps: bool) -> None:  # noqa: FBT001 - drawn by name
        self.sim.post(CredentialsChanged(keeps=keeps))

    @rule(seconds=st.floats(-2 * HOUR, 2 * HOUR))
    def the_wall_clock_is_set(self, seconds: float) -> None:
        self.sim.step_wall(seconds)

    @rule(seconds=SPANS_S)
    def the_machine_sleeps(self, seconds: float) -> None:
        self.sim.suspend(seconds)

    @precondition(lambda self: self.sim.boot > 10 * HOUR)
    @rule()
    def the_keeper_is_closed(self) -> None:
        self.sim.post(Closed())

    @invariant()
    def the_snapshot_can_be_taken_and_agrees_with_what_is_readable(self) -> None:
        if hasattr(self, "sim"):
            shown = self.sim.snapshot
            assert (shown.usable_for > 0) == (self.sim.usable() is not None)
            assert shown.next_attempt_at is None or shown.next_attempt_at >= self.sim.wall

    def teardown(self) -> None:
        if hasattr(self, "sim"):
            check_events(self.sim)
            check_bucket(self.sim)
            check_replay(self.sim)
            if self.sourced and self.sim.state.phase is not Phase.CLOSED:
                check_recovery(self.sim)


class HistoriesWithoutSource(Histories):
    """The same for a keeper that is fed by hand."""

    sourced = False

    @invariant()
    def nothing_is_fetched(self) -> None:
        assert not hasattr(self, "sim") or self.sim.fetches == []


def check_events(sim: Simulation) -> None:
    """Each generation: updated, about to expire, expired; each at most once; never about a former one."""
    rank = {
        EventKind.TOKEN_UPDATED: 0,
        EventKind.TOKEN_ABOUT_TO_EXPIRE: 1,
        EventKind.TOKEN_EXPIRED: 2,
    }
    told = [(event.generation, rank[event.kind]) for event in sim.events if event.kind in rank]
    assert told == sorted(set(told))
    assert [generation for generation, kind in told if kind == 0] == [*range(1, sim.state.generation + 1)]
    expired = {generation for generation, kind in told if kind == 2}
    assert expired <= {generation for generation, kind in told if kind == 1}
    denials = [(news.generation, news.by) for news in sim.announced if news.kind is EventKind.TOKEN_DENIED]
    assert len(denials) == len(set(denials))
    failed = sum(isinstance(what, FetchFailed) for _, what in sim.history)
    assert sim.names().count("refreshFailed") + sim.names().count("refreshRefused") <= len(sim.fetches)
    assert sim.names().count("refreshRefused") <= failed


def check_bucket(sim: Watched) -> None:
    """Denials caused at most so many fetches in any hour: 17 under the default policy."""
    most = sim.policy.denial_bucket + HOUR / sim.policy.denial_refill_s
    for start in sim.drawn:
        assert sum(start <= other <= start + HOUR for other in sim.drawn) <= most


def check_replay(sim: Simulation) -> None:
    """The history alone leads to the same state, order by order."""
    state = State(sourced=sim.state.sourced)
    for now, what in sim.history:
        state, _ = step(state, what, now, sim.policy)
    assert state == sim.state


def check_recovery(sim: Watched) -> None:
    """Once the faults stop, every reporter has a fresh token within the longest wait that there is.

    That is 15 min (a backend that refused is probed so often), or the refill of
    the bucket if denials emptied it, or five and a half minutes (`Retry-After`);
    for a token that is stale but serves, an hour and six minutes (`Retry-After`).
    """
    policy = sim.policy
    sim.answers.mode, sim.answers.lifetime_s, sim.fetch_s = "new", 100 * HOUR, 0.0
    longest = max(policy.refused_probe_max_s, policy.backoff_max_s, 2 * policy.denial_refill_s, 330.0)
    slack = policy.min_interval_s + 30.0 + 1.0
    usable_by, fresh_by = sim.boot + longest + slack, sim.boot + 3_960.0 + slack + policy.settle_s
    while not all(sim.usable(by) for by in REPORTERS):
        sim.run_for(1.0)
        assert sim.boot <= usable_by + 1.0
    while sim.snapshot.status is not Status.FRESH:
        sim.run_for(10.0)
        assert sim.boot <= fresh_by + 10.0


def test_any_history_of_a_keeper_with_a_source() -> None:
    run_state_machine_as_test(Histories, settings=SETTINGS)


def test_any_history_of_a_keeper_without_a_source() -> None:
    run_state_machine_as_test(HistoriesWithoutSource, settings=settings(SETTINGS, max_examples=20))


def test_every_phase_and_every_succession_of_the_table_is_reached() -> None:
    seen: set[tuple[Phase, Phase]] = set()
    for prepare in (
        [],
        ["new"],
        ["down", "new"],
        ["down", "down"],
        ["refused", "new"],
        ["refused", "refused"],
        ["same"],
    ):
        for act in ("close", "supply", "credentials", "wait"):
            seen |= successions_of(prepare, act)

    table = {(before, after) for before, followers in SUCCESSIONS.items() for after in followers}
    assert {(before, after) for before, after in seen if before is not after} == table


def successions_of(modes: list[str], act: str) -> set[tuple[Phase, Phase]]:
    """Return the successions seen when the fetches end as *modes* say, and then *act* happens."""
    seen: set[tuple[Phase, Phase]] = set()
    for offset_s in (0.5, 1.5):
        sim = Watched(policy=PLAIN, seed=0, fetch_s=1.0, sourced=True)
        for mode in modes:
            sim.answers.mode = mode
            sim.refresh()
            sim.run_for(2.0)
        sim.run_for(offset_s)
        match act:
            case "close":
                sim.post(Closed())
            case "supply":
                sim.supply(a_token())
            case "credentials":
                sim.post(CredentialsChanged())
        sim.run_for(5.0)
        seen |= sim.seen
    return seen


OUTAGES = st.lists(st.tuples(st.floats(0.0, 6 * HOUR), st.floats(0.0, 480.0)), max_size=4)


@given(
    outages=OUTAGES,
    every_s=st.floats(30.0, 2 * HOUR),
    seed=st.integers(0, 99),
    refused=st.booleans(),
)
@settings(SETTINGS)
def test_a_reporter_that_is_always_denied_costs_the_others_nothing(
    outages: list[tuple[float, float]], every_s: float, seed: int, *, refused: bool
) -> None:
    """Outages are at most 8 min long: shorter than the lead (12 min) less the longest wait (3 min)."""
    error = RefusedError("invalid_grant") if refused else None
    spans, last = [], T0
    for start, length in sorted(outages):
        at = max(T0 + HOUR + start, last + HOUR)
        spans.append((at, at + length))
        last = spans[-1][1]
    outcomes = backend(
        HOUR, is_up=lambda wall: not any(start <= wall < end for start, end in spans), error=error
    )
    sim = Simulation(outcomes, seed=seed)
    while sim.boot < 8 * HOUR:
        sim.run_for(every_s)
        sim.deny("bad")

    assert "tokenExpired" not in sim.names()
