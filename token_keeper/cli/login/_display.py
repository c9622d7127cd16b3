"""What a person sees who logs in: where to go, which code to enter, and how long that is possible.

All of it is talk, so it goes to standard error. What comes of it is a result.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self

from token_keeper.cli._output import printable, span
from token_keeper.cli._printing import say

if TYPE_CHECKING:
    from token_keeper.sources.oauth2._outcomes import DeviceCode

LONGEST: Final = 2_000
"""Most characters of what the server says that are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """What a person has to do. Its texts may be printed.

    Args:
        token: The name of the token.
        code: What to enter.
        page: Where.
        whole_page: An address that holds the code already, or None.
        browser: Whether that was opened here, and if not, why.
        expires_in: For how many seconds the code is good.
    """

    token: str
    code: str
    page: str
    whole_page: str | None
    browser: str
    expires_in: float


def invitation(token: str, code: DeviceCode, browser: str) -> Invitation:
    """Return what to show of *code*, without anything that a terminal would obey."""
    whole = code.verification_uri_complete
    return Invitation(
        token=token,
        code=printable(code.user_code[:LONGEST]),
        page=printable(code.verification_uri[:LONGEST]),
        whole_page=None if whole is None else printable(whole[:LONGEST]),
        browser=browser,
        expires_in=code.expires_in,
    )


class Display(Protocol):
    """Shows one login."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop showing that somebody is waited for."""
        ...

    def invite(self, to: Invitation) -> None:
        """Show what to do, and from then on that it is waited for."""
        ...


class Lines:
    """Shows it in plain lines, for whatever is no terminal."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def invite(self, to: Invitation) -> None:
        """As `Display`."""
        say(f"to log in for {to.token}, open {to.page} on any device")
        say(f"and enter the code {to.code}")
        if to.whole_page is not None:
            say(f"or open {to.whole_page}, which holds the code; approve only if the page shows the same one")
        say(to.browser[:1].lower() + to.browser[1:].rstrip("."))
        say(f"waiting for your approval; the code is good for {span(to.expires_in)}, until {_o_clock(to)}")


def _o_clock(to: Invitation) -> str:
    return time.strftime("%H:%M:%S", time.localtime(time.time() + to.expires_in))


def display() -> Display:
    """Return the display that fits standard error."""
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    if not is_terminal or os.environ.get("TERM") in {"", "dumb"}:
        return Lines()
    from token_keeper.cli.login._screen import Screen  # noqa: PLC0415 # Only a terminal needs it.

    return Screen()
