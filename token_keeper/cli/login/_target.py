"""Finds out for which source of a configuration somebody logs in."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from token_keeper._errors import StoreError
from token_keeper._model import Secret
from token_keeper.cli._group import SafeUsageError, fail
from token_keeper.cli._stored import store_of, stored_as

if TYPE_CHECKING:
    from token_keeper.sidecar.config import Checked
    from token_keeper.sources.oauth2 import OAuth2Source
    from token_keeper.store import Slot

GRANT = "device_code"
MOST_NAMES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """For what somebody logs in.

    Args:
        name: Of the token.
        link: Of its chain, if it has one.
        source: What is logged in with.
        slot: Where the grant is kept.
    """

    name: str
    link: str | None
    source: OAuth2Source
    slot: Slot

    @property
    def place(self) -> str:
        """Where the grant is kept, for people."""
        return self.slot.place

    @property
    def key(self) -> str:
        """Where the source stands in the configuration."""
        return f"tokens.{self.name}.source{f'.sources.{self.link}' if self.link else ''}"

    def keeps(self, access_token: str) -> bool:
        """Whether it is *access_token* that came with the grant."""
        try:
            record = self.slot.read()
        except StoreError:
            return False
        return record is not None and record.access_token == Secret(access_token)

    def fingerprint(self) -> str | None:
        """Return what tells the grant that is kept from another one; None if that is not known."""
        try:
            record = self.slot.read()
        except StoreError:
            return None
        if record is None or record.refresh_token is None:
            return ""
        return hashlib.sha256(record.refresh_token.reveal().encode(errors="surrogatepass")).hexdigest()


def target_in(checked: Checked, name: str, link: str | None) -> Target:
    """Return the source of the token *name* that needs a login; exit 65 if there is none.

    Args:
        checked: The configuration.
        name: Of the token.
        link: Of its chain, if the user said which.
    """
    parts = next((parts for parts in checked.parts if parts.name == name), None)
    if parts is None:
        fail(_unknown([parts.name for parts in checked.parts]), os.EX_DATAERR)
    config: Any = parts.config.source
    links: dict[str, Any] = dict(getattr(config, "sources", {}))
    candidates = [one for one, table in links.items() if _needs_login(table)]
    if link is not None and link not in candidates:
        fail(_no_such_link(name, candidates), os.EX_DATAERR)
    if not links and not _needs_login(config):
        fail(f"{_unneeded(name, config)}; {_needing(checked)}", os.EX_DATAERR)
    if links and not candidates:
        fail(f"no source of the chain of {name} needs a login; {_needing(checked)}", os.EX_DATAERR)
    if len(candidates) > 1 and link is None:
        raise SafeUsageError(
            f"say with --link which source of {name}: {_listed(candidates)}", click.get_current_context()
        )
    chosen = link or (candidates[0] if candidates else None)
    source: Any = parts.source if chosen is None else parts.links[chosen]
    slot = store_of(checked).slot(stored_as(name, chosen))
    return Target(name=name, link=chosen, source=source, slot=slot)


def _needs_login(table: Any) -> bool:
    return getattr(table, "grant", None) == GRANT


def _unneeded(name: str, config: Any) -> str:
    kind = str(config.__struct_config__.tag)
    grant = getattr(config, "grant", None)
    return f"{name} needs no login: its source is {kind}" + (f" with the grant {grant}" if grant else "")


def _needing(checked: Checked) -> str:
    """Say which tokens need one."""
    names = [
        parts.name
        for parts in checked.parts
        if any(
            _needs_login(table)
            for table in (parts.config.source, *getattr(parts.config.source, "sources", {}).values())
        )
    ]
    return f"those that do: {_listed(names)}" if names else f'a source that does has grant = "{GRANT}"'


def _no_such_link(name: str, candidates: list[str]) -> str:
    known = f"those that do: {_listed(candidates)}" if candidates else "none does"
    return f"{name} has no source of this name that needs a login; {known}"


def _unknown(names: list[str]) -> str:
    if not names:
        return "the configuration has no token: write a table [tokens.NAME]"
    return f"there is no such token; known are {_listed(names)}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"{', '.join(names[:MOST_NAMES])}{more}"
