"""A real OpenID provider, `oidc-provider` of npm, and the person who answers its pages."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
from npm_client import JS, NodeProgram, modules_or_skip

FOLDER = JS / "oidc_provider"
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
SECRET = "s:3 +/%&=?~"
"""Each of its characters is another one if a client forgets to encode it (RFC 6749 section 2.3.1)."""
DEVICE = {
    "client_id": "a tv",
    "token_endpoint_auth_method": "none",
    "grant_types": [DEVICE_GRANT, "refresh_token"],
}
SCOPE = "openid offline_access read"
_serials = itertools.count()


def provider_program(config: pytest.Config) -> Iterator[NodeProgram]:
    """Run the process in which providers live, or skip. For a fixture."""
    modules = modules_or_skip(config, FOLDER / "package.json", cache="oidc-provider-npm")
    with NodeProgram("oidc_provider/provider.mjs", modules) as program:
        yield program


@dataclass(frozen=True, slots=True)
class Counts:
    """What the token endpoint did.

    Attributes:
        requests: How many came.
        granted: How many of them brought a token.
        rotated: How often a refresh token was used.
        replayed: How often it had been used before, within the grace time.
        reused: How often it had been used before, and that was held for theft.
        grantsRevoked: How many grants are no more, for that or another reason.
        errors: How often each `error` was answered.
    """

    requests: int
    granted: int
    rotated: int
    replayed: int
    reused: int
    grantsRevoked: int  # noqa: N815 - As the program says it.
    errors: dict[str, int] = field(default_factory=dict)


class Provider:
    """One provider of the process *program*, with its own clients and its own memory.

    Args:
        clients: Their metadata (RFC 7591). `SECRET` is a good `client_secret`.
        accessSeconds, refreshSeconds, deviceSeconds: How long what it issues lives.
        graceSeconds: For how long a refresh token that was used may be used
            again, graceLimit times. 0: the second use revokes the grant.
        format: "jwt" or "opaque", of the access tokens.
    """

    def __init__(self, program: NodeProgram, clients: Sequence[dict[str, Any]], **options: Any) -> None:
        self._program = program
        self._name = f"provider-{next(_serials)}"
        program.tell(order="serve", name=self._name, clients=clients, **options)
        self.issuer: str = program.next("serving", name=self._name)["issuer"]

    @property
    def token_url(self) -> str:
        return f"{self.issuer}/token"

    def counts(self) -> Counts:
        """Return what it did so far."""
        self._program.tell(order="count", name=self._name)
        said = self._program.next("counts", name=self._name)
        return Counts(**{name: said[name] for name in Counts.__slots__})

    def cut(self, answers: int = 1) -> None:
        """Lose the next *answers*: the connection breaks after it acted."""
        self._program.tell(order="cut", name=self._name, answers=answers)

    def hold(self) -> None:
        """Keep the next answer back until `release`."""
        self._program.tell(order="hold", name=self._name)

    def wait_until_held(self) -> None:
        """Wait until it acted, and keeps the answer back."""
        self._program.next("held", name=self._name)

    def release(self) -> None:
        """Send the answer that was kept back."""
        self._program.tell(order="release", name=self._name)

    def introspect(self, token: str, client_id: str) -> dict[str, Any]:
        """Ask what an opaque token is worth (RFC 7662), as a public client."""
        form = {"token": token, "client_id": client_id}
        answer: dict[str, Any] = httpx.post(f"{self.issuer}/token/introspection", data=form).json()
        return answer

    def logged_in(self, client_id: str = DEVICE["client_id"], scope: str = SCOPE) -> str:  # type: ignore[assignment]
        """Let a person log in on another device. Returns the first refresh token."""
        with httpx.Client(base_url=self.issuer) as device:
            form = {"client_id": client_id, "scope": scope}
            code = device.post("/device/auth", data=form).raise_for_status().json()
            approve(code["verification_uri_complete"])
            form = {"client_id": client_id, "grant_type": DEVICE_GRANT, "device_code": code["device_code"]}
            answer = device.post("/token", data=form).raise_for_status().json()
        refresh_token: str = answer["refresh_token"]
        return refresh_token


def approve(verification_uri_complete: str) -> None:
    """Log in, and allow whatever is asked for."""
    page = _walk(verification_uri_complete, {"login": "alice", "password": "any"})
    assert "Sign-in Success" in page, page


def deny(verification_uri_complete: str) -> None:
    """Open the page, and refuse."""
    page = _walk(verification_uri_complete, {"abort": "yes"})
    assert "was interrupted" in page, page


def _walk(url: str, typed: dict[str, str]) -> str:
    """Send each form that the pages show, with what is *typed*, until a page has none. Returns that page."""
    with httpx.Client(follow_redirects=True) as browser:
        answer = browser.get(url)
        while form := _Form(answer.text):
            fields = form.fields | (typed if form.is_asking or "abort" in typed else {})
            answer = browser.post(answer.url.join(form.action), data=fields)
            if "abort" in fields:
                break
    return answer.text


class _Form(HTMLParser):
    """The first form of a page, false if there is none."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}
        self.is_asking = False
        self.feed(page)

    def __bool__(self) -> bool:
        return bool(self.action)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.action = said["action"]
        elif tag == "input" and said.get("type") == "hidden":
            self.fields[said["name"]] = said.get("value", "")
        elif tag == "input":
            self.is_asking = True
