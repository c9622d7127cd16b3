"""`token-keeper doctor`: whether a backend can be reached, and what becomes of its token."""

from __future__ import annotations

import asyncio
import json
import os
import re
from pathlib import Path
from typing import Any, NoReturn

import click

from token_keeper._errors import ConfigError
from token_keeper._model import Secret
from token_keeper._redact import is_secret_name
from token_keeper.cli._configuration import config_option
from token_keeper.cli._doctor_config import configured
from token_keeper.cli._doctor_page import as_page
from token_keeper.cli._group import SafeUsageError, fail
from token_keeper.cli._input import EXPECTABLE, MAX_SECRET, Seconds, expectations, read_secret
from token_keeper.cli._inspect import PRODUCTS
from token_keeper.cli._output import terminal_width, write_json, write_page
from token_keeper.doctor import Connect, Order, Request, examine
from token_keeper.inspection import Expectations
from token_keeper.inspection._reading import looks_like_jwt
from token_keeper.profiles import profile_named
from token_keeper.sources._references import BadReferenceError, has_reference, resolved

EXIT_FAILED = 1
MARGIN = 6
"""Columns that a page puts around a line of text."""

HEADER_VALUE = re.compile(r"[\x20-\x7e\t]*")

PROBLEMS = {
    "url": "the URL has to be https://HOST/PATH, without a user in it; http only to this machine,"
    " or with --allow-http",
    "method": "--method is GET or POST",
    "headers": "--header takes 'Name: value', in visible ASCII",
    "json": "--json-body cannot be sent as JSON",
    "token_path": "--token-path is no JMESPath expression that can be used",
    "timeout": "--timeout is more than 0 and at most 30 seconds",
    "proxy": "the environment sets a proxy that cannot be used",
    "twilsock_url": "--twilsock-url has to be wss://HOST/PATH, without a user in it; ws only to this machine",
    "region": "--region is the name of one of Twilio's regions, such as us1 or ie1",
}


@click.command()
@click.argument("url", required=False, metavar="[URL|NAME]")
@config_option
@click.option("--url", "url_option", metavar="URL", help="Where tokens are issued; the same as URL.")
@click.option("--method", type=click.Choice(["GET", "POST"], case_sensitive=False), help="Default: GET.")
@click.option(
    "--header",
    "headers",
    multiple=True,
    metavar="'Name: value'",
    help="Sent along. ${env:NAME} and ${file:PATH} in the value keep secrets out of the list of processes.",
)
@click.option("--json-body", metavar="TEXT|@FILE", help="Sent as JSON; makes it a POST.")
@click.option("--token-path", metavar="JMESPATH", help="Where the token is; else the usual names are tried.")
@click.option(
    "--profile",
    type=click.Choice(["auto", "jwt", "twilio", "opaque"]),
    default="auto",
    show_default=True,
    help="The rules for the token; auto goes by its look.",
)
@click.option(
    "--for", "products", type=PRODUCTS, multiple=True, help="A product that the token must be good for."
)
@click.option(
    "--expect", multiple=True, metavar="KEY=VALUE", help=f"What it must hold: {', '.join(EXPECTABLE)}."
)
@click.option("--secret-file", metavar="FILE", help="The secret or public key that checks the signature.")
@click.option("--ca-file", metavar="FILE", help="Authorities to trust for TLS, in PEM.")
@click.option("--allow-http", is_flag=True, help="Send credentials in the clear to other machines.")
@click.option(
    "--timeout", type=Seconds(0.001), default=10.0, show_default=True, help="Seconds, for each step."
)
@click.option("--connect", is_flag=True, help="Show the token to Twilio's Twilsock, and report its answer.")
@click.option("--twilsock-url", metavar="URL", help="Show it to this server instead; with --connect.")
@click.option(
    "--region", metavar="NAME", help="Of Twilio, with --connect. Default: the token's twr, else us1."
)
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def doctor(
    url: str | None, url_option: str | None, *, config: Path | None, as_json: bool, **options: Any
) -> int:
    """Go to a backend step by step, fetch one token, and say what is wrong.

    \b
        token-keeper doctor https://backend.example/token
        token-keeper doctor https://backend.example/token --for chat \\
            --header 'Authorization: Bearer ${env:BACKEND_KEY}'
        token-keeper doctor --config keeper.toml chat

    With --config it examines the source of the token NAME as the sidecar
    would, of whatever type; without NAME the only one. A refresh token is not
    spent: then it looks into the store.

    It asks once, with the very code that a keeper asks with. It shows neither
    the token nor anything that was sent; the query of the URL is not shown either.

    Exit codes: 0 no step failed, 1 one did, 64 wrong usage, 66 a file cannot be read,
    69 --connect or --config without the package that it needs, 78 the configuration cannot work.
    """  # noqa: D301 # click looks for the character, not for its name.
    if config is not None and url_option is not None:
        raise _usage("--url cannot be combined with --config, which says it")
    if config is None and (url is None) == (url_option is None):
        raise _usage("give one URL, as URL or as --url")
    try:
        if config is not None:
            order = configured(config, url, **options)
        else:
            order = _order(url or url_option or "", **options)
        report = asyncio.run(examine(order))
    except ConfigError as wrong:
        if config is not None:
            fail(f"the source's {wrong}", os.EX_CONFIG)
        _refuse(wrong)
    if as_json:
        write_json(report.as_dict())
    else:
        write_page(as_page(report, width=terminal_width() - MARGIN))
    return os.EX_OK if report.ok else EXIT_FAILED


def _order(  # noqa: PLR0913 # One per option.
    url: str,
    *,
    method: str | None,
    headers: tuple[str, ...],
    json_body: str | None,
    token_path: str | None,
    profile: str,
    products: tuple[str, ...],
    expect: tuple[str, ...],
    secret_file: str | None,
    ca_file: str | None,
    allow_http: bool,
    timeout: float,
    connect: bool,
    twilsock_url: str | None,
    region: str | None,
) -> Order:
    stated = expectations(products, expect)
    if stated and profile in {"jwt", "opaque"}:
        raise _usage("--for and --expect need --profile twilio, or auto")
    if token_path is not None and looks_like_jwt(token_path):
        raise _usage(PROBLEMS["token_path"])
    if not connect and (twilsock_url is not None or region is not None):
        raise _usage("--twilsock-url and --region need --connect")
    twilio = profile_named("twilio")
    return Order(
        request=Request(
            url=url,
            method=method,
            headers=dict(_header(number, text) for number, text in enumerate(headers, 1)),
            json=None if json_body is None else _json_body(json_body),
            token_path=token_path,
            timeout=timeout,
            ca_file=ca_file,
            allow_http=allow_http,
        ),
        profile=profile,
        expect=Expectations.from_mapping(stated, known=twilio.expects, products=twilio.products),
        key=read_secret(secret_file),
        connect=(
            Connect(url=twilsock_url, region=region, timeout=timeout, ca_file=ca_file) if connect else None
        ),
    )


def _header(number: int, text: str) -> tuple[str, Secret]:
    """Return the name and the value of the header *text*. No message repeats any of it."""
    name, colon, value = text.partition(":")
    name, value = name.strip(), value.strip()
    if not colon or not name:
        raise _usage(PROBLEMS["headers"])
    if not has_reference(value) and is_secret_name(name):
        click.echo(
            f"token-keeper: warning: header {number} looks like a secret, and everybody on this machine"
            " can read it in the list of processes; use ${env:NAME} or ${file:PATH}",
            err=True,
        )
    try:
        secret = resolved(value, environ=os.environ, read=lambda path: _text(path, f"of header {number}"))
    except BadReferenceError as wrong:
        raise _usage(f"header {number}: {wrong}") from None
    if not HEADER_VALUE.fullmatch(secret.reveal()):
        raise _usage(f"header {number} holds what no header can hold, such as a line end")
    return name, secret


def _json_body(text: str) -> Any:
    document = _text(text[1:], "of --json-body") if text.startswith("@") else text
    try:
        return json.loads(document)
    except (ValueError, RecursionError):
        pass
    raise _usage("--json-body is not JSON")


def _text(path: str, whose: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return file.read(MAX_SECRET).decode("utf-8")
    except UnicodeDecodeError:
        fail(f"the file {whose} is not text", os.EX_NOINPUT)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its name cannot be one"
        fail(f"the file {whose} cannot be read ({reason})", os.EX_NOINPUT)


def _refuse(wrong: ConfigError) -> NoReturn:
    """Say what is wrong with an option, in words that do not repeat it."""
    key = wrong.key.partition("[")[0]
    if key == "twilsock":
        fail(f"--connect {wrong.problem}", os.EX_UNAVAILABLE)
    if key == "ca_file":
        fail(f"the file of --ca-file {wrong.problem}", os.EX_NOINPUT)
    raise _usage(PROBLEMS.get(key, "the options do not fit together")) from None


def _usage(problem: str) -> SafeUsageError:
    return SafeUsageError(problem, click.get_current_context())
