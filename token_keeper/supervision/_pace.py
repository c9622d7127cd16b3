"""How fast the sessions of one account may connect: servers count attempts by account, not by session."""

from __future__ import annotations

from dataclasses import dataclass, replace

GAP_S = 0.1
"""Between any two attempts of one account."""
BACKOFF_MIN_S = 1.0
BACKOFF_MAX_S = 120.0
"""Twilio's own client waits no longer, either."""
MAX_DOUBLINGS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """When an account may make its next connection.

    Args:
        clear: From when on, on the boot clock.
        failures: Attempts in vain since the last success.
    """

    clear: float = 0.0
    failures: int = 0

    def attempted(self, boot: float) -> Pace:
        """Return the pace after an attempt began."""
        return replace(self, clear=max(self.clear, boot + GAP_S))

    def failed(self, boot: float, jitter: float) -> Pace:
        """Return the pace after an attempt in vain, or a server that asks for patience.

        Args:
            boot: Now.
            jitter: Drawn from 0 to 1.
        """
        # The exponent is capped before the power: 2.0 ** 2000 overflows.
        nominal = BACKOFF_MIN_S * 2.0 ** min(self.failures, MAX_DOUBLINGS)
        wait = min(nominal, BACKOFF_MAX_S) * (0.5 + jitter / 2)
        return Pace(clear=max(self.clear, boot + wait), failures=self.failures + 1)

    def succeeded(self) -> Pace:
        """Return the pace after a connection was accepted."""
        return replace(self, failures=0)
