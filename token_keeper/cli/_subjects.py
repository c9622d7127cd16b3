"""Turns a source of a configuration into one that the doctor can examine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from token_keeper._errors import ConfigError, FetchError
from token_keeper._model import Secret
from token_keeper.cli._group import fail
from token_keeper.cli._stored import store_of, stored_as
from token_keeper.doctor import Subject
from token_keeper.sources.oauth2._words import SECRETS, STORED

if TYPE_CHECKING:
    from token_keeper.sidecar.config import Checked


def subject_in(checked: Checked, name: str) -> Subject:
    """Return the source of the token *name* as it would be made now; exit 78 if that cannot be.

    What its strings refer to is looked up once, here.
    """
    [parts] = [parts for parts in checked.parts if parts.name == name]
    config: Any = parts.config.source
    try:
        if not hasattr(config, "sources"):
            return _subject(checked, config, name, None)
        links = {link: _subject(checked, table, name, link) for link, table in config.sources.items()}
    except FetchError as error:
        fail(str(error), os.EX_CONFIG)
    from token_keeper.sources import ChainSource  # noqa: PLC0415 # Rarely needed.

    return Subject.of(ChainSource, links)


def _subject(checked: Checked, config: Any, name: str, link: str | None) -> Subject:
    """Return the source that *config* describes.

    Raises:
        FetchError: If a reference leads nowhere now.
    """
    from token_keeper import sources  # noqa: PLC0415 # They need packages that other commands do not.
    from token_keeper.sources.oauth2 import OAuth2Source  # noqa: PLC0415 # As above.

    kind = config.__struct_config__.tag
    words = _looked_up(config, ("tokens", name, "source", *(() if link is None else ("sources", link))))
    if kind == "http":
        return Subject(sources.HttpSource, _with_jwt(words))
    if kind == "file":
        return Subject(sources.FileSource, words)
    if kind == "command":
        run = list(config.run)
        return Subject(sources.CommandSource, {**words, "run": run[0] if config.shell else run})
    if kind == "oauth2":
        hidden = {key: Secret(words[key]) for key in SECRETS if isinstance(words.get(key), str)}
        is_kept = words.pop("keep", False) or config.grant in STORED
        kept = {"store": store_of(checked), "stored_as": stored_as(name, link)} if is_kept else {}
        return Subject(OAuth2Source, {**words, **hidden, **kept})
    raise ConfigError("type", "is one that the doctor does not know")


def _looked_up(config: Any, at: tuple[str, ...]) -> dict[str, Any]:
    from msgspec.structs import asdict  # noqa: PLC0415 # It needs an extra.

    from token_keeper.sidecar.config._lookup import look_up_again  # noqa: PLC0415 # As above.

    stated = {key: value for key, value in asdict(config).items() if value is not None}
    if (jwt := stated.get("bearer_jwt")) is not None:
        stated["bearer_jwt"] = {key: value for key, value in asdict(jwt).items() if value is not None}
    # In what is run nothing is looked up.
    run = {"run": stated.pop("run")} if "run" in stated else {}
    found: dict[str, Any] = look_up_again(stated, at, os.environ).value
    return {**found, **run}


def _with_jwt(words: dict[str, Any]) -> dict[str, Any]:
    """Return the words of an HTTP source, with its secrets hidden and its header signed."""
    headers: dict[str, Any] = {key: Secret(value) for key, value in words.get("headers", {}).items()}
    if (jwt := words.pop("bearer_jwt", None)) is not None:
        from token_keeper.sources._signing import SignedJwt  # noqa: PLC0415 # Rarely needed.

        headers["Authorization"] = SignedJwt(**{**jwt, "private_key": Secret(jwt["private_key"])})
    return {**words, "headers": headers}
