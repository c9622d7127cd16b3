"""paho-mqtt: a client whose password is the current token, at each connect and reconnect.

    client = KeeperClient(keeper, CallbackAPIVersion.VERSION2, username="app")
    client.connect("broker.example")
    client.loop_start()

It is a `paho.mqtt.client.Client` in all else; set its callbacks as usual. paho has no way to show a new token
on a live connection: a broker that ends it gets the new one with paho's own reconnect. MQTT 5's enhanced
authentication (AUTH) is not in paho 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.reasoncodes import ReasonCode

from token_keeper._errors import ConfigError, TokenKeeperError, TokenUnavailable
from token_keeper._face import Face
from token_keeper._model import Secret
from token_keeper._share import WAIT_S, Share
from token_keeper._waiting import check_wait

ACCEPTED = 0
DENIALS = {
    0x86: "Bad user name or password",
    0x87: "Not authorized",
    4: "Bad user name or password",
    5: "Not authorized",
}
"""Reason codes of MQTT 5, and return codes of MQTT 3."""


class NoToken(TokenUnavailable, ConnectionError):
    """There is no usable token now. To paho it is a failed connect, so a network loop tries again."""


class KeeperClient(Client):
    """A client that logs in with the current token, and reports when the broker refuses it.

    Refused, it is withheld, and paho's next attempt waits for another one. Give a network loop
    (`loop_start()`, `loop_forever()`) the connect: it tries again, where `connect()` alone does not.

    Args:
        keeper: A `TokenKeeper` or an `AsyncTokenKeeper`.
        *args: As for paho, and so are all other options.
        username: Goes with the token, which is the password.
        by: Names the reporter: a token that is denied to it is withheld from it alone.
        timeout: Seconds to wait for a token at each connect, if there is none.

    Raises:
        ConfigError: If an argument cannot work.
        TokenUnavailable: By `connect()`, if there was no token in time.
    """

    def __init__(
        self,
        keeper: Face,
        *args: Any,
        username: str = "",
        by: str = "mqtt",
        timeout: float = WAIT_S,
        **options: Any,
    ) -> None:
        # First, because paho's `__del__` needs what it makes.
        super().__init__(*args, **options)
        check_wait("timeout", timeout)
        if not isinstance(username, str):
            raise ConfigError("username", f"must be a string, but is of type {type(username).__name__}")
        self._login = _Login(Share(keeper, by), username, timeout)

    @property
    def on_pre_connect(self) -> Callable[..., None]:
        """What paho calls before each connect: it sets the password, then calls what was set here."""
        return self._log_in

    @on_pre_connect.setter
    def on_pre_connect(self, func: Callable[..., None] | None) -> None:
        self._set_own(Client.on_pre_connect, func)

    @property
    def on_connect(self) -> Callable[..., None]:
        """What paho calls with the broker's answer: it reports, then calls what was set here."""
        return self._answered

    @on_connect.setter
    def on_connect(self, func: Callable[..., None] | None) -> None:
        self._set_own(Client.on_connect, func)

    @property
    def on_disconnect(self) -> Callable[..., None]:
        """What paho calls at the end of a connection: it reports, then calls what was set here."""
        return self._ended

    @on_disconnect.setter
    def on_disconnect(self, func: Callable[..., None] | None) -> None:
        self._set_own(Client.on_disconnect, func)

    def _log_in(self, *told: Any) -> None:
        # Whatever happens below, no token of before is shown.
        self.username_pw_set(self._login.username, "")
        self.username_pw_set(self._login.username, self._login.token())
        self._call_own(Client.on_pre_connect, told)

    def _answered(self, *told: Any) -> None:
        _, _, _, reason, *_ = told
        self._login.judge(reason)
        self._call_own(Client.on_connect, told)

    def _ended(self, *told: Any) -> None:
        for reason in told:
            if isinstance(reason, ReasonCode) and reason.value in DENIALS:
                self._login.judge(reason)
        self._call_own(Client.on_disconnect, told)

    def _set_own(self, slot: Any, func: Callable[..., None] | None) -> None:
        slot.fset(self, func)

    def _call_own(self, slot: Any, told: tuple[Any, ...]) -> None:
        func = slot.fget(self)
        if func is not None:
            func(*told)


class _Login:
    """What is shown to the broker, and what it says of it."""

    def __init__(self, share: Share, username: str, timeout: float) -> None:
        self.username = username
        self._share = share
        self._timeout = timeout
        self._sent = Secret("")

    def token(self) -> str:
        """Block until there is a token, and remember it as sent."""
        self._sent = Secret("")
        try:
            raw = self._share.wait(self._timeout)
        except TokenKeeperError as error:
            raise NoToken(str(error)) from None
        self._sent = Secret(raw)
        return raw

    def judge(self, reason: ReasonCode | int) -> None:
        """Report what the code says of the token that was sent."""
        code = reason.value if isinstance(reason, ReasonCode) else reason
        if code == ACCEPTED:
            self._share.accepted(self._sent.reveal())
        elif code in DENIALS:
            self._share.denied(self._sent.reveal(), reason=DENIALS[code])
