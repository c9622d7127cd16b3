"""When things are due: one small pure function for each rule of the schedule.

All lengths are seconds. A *draw* is a number from 0 to 1 that the driver drew
at random; the functions only say what it decides. What the machine does with
these numbers is in `_machine.py`.
"""

from __future__ import annotations

import math

from token_keeper._policy import RefreshPolicy

WARNING_LEAD_S = 180.0
"""Lead of `tokenAboutToExpire` for a keeper without a source (as Twilio's AccessManager)."""
SPLAY_FROM = 0.1
"""Share of its lifetime before which a token is not refreshed."""
FETCH_TIMEOUT_MIN_S = 2.0
"""No fetch is given less: a connection and its TLS take that long on a bad day."""
NO_EXPIRY_REFRESH_S = 3_600.0
"""How often a token without a known expiry is refreshed."""
ATTEMPTS_BEFORE_EXPIRY = 6
"""One wait or one fetch takes at most the time left divided by this: so several fit."""
ABSENT_PART = 4
"""Without a token, a wait is the time since the first failure divided by this."""
RETRY_AFTER_ABSENT_S = 300.0
"""Longest `Retry-After` that is honoured while no token is valid."""
RETRY_AFTER_JITTER = 0.1
REFUSED_FIRST_PROBE_S = 15.0
REFUSED_PROBES_WHILE_VALID = 3
REFUSED_CONFIRM_S = 5.0
"""Least time between two refusals without an error code that count as one permanent answer."""
UNCHANGED_MIN_S = 5.0
UNCHANGED_MAX_S = 600.0
UNCHANGED_AFTER_EXPIRY_S = 0.5
WINDOW_MIN_S = 30.0
"""A source that renews late is asked this long before the expiry at the latest."""
RECOVERY_QUIET_S = 300.0
"""A reporter that denies nothing for this long after a new token has recovered."""
JUMP_S = 2.0
"""A clock that differs from another by more than this has jumped."""
MAX_EXPONENT = 30
# The exponent is capped before the power: 2.0 ** 2000 overflows.


def lead_s(lifetime_s: float, policy: RefreshPolicy) -> float:
    """Return how long before its expiry a token is refreshed.

    A share of the lifetime within bounds, but never over half of it.
    """
    share = policy.lead_ratio * lifetime_s
    return min(_clamp(share, policy.lead_min_s, policy.lead_max_s), lifetime_s / 2)


def warning_lead_s(lifetime_s: float) -> float:
    """Return how long before its expiry a token is announced that nobody refreshes."""
    return min(WARNING_LEAD_S, lifetime_s / 2)


def jitter_s(lifetime_s: float, draw: float, policy: RefreshPolicy) -> float:
    """Return by how much earlier still this token is refreshed; drawn once per token."""
    return draw * min(policy.jitter_ratio * lifetime_s, policy.jitter_max_s)


def stale_after_s(lifetime_s: float, draw: float, policy: RefreshPolicy) -> float:
    """Return how long after its receipt a token's refresh is due."""
    due = lifetime_s - lead_s(lifetime_s, policy) - jitter_s(lifetime_s, draw, policy)
    return max(due, 0.0)


def stale_in_window_s(lifetime_s: float, window_s: float, draw: float, policy: RefreshPolicy) -> float:
    """Return the same for a source that renews only in the last *window_s* of a token's life.

    Asking earlier brings the same token again, so jitter moves the refresh
    later within the window, but at least 30 s (or half of the lifetime)
    before the expiry.
    """
    latest = min(WINDOW_MIN_S, lifetime_s / 2)
    lead = _clamp(window_s, latest, max(lead_s(lifetime_s, policy), latest))
    return lifetime_s - lead + min(jitter_s(lifetime_s, draw, policy), lead - latest)


def splay_after_s(lifetime_s: float, stale_after: float, draw: float) -> float:
    """Return how long after its receipt a token of a fleet that started together is refreshed."""
    earliest = min(SPLAY_FROM * lifetime_s, stale_after)
    return earliest + draw * (stale_after - earliest)


def longest_refresh_s(draw: float, policy: RefreshPolicy) -> float:
    """Return after how long a token is refreshed although it lives longer."""
    return policy.max_refresh_interval_s * (1.0 - policy.jitter_ratio * draw)


def jittered_s(wait_s: float, draw: float) -> float:
    """Return between half and all of *wait_s*."""
    return wait_s * (0.5 + 0.5 * draw)


def backoff_s(failures: int, span_s: float, policy: RefreshPolicy) -> float:
    """Return the wait after a failed fetch while the token is valid.

    Args:
        failures: Failed fetches in a row, 1 or more.
        span_s: From when the refresh came due to the expiry; fixed for the row.
        policy: Gives the first and the longest wait.
    """
    doubled = policy.backoff_min_s * 2.0 ** min(failures - 1, MAX_EXPONENT)
    return min(doubled, span_s / ATTEMPTS_BEFORE_EXPIRY, policy.backoff_max_s)


def absent_backoff_s(since_first_failure_s: float, policy: RefreshPolicy) -> float:
    """Return the wait after a failed fetch while no token is valid."""
    return _clamp(since_first_failure_s / ABSENT_PART, policy.backoff_min_s, policy.backoff_max_s)


def retry_after_s(asked_s: float | None, remaining_s: float, policy: RefreshPolicy) -> float:
    """Return how much of a `Retry-After` is honoured; 0 for none or nonsense.

    Args:
        asked_s: What the backend asked for.
        remaining_s: Remaining validity of the current token, 0 if it is not valid.
        policy: Gives the longest wait.
    """
    if asked_s is None or not math.isfinite(asked_s) or asked_s <= 0:
        return 0.0
    bound = remaining_s / 2 if remaining_s > 0 else RETRY_AFTER_ABSENT_S
    return min(asked_s, policy.retry_after_max_s, bound)


def retry_after_jittered_s(wait_s: float, draw: float) -> float:
    """Return *wait_s* or up to a tenth more: a `Retry-After` is a lower bound."""
    return wait_s * (1.0 + RETRY_AFTER_JITTER * draw)


def refused_probe_s(since_first_refusal_s: float, validity_s: float, policy: RefreshPolicy) -> float:
    """Return the wait before the next probe of a backend that refuses.

    Args:
        since_first_refusal_s: 0 at the first refusal.
        validity_s: Validity that the token had at the first refusal; 0 if it has run out.
        policy: Gives the longest wait.
    """
    nominal = since_first_refusal_s / 2 if since_first_refusal_s > 0 else REFUSED_FIRST_PROBE_S
    if validity_s > 0:
        # One more than must fit: the last of four would come with the expiry.
        nominal = min(nominal, validity_s / (REFUSED_PROBES_WHILE_VALID + 1))
    return _clamp(nominal, policy.min_interval_s, max(policy.refused_probe_max_s, policy.min_interval_s))


def unchanged_wait_s(remaining_s: float) -> float:
    """Return when to ask again a source that returned the current, stale token."""
    wait = _clamp(remaining_s / 3, UNCHANGED_MIN_S, UNCHANGED_MAX_S)
    return min(wait, remaining_s + UNCHANGED_AFTER_EXPIRY_S)


def denial_wait_s(strikes: int, policy: RefreshPolicy) -> float:
    """Return the wait before a fetch that a denial causes: 0, then 1 s, doubling.

    Args:
        strikes: Tokens that this reporter was given in vain.
        policy: The refill time of the bucket bounds the wait.
    """
    if strikes <= 0:
        return 0.0
    return min(2.0 ** min(strikes - 1, MAX_EXPONENT), policy.denial_refill_s)


def bucket_level(level: float, elapsed_s: float, policy: RefreshPolicy) -> float:
    """Return how many fetches denials may cause, *elapsed_s* after there were *level*."""
    return min(level + max(elapsed_s, 0.0) / policy.denial_refill_s, float(policy.denial_bucket))


def bucket_wait_s(level: float, policy: RefreshPolicy) -> float:
    """Return how long until denials may cause a fetch."""
    return max(1.0 - level, 0.0) * policy.denial_refill_s


def settle_s(remaining_s: float, policy: RefreshPolicy) -> float:
    """Return how much later a token replaces a valid one that has *remaining_s* left.

    Never so late that the old one expires first.
    """
    return min(policy.settle_s, remaining_s / 2)


def fetch_timeout_s(remaining_s: float, policy: RefreshPolicy) -> float:
    """Return how long one fetch may take: a sixth of what remains, within bounds."""
    if remaining_s <= 0:
        return policy.fetch_timeout_s
    return _clamp(remaining_s / ATTEMPTS_BEFORE_EXPIRY, FETCH_TIMEOUT_MIN_S, policy.fetch_timeout_s)


def has_jumped(by_s: float) -> bool:
    """Whether one clock moved against another by more than clocks drift."""
    return abs(by_s) > JUMP_S


def _clamp(value: float, low: float, high: float) -> float:
    return max(low, min(value, high))
