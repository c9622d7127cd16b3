"""Fetches the public keys with which signatures are checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

import click

from token_keeper.cli._group import SafeUsageError, fail

TIMEOUT_S = 10.0
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def fetch_keys(url: str) -> Mapping[str, object]:
    """Fetch the JWKS at *url*; exit 69 if it cannot be fetched."""
    if not _is_safe(url):
        raise SafeUsageError("--jwks-url takes an https:// URL", click.get_current_context())
    from jwt import PyJWKClient, PyJWTError  # noqa: PLC0415 # Slow, and rarely needed.

    try:
        document = PyJWKClient(url, timeout=TIMEOUT_S).fetch_data()
    except (PyJWTError, ValueError, OSError) as error:
        fail(f"the keys could not be fetched ({type(error).__name__})", os.EX_UNAVAILABLE)
    if not isinstance(document, dict):
        fail("the answer of --jwks-url is not a set of keys", os.EX_UNAVAILABLE)
    return document


def _is_safe(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
