"""Opens a server's page in a browser, where there is one and the page may be opened."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

OPENED: Final = "The page was opened in a browser here."
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_SCREENS: Final = ("DISPLAY", "WAYLAND_DISPLAY")
_OPENING_S: Final = 3.0
"""Longest time until a browser has to be on its way; it may take longer, behind our back."""


def open_page(url: str, *, is_wanted: bool, environ: Mapping[str, str] = os.environ) -> str:
    """Open *url* if that makes sense, and return a sentence that says what was done.

    Args:
        url: From the server, so it is not trusted to be that of a page.
        is_wanted: Whether the user lets us.
        environ: Says whether there is a screen.
    """
    if not is_wanted:
        return "No browser was opened, as you asked."
    if not _is_page(url):
        return "No browser was opened: the address is not an https:// one, so look at it first."
    if environ.get("SSH_CONNECTION"):
        return "No browser was opened: this is a session over SSH."
    if not environ.get("BROWSER") and not any(environ.get(name) for name in _SCREENS):
        return "No browser was opened: there is no screen here ($DISPLAY is not set)."
    return OPENED if _opened(url) else "No browser was opened: none was found here."


def _is_page(url: str) -> bool:
    """Whether *url* is one that a browser only shows: it opens anything, also files."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)


def _opened(url: str) -> bool:
    import webbrowser  # noqa: PLC0415 # Slow, and only needed here.

    found: list[bool] = []

    def work() -> None:
        try:
            found.append(webbrowser.open(url))
        except (webbrowser.Error, OSError):
            found.append(False)

    # Some browsers let their caller wait until they are closed: nobody may wait for this thread.
    thread = threading.Thread(target=work, name="token_keeper browser", daemon=True)
    thread.start()
    thread.join(_OPENING_S)
    return found[0] if found else True
