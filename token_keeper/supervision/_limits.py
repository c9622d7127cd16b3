"""How long a session and its supervisor wait, in seconds, and how often they try."""

from __future__ import annotations

SETTLE_S = 1.0
"""A live connection that stands so long after an update has taken the token."""
CLOSING_S = 10.0
"""How long a connection may take to close. Twilio's takes 3 s."""
UNSETTLED_S = 60.0
"""How long an SDK may go on connecting with a token that has died."""
CONNECTING_S = 3_600.0
"""How long an SDK may go on connecting with a token whose end is far, or not known."""
PATIENCE_S = 300.0
"""How long a session waits for another token before it says so."""
THROTTLED_S = 1.0
"""Shortest pause before the same token is tried again."""
CHANCES_S = (10.0, 60.0, 300.0)
"""After giving up: the pauses before everything is tried again, the last for ever."""
MAX_ROUNDS = 5
"""Connections in vain with a token that is good: after so many it says so, and goes on slowly."""
