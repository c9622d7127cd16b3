"""`token-keeper explain`: why a server refuses tokens with a code."""

from __future__ import annotations

import os
from collections.abc import Iterator

import click

from token_keeper.cli._group import fail
from token_keeper.cli._input import EXPECTABLE, Seconds, expectations, instant, read_secret, read_value
from token_keeper.cli._inspect import PRODUCTS
from token_keeper.cli._output import Row, Section, write_json, write_page
from token_keeper.profiles import CATALOGUE, Certainty, DenialClass, Explanation, profile_named
from token_keeper.profiles import explain as explained

MEANINGS = {
    DenialClass.DENIED: "this token will not be accepted again; get another one",
    DenialClass.THROTTLED: "the token is fine; slow down and keep it",
    DenialClass.FORBIDDEN: "another token would be refused too; the right is missing",
    DenialClass.CONFIG: "the next token will be refused too, until somebody fixes the backend",
}
STYLES = {Certainty.CONFIRMED: "error", Certainty.UNKNOWN: "warning", Certainty.EXCLUDED: "quiet"}


@click.command()
@click.argument("code")
@click.option(
    "--token", metavar="TOKEN|-", help="The refused token; - reads it from standard input, which is safer."
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
@click.option(
    "--now", type=Seconds(), metavar="UNIX_SECONDS", help="The time to judge by, instead of the present."
)
@click.option(
    "--leeway", type=Seconds(0), default=0, metavar="SECONDS", help="Tolerance for clocks that differ."
)
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def explain(  # noqa: PLR0913 # One per option.
    *,
    code: str,
    token: str | None,
    products: tuple[str, ...],
    expect: tuple[str, ...],
    secret_file: str | None,
    now: float | None,
    leeway: float,
    as_json: bool,
) -> int:
    """Say why a server refuses tokens with CODE, such as 51215.

    With the token at hand it says which causes the token confirms, and which it excludes.

    \b
        token-keeper explain 51215
        token-keeper explain 51215 --token - --for chat < token

    CODE is a code of Twilio's, an HTTP status, an error of RFC 6750 such as
    invalid_token, or a WebSocket close code.

    Exit codes: 0 a known code, 65 an unknown one, 64 wrong usage, 66 a file cannot be read.
    """  # noqa: D301 # click looks for the character, not for its name.
    expected = expectations(products, expect)
    entry = profile_named("auto").entry(code)
    if entry is None:
        fail(f"this code is not known; known are {', '.join(map(str, CATALOGUE))}", os.EX_DATAERR)
    secret = read_secret(secret_file)
    value = None if token is None else read_value(token)
    explanation = explained(
        entry.code,
        value.secret if value else None,
        now=instant(now),
        profile="twilio" if expected else None,
        expectations=expected,
        secret=secret,
        leeway=leeway,
    )
    if as_json:
        write_json(explanation.as_dict())
    else:
        write_page(as_page(explanation))
    return os.EX_OK


def _summary(explanation: Explanation) -> Iterator[Row]:
    if explanation.inspection is None:
        return
    counts = {truth: sum(each.certainty is truth for each in explanation.causes) for truth in Certainty}
    confirmed = counts[Certainty.CONFIRMED]
    shows = f"shows {confirmed} cause{'s' * (confirmed != 1)}" if confirmed else "shows none of the causes"
    yield Row(
        label="token",
        text=f"{explanation.inspection.fingerprint} {shows}, excludes {counts[Certainty.EXCLUDED]}, "
        f"and cannot tell of {counts[Certainty.UNKNOWN]}",
        style="info",
    )


def as_page(explanation: Explanation) -> Iterator[Section]:
    """Yield the form that people read."""
    meaning = explanation.denial_class
    yield Section(
        heading=f"{explanation.code}  {explanation.title}",
        rows=[Row(label=meaning.value, text=MEANINGS[meaning], style="info"), *_summary(explanation)],
    )
    yield Section(
        heading="Causes",
        rows=[
            Row(
                label=each.certainty.value,
                text=each.cause.text,
                notes=(each.evidence,),
                style=STYLES[each.certainty],
            )
            for each in explanation.causes
        ],
    )
    yield Section(
        heading="What to do",
        rows=[
            Row(label=f"{index}.", text=action, style="info")
            for index, action in enumerate(explanation.actions, 1)
        ],
    )
