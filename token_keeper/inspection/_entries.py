"""The form of an error catalogue: what a code means, and what may have caused it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from token_keeper._finding import DenialClass

if TYPE_CHECKING:
    from token_keeper.inspection._profile import Inspection

UNREADABLE = frozenset(
    {
        "too-long",
        "empty",
        "not-a-jwt",
        "bad-characters",
        "looks-like-auth-token",
        "looks-like-api-secret",
        "looks-like-sid",
        "capability-token",
        "client-validation-token",
    }
)
"""Findings after which nothing more is known of the token."""

GENERAL = frozenset(
    {
        "too-long",
        "empty",
        "not-a-jwt",
        "bad-characters",
        "wrapped-json",
        "bearer-prefix",
        "surrounding-whitespace",
        "exp-missing",
        "exp-not-a-number",
        "exp-in-milliseconds",
        "expired",
        "not-yet-valid",
        "issued-after-expiry",
        "signature-invalid",
    }
)
"""Findings that the rules for any kind of token make; all others take rules of a vendor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One thing that may be behind a code.

    Args:
        text: What may be so.
        remedy: What to do if it is.
        look: Where to look if the token cannot tell.
        shown_by: Findings that confirm it.
        ruled_out: What the token shows if it is not so; empty if no token can show that.
        hidden_by: Findings that leave it open.
        needs: What must have been compared before it can be excluded:
            names of expectations, or ``secret``.
        excluded_by: Says that the token excludes it in spite of *hidden_by*.
    """

    text: str
    remedy: str
    look: str
    shown_by: frozenset[str] = frozenset()
    ruled_out: str = ""
    hidden_by: frozenset[str] = UNREADABLE
    needs: frozenset[str] = frozenset()
    excluded_by: Callable[[Inspection], bool] = lambda _inspection: False


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a code means.

    Args:
        code: A number, or a word.
        title: What its inventor calls it.
        denial_class: What to do about it.
        causes: The most telling first.
        where: Where the refusing side says more.
        source: Whose code it is.
        config_on: Findings with which it means that the backend has to be fixed.
        products: Whom it comes from; what they need is expected of the token.
        profile: The name of the profile that knows its causes.
    """

    code: int | str
    title: str
    denial_class: DenialClass
    causes: tuple[Cause, ...]
    where: str
    source: str
    config_on: frozenset[str] = frozenset()
    products: tuple[str, ...] = ()
    profile: str = "auto"
