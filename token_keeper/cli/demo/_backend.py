"""The demo's backend: it issues access tokens over real HTTP, and misbehaves on command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from token_keeper.cli.demo._server import ACCOUNT_SID, API_KEY_SID, CONTENT_TYPE, KEY_SECRET, SERVICE_SID
from token_keeper.testing import FakeBackend, mint


@dataclass(frozen=True, slots=True)
class Doing:
    """What the backend does at the moment.

    Args:
        label: In one word.
        text: What that means.
        style: A key of `token_keeper.cli._output.STYLES`.
    """

    label: str
    text: str
    style: str


class DemoBackend:
    """Issues tokens of *lifetime_s* seconds, and says what it is doing.

    Args:
        lifetime_s: Seconds. Times in tokens are whole seconds, so they live
            up to one second less.
        repeated: Called, in another thread, when a token was answered once more.
    """

    def __init__(self, lifetime_s: float, *, repeated: Callable[[], None]) -> None:
        self._lifetime_s = lifetime_s
        self._repeated = repeated
        self._serial = 0
        self._last = ""
        self._healthy = Doing("up", f"issues tokens that live {lifetime_s:g} s", "good")
        self._server = FakeBackend(mint=self._mint, wrap=self._wrap)
        self.doing = self._healthy

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()

    @property
    def url(self) -> str:
        """Where it issues tokens."""
        return self._server.url

    def go_down(self) -> None:
        """Refuse connections until `come_back`."""
        self._server.down()
        self.doing = Doing("down", "refuses connections", "error")

    def come_back(self) -> None:
        """Listen again."""
        self._server.up()
        self.recover()

    def be_overloaded(self, retry_after_s: int) -> None:
        """Answer the next request with 503, and the one after with a web page."""
        self._server.answer(status=503, headers={"Retry-After": str(retry_after_s)})
        self._server.fail("html")
        self.doing = Doing("busy", f"answers 503, Retry-After: {retry_after_s}", "warning")

    def show_page(self) -> None:
        """Say that the web page comes next."""
        self.doing = Doing("broken", "answers 200 with a login page", "warning")

    def cache_once(self) -> None:
        """Answer the next request with the token of the last one."""
        self._server.repeat_last()
        self.doing = Doing("caching", "its next answer is the token that it issued last", "warning")

    def recover(self) -> None:
        """Say that it behaves well again."""
        self.doing = self._healthy

    def _mint(self, now: float) -> str:
        self._serial += 1
        return access_token(now, self._lifetime_s, self._serial)

    def _wrap(self, token: str) -> object:
        if token == self._last:
            self._repeated()
        self._last = token
        return {"data": {"token": token}}


def access_token(now: float, lifetime_s: float, serial: int) -> str:
    """Return an access token in the vendor's format, unlike those of other *serial*s."""
    begins = int(now)
    return mint(
        key=KEY_SECRET,
        headers={"cty": CONTENT_TYPE},
        jti=f"{API_KEY_SID}-{begins}-{serial}",
        grants={"identity": "demo", "chat": {"service_sid": SERVICE_SID}},
        iss=API_KEY_SID,
        sub=ACCOUNT_SID,
        nbf=begins,
        expires_at=begins + lifetime_s,
    )
