"""confluent-kafka: settings for SASL/OAUTHBEARER.

    producer = Producer({"bootstrap.servers": ..., "security.protocol": "SASL_SSL", **oauthbearer(keeper)})

The settings are `sasl.mechanisms`, `oauth_cb` and `error_cb`. A broker that ends its sessions (KIP-368) is
shown the current token on the live connection. librdkafka tells of a refused token by `error_cb`, while the
application polls, but not of which one; it shows the next one within `check_every`.
Needs confluent-kafka 2.12.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from confluent_kafka import KafkaError

from token_keeper._errors import ConfigError, TokenKeeperError
from token_keeper._face import Face
from token_keeper._model import Secret
from token_keeper._share import Share
from token_keeper._waiting import check_wait

DENIALS = {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED}  # noqa: SLF001 - its only name
WAIT_S = 5.0
"""A constructor gives up after 10 s."""
CHECK_EVERY_S = 2.0
ASKED_AT = 0.8
"""librdkafka asks again when this part of the lifetime that it was told has passed."""
SETTLED_S = 1.0
"""An error may be of a login that began before the latest token was there, and waits until somebody polls."""
NOTHING = "none"
"""Shown while there is no token: to raise would fail the constructor, after 10 s."""


def oauthbearer(  # noqa: PLR0913 - each is a setting, and all have a default
    keeper: Face,
    *,
    by: str = "kafka",
    timeout: float = WAIT_S,
    check_every: float = CHECK_EVERY_S,
    principal: str = "",
    extensions: Mapping[str, str] | None = None,
    error_cb: Callable[[Any], object] | None = None,
) -> dict[str, Any]:
    """Return the settings with which a client shows the current token.

    Without a token the client is made all the same, and the brokers refuse it until there is one.

    Args:
        keeper: A `TokenKeeper` or an `AsyncTokenKeeper`.
        by: Names the reporter: a token that is denied to it is withheld from it alone.
        timeout: Seconds to wait for a token, if there is none. librdkafka's thread waits.
        check_every: Seconds between librdkafka's questions for the current token: how long
            after a renewal or a denial it still shows the one of before. It costs one read.
        principal: Of the token; brokers ignore it.
        extensions: SASL extensions, such as ``{"logicalCluster": "lkc-1"}``.
        error_cb: Called with each error, as confluent-kafka's own.

    Raises:
        ConfigError: If an argument cannot work.
    """
    check_wait("timeout", timeout)
    if not isinstance(check_every, int | float) or not 0.5 <= check_every <= 3600:
        raise ConfigError("check_every", "must be 0.5 to 3600 seconds")
    shown = _Shown(Share(keeper, by), timeout, check_every / ASKED_AT)

    def oauth_cb(_: str) -> tuple[str, float, str, dict[str, str]]:
        raw, until = shown.token()
        return raw, until, principal, dict(extensions or {})

    def failed(error: Any) -> None:
        if error.code() in DENIALS:
            shown.denied(error.str())
        if error_cb is not None:
            error_cb(error)

    return {"sasl.mechanisms": "OAUTHBEARER", "oauth_cb": oauth_cb, "error_cb": failed}


class _Shown:
    """What librdkafka was given last. It asks in its own thread, and tells in those that poll."""

    def __init__(self, share: Share, timeout: float, lifetime_s: float) -> None:
        self._share = share
        self._timeout = timeout
        self._lifetime_s = lifetime_s
        self._last = Secret("")
        self._settled_at = 0.0

    def token(self) -> tuple[str, float]:
        """Return the token, and until when librdkafka may keep it, in Unix seconds."""
        raw = NOTHING
        with suppress(TokenKeeperError):
            raw = self._share.wait(self._timeout)
        given = Secret(raw)
        if given != self._last:
            # Nothing can be said of the very first by mistake.
            self._settled_at = time.monotonic() + SETTLED_S if self._last.reveal() else 0.0
            self._last = given
        # The token's own expiry would be too far off to notice a denial, or too near to be accepted.
        return raw, time.time() + self._lifetime_s

    def denied(self, reason: str) -> None:
        """Report that the token that was given last was refused."""
        last = self._last.reveal()
        if last not in {"", NOTHING} and time.monotonic() >= self._settled_at:
            self._share.denied(last, reason=reason)
