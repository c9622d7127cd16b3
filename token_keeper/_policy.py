"""Every number that a user may set about when tokens are refreshed."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from token_keeper._errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshPolicy:
    """When to refresh. The defaults suit tokens of 5 min to 24 h.

        RefreshPolicy(lead_ratio=0.5, splay=False)

    The formulas are in `token_keeper._schedule`, one function each.

    Args:
        lead_ratio: Share of a token's lifetime, 0 to 0.5, by which its refresh
            comes before its expiry.
        lead_min_s: Least lead, in seconds. Half of the lifetime bounds it.
        lead_max_s: Largest lead, in seconds.
        jitter_ratio: Share of the lifetime, 0 to 0.5, by which a refresh may come earlier still.
        jitter_max_s: Largest jitter, in seconds.
        splay: Spread the first refresh after a start or a recovery over the
            token's life, so that a fleet does not refresh in step.
        min_interval_s: Least time between the end of a fetch and the next start, in seconds.
        backoff_min_s: First wait after a failed fetch, in seconds.
        backoff_max_s: Longest wait after a failed fetch, in seconds.
        fetch_timeout_s: Longest time for one fetch with all its tries, 2 s or more.
        retry_after_max_s: Longest `Retry-After` that is honoured, in seconds.
        refused_probe_max_s: Longest wait between probes of a backend that refuses, in seconds.
        denial_bucket: Fetches that denials may cause at once, 1 or more.
        denial_refill_s: Seconds after which denials may cause one more.
        settle_s: Seconds to wait before a fetched token replaces a valid one.
        max_refresh_interval_s: Longest time without a refresh, in seconds, however long a token lives.

    Raises:
        ConfigError: If a number is out of its range.
    """

    lead_ratio: float = 0.2
    lead_min_s: float = 30.0
    lead_max_s: float = 21_600.0
    jitter_ratio: float = 0.1
    jitter_max_s: float = 300.0
    splay: bool = True
    min_interval_s: float = 1.0
    backoff_min_s: float = 1.0
    backoff_max_s: float = 300.0
    fetch_timeout_s: float = 30.0
    retry_after_max_s: float = 3_600.0
    refused_probe_max_s: float = 900.0
    denial_bucket: int = 5
    denial_refill_s: float = 300.0
    settle_s: float = 0.0
    max_refresh_interval_s: float = 86_400.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            low, high = _RANGES.get(field.name, (0.0, math.inf))
            if field.name == "splay":
                if not isinstance(value, bool):
                    raise ConfigError("splay", "must be True or False")
            elif isinstance(value, bool) or not isinstance(value, int | float):
                raise ConfigError(field.name, "must be a number")
            elif not low <= value <= high or value >= math.inf:
                raise ConfigError(field.name, f"must be a finite number, {_words(low, high)}")
        if not isinstance(self.denial_bucket, int):
            raise ConfigError("denial_bucket", "must be a whole number")
        if self.backoff_max_s < self.backoff_min_s:
            raise ConfigError("backoff_max_s", "must not be less than backoff_min_s")


def _words(low: float, high: float) -> str:
    return f"{low:g} or more" if math.isinf(high) else f"from {low:g} to {high:g}"


_RANGES = {
    "lead_ratio": (0.0, 0.5),
    "jitter_ratio": (0.0, 0.5),
    # A floor that no setting can remove: at most one fetch in a tenth of a second.
    "min_interval_s": (0.1, math.inf),
    "backoff_min_s": (0.1, math.inf),
    "backoff_max_s": (0.1, math.inf),
    "fetch_timeout_s": (2.0, math.inf),
    "refused_probe_max_s": (1.0, math.inf),
    "denial_bucket": (1, 1_000),
    "denial_refill_s": (1.0, math.inf),
    "max_refresh_interval_s": (1.0, math.inf),
}


DEFAULT_POLICY = RefreshPolicy()
"""What keepers use if nobody says otherwise."""
