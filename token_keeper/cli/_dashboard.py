"""`token-keeper dashboard`: the sidecar's page in a browser."""

from __future__ import annotations

import os
import re

import click

from token_keeper.cli._answers import document_of, problem_of
from token_keeper.cli._asking import sidecar_at, socket_option
from token_keeper.cli._client import Nonsense
from token_keeper.cli._group import fail
from token_keeper.cli._printing import say, write

REMEDY = (
    'the sidecar serves no page, since it listens on no port: add listen = "127.0.0.1:8750" under [server] '
    "in its configuration, and restart it"
)

_URL = re.compile(r"http://(?:127\.0\.0\.1|localhost|\[::1\]):[0-9]{1,5}/#(?:code=)?[A-Za-z0-9_-]{16,128}")


@click.command()
@click.option(
    "--no-browser",
    "--print",
    "is_printed",
    is_flag=True,
    help="Print the address instead of opening a browser.",
)
@socket_option
def dashboard(*, is_printed: bool, socket_path: str | None) -> int:
    """Open the sidecar's page in a browser.

    The address holds a code that works once, within 60 s. What the browser gets
    for it can read the state of the tokens, not the tokens.

    Exit codes: 0, 64 wrong usage, 69 no sidecar, 77 not allowed, 78 the
    sidecar listens on no port.
    """
    url = _new_url(socket_path)
    if is_printed:
        write(f"{url}\n")
        return os.EX_OK
    import webbrowser  # noqa: PLC0415 # Slow, and only needed here.

    if webbrowser.open(url):
        say("the page was opened in a browser")
    else:
        say("there is no browser here; open this address within 60 s:")
        write(f"{url}\n")
    return os.EX_OK


def _new_url(socket_path: str | None) -> str:
    sidecar = sidecar_at(socket_path)
    answer = sidecar.ask("POST", "/v1/dashboard/codes", {})
    if answer.status == 409:
        document = document_of(answer, sidecar.path, 409)
        if problem_of(document):
            fail(REMEDY, os.EX_CONFIG)
    url = document_of(answer, sidecar.path, 200, 201).get("url")
    if url is None:
        fail(REMEDY, os.EX_CONFIG)
    # A browser opens anything, also files: only the sidecar's page is passed on.
    if not isinstance(url, str) or _URL.fullmatch(url) is None:
        raise Nonsense(sidecar.path, "the address that it gives is not that of its page")
    return url
