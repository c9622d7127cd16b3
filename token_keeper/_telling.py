"""Between a kept token and the world: what came is inspected, what happened is told.

Tokens come in through `receive`, events go out through `tell`; on the way both are logged.
"""

from __future__ import annotations

from token_keeper._inputs import Announce, Fetched
from token_keeper._kept import KeptToken
from token_keeper._listeners import Listeners
from token_keeper._machine import fetch_due
from token_keeper._model import DenialClass, EventKind, Finding, Issued, Severity, Snapshot, Token, Verdict
from token_keeper._receive import receive
from token_keeper._state import NEVER
from token_keeper.inspection import Expectations, Profile
from token_keeper.logs import KeeperLog

SKEW_WARN_S = 30.0
"""A backend's clock that differs by more is worth a warning."""
SKEW_CHANGE_S = 2.0
"""A skew that differs by less from the last one is the same."""
MAX_UNKNOWN_CODES = 64
"""Unknown codes that are logged once each; more are not remembered, and not logged."""
MAX_REASON = 200

_LEVELS = {
    EventKind.TOKEN_UPDATED: "info",
    EventKind.TOKEN_ABOUT_TO_EXPIRE: "info",
    EventKind.RECOVERED: "info",
    EventKind.TOKEN_EXPIRED: "error",
    EventKind.REFRESH_REFUSED: "error",
    EventKind.RECOVERY_FAILED: "error",
}
_TRIED_AGAIN = {EventKind.REFRESH_FAILED, EventKind.REFRESH_REFUSED, EventKind.RECOVERY_FAILED}


class Teller:
    """Inspects, logs and tells for one kept token.

    Args:
        kept: The token.
        profile: The rules that a fetched token must pass.
        expect: What it must be good for.
        log: Where to log.
        listeners: Whom to tell.
    """

    def __init__(
        self, kept: KeptToken, profile: Profile, expect: Expectations, log: KeeperLog, listeners: Listeners
    ) -> None:
        self._kept = kept
        self._profile = profile
        self._expect = expect
        self._log = log
        self._listeners = listeners
        self._skew_s = 0.0
        self._warned: frozenset[str] = frozenset()
        self._unknown: set[str] = set()
        self._last_code: int | str | None = None
        self._last_reason: str | None = None

    def judge_by(self, profile: Profile, expect: Expectations) -> bool:
        """Use other rules from now on. Returns whether the current token passes them."""
        self._profile, self._expect = profile, expect
        current = self._kept.state.current
        if current is None:
            return True
        wall = self._kept.moment().wall + current.skew_s
        return profile.inspect(current.token.secret, now=wall, expectations=expect).valid

    def receive(self, fetch_id: int, issued: Issued) -> Fetched:
        """Inspect what a source issued. Raises `ResponseError` if it cannot work."""
        received = receive(issued, profile=self._profile, expect=self._expect, wall=self._kept.moment().wall)
        self._note_skew(received.skew_s)
        self._note_warnings(received.findings)
        return Fetched(fetch_id, received.token, received.skew_s)

    def tell(self, told: Announce) -> None:
        """Log an event and pass it on to the listeners."""
        diagnosis = self._diagnosis() if told.kind is EventKind.RECOVERY_FAILED else ()
        now = self._kept.moment()
        event = told.event(name=self._kept.name, at=now.wall, diagnosis=diagnosis)
        values: dict[str, object] = {"generation": event.generation, "fingerprint": event.fingerprint}
        current = self._kept.state.current
        if current is not None and current.expires != NEVER:
            values["expires_in"] = round(current.remaining_s(now.boot), 1)
        if event.failures:
            values["failures"] = event.failures
        if event.kind in _TRIED_AGAIN and (due := fetch_due(self._kept.state, self._kept.policy)) != NEVER:
            values["next_attempt_in"] = round(max(due - now.boot, 0.0), 1)
        values |= {"error": event.error, "verdict": event.verdict, "by": told.by or None}
        values["diagnosis"] = "; ".join(diagnosis) or None
        log = getattr(self._log, _LEVELS.get(event.kind, "warning"))
        log(str(event.kind), **{key: value for key, value in values.items() if value is not None})
        self._listeners.post(event)

    def meaning_of(self, code: int | str | None, reason: str | None, current: Token | None) -> DenialClass:
        """Say what a server's refusal means, by the profile's catalogue."""
        if code is None and reason is not None and self._profile.knows(reason):
            code = reason
        self._last_code, self._last_reason = code, reason
        if not self._profile.knows(code):
            self._note_unknown(code)
        if current is None or code is None:
            return self._profile.classify(code)
        inspection = self._profile.inspect(
            current.secret, now=self._kept.moment().wall, expectations=self._expect
        )
        return self._profile.classify(code, inspection)

    def denial(
        self, verdict: Verdict, snapshot: Snapshot, *, by: str, code: int | str | None, reason: str | None
    ) -> None:
        """Note how a denial was judged."""
        log = self._log.debug if verdict is Verdict.SUPERSEDED else self._log.info
        values = {"by": by, "code": code, "reason": reason[:MAX_REASON] if reason else None}
        said = {key: value for key, value in values.items() if value not in {None, ""}}
        log("denialReported", verdict=str(verdict), generation=snapshot.generation, **said)

    def _diagnosis(self) -> tuple[str, ...]:
        current = self._kept.state.current
        if current is None:
            return ()
        inspection = self._profile.inspect(
            current.token.secret, now=self._kept.moment().wall + current.skew_s, expectations=self._expect
        )
        return self._profile.diagnose(inspection, self._last_code, self._last_reason)

    def _note_skew(self, skew_s: float) -> None:
        changed = abs(skew_s - self._skew_s) > SKEW_CHANGE_S
        if changed and abs(skew_s) > SKEW_WARN_S:
            self._log.warning(
                "clockSkewed",
                backend_ahead_s=round(skew_s, 1),
                advice="set the clocks; it is corrected meanwhile",
            )
        if changed:
            self._skew_s = skew_s

    def _note_warnings(self, findings: tuple[Finding, ...]) -> None:
        warnings = {finding.code: finding for finding in findings if finding.severity is Severity.WARNING}
        for code in sorted(warnings.keys() - self._warned):
            self._log.warning(
                "tokenUnwise", finding=code, message=warnings[code].message, hint=warnings[code].hint
            )
        self._warned = frozenset(warnings)

    def _note_unknown(self, code: int | str | None) -> None:
        shown = str(code)[:64]
        if shown not in self._unknown and len(self._unknown) < MAX_UNKNOWN_CODES:
            self._unknown.add(shown)
            self._log.warning("codeUnknown", code=shown, handled_as="denied")
