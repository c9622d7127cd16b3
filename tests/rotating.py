"""A token endpoint whose refresh tokens rotate, as a model: its clock is told, its answers can be lost."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from token_keeper._errors import RefusedError, ResponseError, TransientFetchError
from token_keeper._model import Issued, Secret
from token_keeper.sources.oauth2._lineage import Lineage
from token_keeper.sources.oauth2._outcomes import Delivery, Granted, NotGranted, Outcome
from token_keeper.sources.oauth2._posting import Fields
from token_keeper.sources.oauth2._rotating import RotatingGrant
from token_keeper.sources.oauth2._rotation import ReplayRule, Terms
from token_keeper.store import Lease, MemoryStore, Record, Slot, Store
from token_keeper.testing import mint

T0 = 1_700_000_000.0
OWNER = "https://as.example client"
TERMS = Terms(owner=OWNER, asked="scope")
LIFE_S = 3_600.0


class Crash(BaseException):
    """The process died here."""


class Fault(Enum):
    """What goes wrong with one request."""

    NOT_SENT = "no connection"
    LOST_BEFORE = "cut before the server acted"
    LOST_AFTER = "cut after the server acted"
    BUSY = "503"
    BROKEN = "500 after the server acted"
    UNREADABLE = "no access token that can be read"
    DIES_BEFORE = "the process dies before the server acted"
    DIES_AFTER = "the process dies after the server acted"


@dataclass
class Log:
    """Takes what is logged."""

    lines: list[tuple[str, Mapping[str, object]]] = field(default_factory=list)

    def warning(self, event: str, **said: object) -> None:
        self.lines.append((event, said))


class RotatingServer:
    """Issues a new refresh token for each, and takes a used one for stolen, but for a grace time."""

    def __init__(self, wall: Callable[[], float], *, grace_s: float = 60.0, grace_uses: int = 1) -> None:
        self.wall = wall
        self.grace_s = grace_s
        self.grace_uses = grace_uses
        self.faults: deque[Fault | None] = deque()
        self.requests: list[str] = []
        self.reuses = 0
        self.is_revoked = False
        self._serial = itertools.count(1)
        self._current = {self._new()}
        self._used: dict[str, tuple[float, int]] = {}

    def first(self) -> Secret:
        """Return the refresh token of the login."""
        (raw,) = self._current
        return Secret(raw)

    async def exchange(self, fields: Fields) -> Outcome:
        fault = self.faults.popleft() if self.faults else None
        if fault is Fault.NOT_SENT:
            return self._failed(Delivery.NEVER_SENT)
        sent = fields["refresh_token"]
        assert isinstance(sent, Secret)
        self.requests.append(sent.reveal())
        if fault is Fault.BUSY:
            return self._failed(Delivery.ANSWERED)
        if fault is Fault.LOST_BEFORE:
            return self._failed(Delivery.LOST)
        if fault is Fault.DIES_BEFORE:
            raise Crash
        outcome = self._answer(sent.reveal())
        if fault is Fault.DIES_AFTER:
            raise Crash
        if fault is Fault.UNREADABLE and isinstance(outcome, Granted):
            error = ResponseError("no token")
            return NotGranted(error=error, delivery=Delivery.ANSWERED, refresh_token=outcome.refresh_token)
        if fault in {Fault.LOST_AFTER, Fault.BROKEN}:
            return self._failed(Delivery.LOST)
        return outcome

    def _answer(self, raw: str) -> Outcome:
        now = self.wall()
        if raw in self._used:
            since, times = self._used[raw]
            if now - since > self.grace_s or times > self.grace_uses:
                self.reuses += 1
                self.is_revoked = True
            else:
                self._used[raw] = since, times + 1
        elif raw in self._current:
            self._used[raw] = now, 1
            self._current.discard(raw)
        else:
            return self._refused()
        if self.is_revoked:
            return self._refused()
        new = self._new()
        self._current.add(new)
        token = mint(expires_at=now + LIFE_S, issued_at=now, jti=str(next(self._serial)))
        return Granted(issued=Issued(secret=Secret(token)), refresh_token=Secret(new))

    def _new(self) -> str:
        return f"refresh-{next(self._serial)}"

    def _failed(self, delivery: Delivery) -> NotGranted:
        return NotGranted(error=TransientFetchError(delivery.value), delivery=delivery)

    def _refused(self) -> NotGranted:
        return NotGranted(
            error=RefusedError("invalid_grant"), delivery=Delivery.ANSWERED, code="invalid_grant"
        )


@dataclass
class World:
    """A server, a store, and the processes that use both."""

    now: float = T0
    server: RotatingServer = field(init=False)
    store: Store = field(default_factory=MemoryStore)
    log: Log = field(default_factory=Log)
    rule: ReplayRule = field(default_factory=lambda: ReplayRule(window_s=30.0, limit=1))
    seed: Secret | None = field(init=False)

    def __post_init__(self) -> None:
        self.server = RotatingServer(self.wall)
        self.seed = self.server.first()

    def wall(self) -> float:
        return self.now

    @property
    def slot(self) -> Slot:
        return self.store.slot("chat")

    def record(self) -> Record:
        record = self.slot.read()
        assert record is not None
        return record

    def process(self, slot: Slot | None = None) -> Lineage:
        """Return what a process that has just started knows."""

        async def seed() -> Secret | None:
            return self.seed

        async def extra() -> Fields:
            return {}

        renewal = RotatingGrant(
            self.server,
            terms=TERMS,
            seed=seed,
            extra=extra,
            rule=self.rule,
            needs="run token-keeper login",
            log=self.log,
            wall=self.wall,
        )
        return Lineage(slot=slot or self.slot, terms=TERMS, renewal=renewal, wall=self.wall)


class FaultySlot:
    """A slot whose disk fails, or whose process dies, at the n-th write."""

    def __init__(self, slot: Slot, **at: BaseException) -> None:
        self._slot = slot
        self._at = at
        self.place, self.path = slot.place, slot.path
        self.writes = 0

    def read(self) -> Record | None:
        return self._slot.read()

    def holder(self) -> str:
        return self._slot.holder()

    def try_lease(self) -> Lease | None:
        lease = self._slot.try_lease()
        return None if lease is None else _FaultyLease(self, lease)  # type: ignore[return-value]

    def happens(self, what: str) -> None:
        self.writes += what == "write"
        error = self._at.pop(f"{what}{self.writes}", None)
        if error is not None:
            raise error


class _FaultyLease:
    def __init__(self, slot: FaultySlot, lease: Lease) -> None:
        self._slot = slot
        self._lease = lease

    def __getattr__(self, name: str) -> object:
        return getattr(self._lease, name)

    def write(self, record: Record) -> None:
        self._slot.happens("write")
        self._lease.write(record)
        self._slot.happens("wrote")
