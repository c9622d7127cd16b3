"""`token-keeper inspect`: what a token is, and whether it can work."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace

import click

from token_keeper._finding import Severity
from token_keeper.cli._group import SafeUsageError
from token_keeper.cli._input import EXPECTABLE, Seconds, expectations, instant, read_secret, read_value
from token_keeper.cli._output import Row, Section, span, write_json, write_page
from token_keeper.profiles import Inspection, profile_named

PRODUCTS = click.Choice(["chat", "sync", "voice", "video"])
TIMES = ("iat", "nbf", "exp")


@click.command()
@click.argument("token", default="-", metavar="[TOKEN|-]")
@click.option(
    "--profile",
    type=click.Choice(["twilio", "jwt", "opaque", "auto"]),
    default="twilio",
    show_default=True,
    help="The rules to apply.",
)
@click.option(
    "--for", "products", type=PRODUCTS, multiple=True, help="A product that the token must be good for."
)
@click.option(
    "--expect", multiple=True, metavar="KEY=VALUE", help=f"What it must hold: {', '.join(EXPECTABLE)}."
)
@click.option(
    "--secret-file", metavar="FILE", help="The secret, public key or JWKS that checks the signature."
)
@click.option("--jwks-url", metavar="URL", help="Where to fetch the JWKS that checks the signature.")
@click.option(
    "--now", type=Seconds(), metavar="UNIX_SECONDS", help="The time to judge by, instead of the present."
)
@click.option(
    "--leeway", type=Seconds(0), default=0, metavar="SECONDS", help="Tolerance for clocks that differ."
)
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def inspect(  # noqa: PLR0913 # One per option.
    *,
    token: str,
    profile: str,
    products: tuple[str, ...],
    expect: tuple[str, ...],
    secret_file: str | None,
    jwks_url: str | None,
    now: float | None,
    leeway: float,
    as_json: bool,
) -> int:
    """Say what a token is, and whether it can work.

    Reads the token from standard input. As an argument it would be seen by
    everybody who lists the processes of this machine.

    \b
        token-keeper inspect < token
        token-keeper inspect --for chat --expect identity=alice < token

    The secret that checks the signature is read from --secret-file or
    $TOKEN_KEEPER_SECRET. Neither the token nor its signature is printed.

    Exit codes: 0 no errors, 65 errors, 64 wrong usage, 66 a file cannot be read.
    """  # noqa: D301 # click looks for the character, not for its name.
    expected = expectations(products, expect)
    if expected and not profile_named(profile).expects:
        raise SafeUsageError("--for and --expect need --profile twilio", click.get_current_context())
    key = _fetched(jwks_url) if jwks_url else read_secret(secret_file)
    value = read_value(token)
    at = instant(now)
    inspection = replace(
        profile_named(profile).inspect(
            value.secret, now=at, expectations=expected, secret=key, leeway=leeway
        ),
        fingerprint=value.fingerprint,
    )
    if as_json:
        write_json(as_document(inspection, now=at))
    else:
        write_page(as_page(inspection, now=at))
    return os.EX_OK if inspection.valid else os.EX_DATAERR


def _fetched(url: str) -> Mapping[str, object]:
    from token_keeper.cli._keys import fetch_keys  # noqa: PLC0415 # Slow, and rarely needed.

    return fetch_keys(url)


def as_document(inspection: Inspection, *, now: float) -> Mapping[str, object]:
    """Return the form that programs read."""
    expires_at = inspection.expires_at
    return {
        "profile": inspection.profile,
        "valid": inspection.valid,
        "fingerprint": inspection.fingerprint,
        "header": inspection.header,
        "claims": inspection.claims,
        "expires_at": expires_at,
        "expires_in": None if expires_at is None else round(expires_at - now, 3),
        "findings": [
            {
                "code": finding.code,
                "severity": finding.severity.value,
                "message": finding.message,
                "hint": finding.hint,
            }
            for finding in inspection.findings
        ],
    }


def as_page(inspection: Inspection, *, now: float) -> Iterator[Section]:
    """Yield the form that people read."""
    yield _verdict(inspection, now=now)
    if inspection.findings:
        yield Section(
            heading="Findings",
            rows=[
                Row(
                    label=finding.code,
                    text=f"{finding.severity}: {finding.message}",
                    notes=(f"-> {finding.hint}",) if finding.hint else (),
                    style=finding.severity.value,
                )
                for finding in sorted(
                    inspection.findings, key=lambda each: list(Severity).index(each.severity)
                )
            ],
        )
    if inspection.header is not None and inspection.claims is not None:
        yield Section(heading="Header", rows=list(_fields("", inspection.header, now=now)))
        yield Section(heading="Claims", rows=list(_fields("", inspection.claims, now=now)))


def _verdict(inspection: Inspection, *, now: float) -> Section:
    count = len(inspection.errors)
    verdict = "can work" if inspection.valid else f"cannot work: {count} error{'s' * (count != 1)}"
    heading = f"{inspection.profile} token {inspection.fingerprint} {verdict}"
    if inspection.valid and inspection.expires_at is not None:
        heading += f"; it expires in {span(inspection.expires_at - now)}"
    return Section(heading=heading, style="good" if inspection.valid else "error")


def _fields(path: str, node: Mapping[str, object], *, now: float) -> Iterator[Row]:
    for key, child in node.items():
        name = f"{path}{key}"
        if isinstance(child, dict) and child:
            yield from _fields(f"{name}.", child, now=now)
        else:
            yield Row(label=name[:40], text=_written(name, child, now=now), style="quiet")


def _written(name: str, value: object, *, now: float) -> str:
    if isinstance(value, str):
        return value
    if name in TIMES and isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value}{_moment(value, now=now)}"
    return str(value)


def _moment(at: float, *, now: float) -> str:
    if not 0 <= at < 253_402_300_800:  # The year 9999 is the last that the calendar knows.
        return ""
    written = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))
    relation = f"in {span(at - now)}" if at > now else f"{span(now - at)} ago"
    return f"  {written}, {relation}"
