"""`token-keeper login`: log in for a token whose source needs a person (RFC 8628)."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from token_keeper._errors import (
    ConfigError,
    FetchError,
    RefusedError,
    ResponseError,
    StoreError,
)
from token_keeper.cli._asking import Name
from token_keeper.cli._client import EX_PROTOCOL
from token_keeper.cli._configuration import chosen, config_option, loaded
from token_keeper.cli._extra import sidecar_extra
from token_keeper.cli._group import EXIT_INTERRUPTED, fail
from token_keeper.cli._output import printable, write_json
from token_keeper.cli._printing import say, write
from token_keeper.cli.login._browser import open_page
from token_keeper.cli.login._display import display, invitation
from token_keeper.cli.login._outcome import Outcome, as_document, as_line, outcome_of
from token_keeper.cli.login._target import Target, target_in
from token_keeper.cli.login._telling import tell_sidecar

if TYPE_CHECKING:
    from token_keeper.sources.oauth2._outcomes import DeviceCode

UNCHANGED = "nothing was changed: what was kept before still is"
PERMANENT = frozenset({"invalid_client", "unauthorized_client", "http_401", "http_403"})
"""Answers that are about the client of the configuration, not about the person."""
ENDING = (signal.SIGTERM, signal.SIGHUP)


class _EndedError(Exception):
    """A signal has ended the login."""


@click.command()
@click.argument("name", type=Name())
@config_option
@click.option("--link", type=Name(), help="Which source of a chain, if several need a login.")
@click.option("--no-browser", is_flag=True, help="Only show the address; open nothing.")
@click.option("--json", "as_json", is_flag=True, help="Write what came of it as JSON.")
def login(*, name: str, config: Path | None, link: str | None, no_browser: bool, as_json: bool) -> int:
    """Log in for the token NAME, whose source has the grant device_code.

    \b
        token-keeper login chat --config keeper.toml

    It shows a code and an address. Open the address on any device, enter the
    code, approve. The grant is then kept in the store, and a sidecar that runs
    is told. Until you have approved nothing is changed.

    Exit codes: 0 logged in, 64 wrong usage, 65 no such token or one that needs
    no login, 66 the file cannot be read, 69 without the packages of the sidecar,
    73 the grant cannot be stored, 75 nobody approved in time or the server
    cannot be reached, 76 what it answers makes no sense, 77 the login was
    denied, 78 the configuration cannot work, 130 interrupted.
    """  # noqa: D301 # click looks for the character, not for its name.
    with sidecar_extra():
        from token_keeper.sidecar._hardening import keep_memory_private  # noqa: PLC0415 # Not installed?
    keep_memory_private()
    checked = loaded(chosen(config))
    target = target_in(checked, name, link)
    outcome = _logged_in(target, wants_browser=not no_browser)
    sidecar = tell_sidecar(target, checked.config.server.socket)
    if as_json:
        write_json(as_document(outcome, sidecar))
    else:
        write(f"{as_line(outcome)}\n")
        say(sidecar.text)
    return os.EX_OK


def _logged_in(target: Target, *, wants_browser: bool) -> Outcome:
    """Have a person log in; exit with what went wrong."""
    before = target.fingerprint()
    try:
        return asyncio.run(_login(target, wants_browser=wants_browser))
    except (KeyboardInterrupt, _EndedError) as ended:
        # The answer may have come in the very moment.
        kept = before != target.fingerprint()
        state = f"you were logged in already: the grant is kept in {target.place}" if kept else UNCHANGED
        number = ended.args[0] if isinstance(ended, _EndedError) else signal.SIGINT
        fail(f"interrupted; {state}", EXIT_INTERRUPTED - signal.SIGINT + number)
    except ConfigError as wrong:
        fail(f"{target.key}.{wrong}", os.EX_CONFIG)
    except StoreError as error:
        fail(f"{printable(str(error))}; {UNCHANGED}", os.EX_CANTCREAT)
    except FetchError as error:
        fail(printable(_said(error)), _code_of(error))


async def _login(target: Target, *, wants_browser: bool) -> Outcome:
    loop = asyncio.get_running_loop()
    work = asyncio.current_task()
    came: list[int] = []

    def end(number: int) -> None:
        came.append(number)
        if work is not None:
            work.cancel()

    for number in ENDING:
        loop.add_signal_handler(number, end, number)
    try:
        with display() as shown:

            def show(code: DeviceCode) -> None:
                page = code.verification_uri_complete or code.verification_uri
                opened = open_page(page, is_wanted=wants_browser)
                shown.invite(invitation(target.name, code, opened))

            granted = await target.source.login(show)
        return outcome_of(target, granted)
    except asyncio.CancelledError:
        if came:
            raise _EndedError(came[0]) from None
        raise
    finally:
        await target.source.aclose()
        for number in ENDING:
            loop.remove_signal_handler(number)


def _said(error: FetchError) -> str:
    if isinstance(error, RefusedError) and error.reason == "access_denied":
        return f"the login was denied at the server; {UNCHANGED}. Run it again to be asked again"
    if isinstance(error, RefusedError) and error.reason in PERMANENT:
        return (
            f"the server knows this client, or lets it log in, no more ({error.reason}); {UNCHANGED}. "
            "Check client_id, client_secret and auth_method, and whether the device grant is allowed for it"
        )
    return str(error)


def _code_of(error: FetchError) -> int:
    if isinstance(error, ResponseError):
        return EX_PROTOCOL
    if not isinstance(error, RefusedError):
        return os.EX_TEMPFAIL
    return os.EX_CONFIG if error.reason in PERMANENT else os.EX_NOPERM
