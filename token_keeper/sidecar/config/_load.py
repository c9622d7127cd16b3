"""Loads a configuration: reads the file, checks it as a whole, builds what it describes."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from token_keeper._errors import ConfigError
from token_keeper.profiles import profile_named
from token_keeper.sidecar.config import _checks, _oauth2, _programs, _sources, _stores  # noqa: F401 - They check.
from token_keeper.sidecar.config._exact import Exact
from token_keeper.sidecar.config._lookup import Lookup
from token_keeper.sidecar.config._model import Config, StoreConfig, TokenConfig
from token_keeper.sidecar.config._notes import THE_FILE, At, BadConfig, Notes, Storing, in_order
from token_keeper.sidecar.config._places import claim
from token_keeper.sidecar.config._shapes import FAILED, shape_of
from token_keeper.sidecar.config._source_model import ChainSourceConfig
from token_keeper.sources import Source

if TYPE_CHECKING:
    from token_keeper.sidecar._served import TokenParts

LARGEST: Final = 4 * 1_048_576
"""Bytes of a file."""

_POSITION: Final = re.compile(r"^(.*) \((?:at (line \d+, column \d+)|at end of document)\)$", re.DOTALL)
_QUOTED: Final = re.compile(r"'(?:[^'\\]|\\.){2,}'|\"(?:[^\"\\]|\\.){2,}\"|\(.*\)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A configuration without an error.

    Args:
        path: The file.
        config: What stands in it.
        parts: What each token was turned into.
        warnings: What can work, but should be looked at.
    """

    path: Path
    config: Config
    parts: tuple[TokenParts, ...]
    warnings: tuple[ConfigError, ...]


def load(path: Path, *, environ: Mapping[str, str] = os.environ, store: StoreConfig | None = None) -> Checked:
    """Load the file *path*. Nothing is sent, started or written.

    Args:
        path: A TOML file.
        environ: Where `${env:NAME}` looks.
        store: The `[store]` that we run with, at a reload: the file's is then checked, but not used.

    Raises:
        BadConfig: With every problem, if there is one.
        OSError: If the file cannot be read.
    """
    # Files and variables hold secrets: nothing is raised from a frame that has read them.
    outcome = _outcome(path, environ, store)
    if isinstance(outcome, BadConfig):
        raise outcome
    return outcome


def _outcome(path: Path, environ: Mapping[str, str], store: StoreConfig | None) -> Checked | BadConfig:
    with path.open("rb") as file:
        raw = file.read(LARGEST + 1)
        mode = os.fstat(file.fileno()).st_mode
    document = _parsed(raw)
    if isinstance(document, ConfigError):
        return BadConfig((document,))
    notes = Notes(
        environ=environ,
        lookup=Lookup(environ),
        is_file_open=bool(mode & stat.S_IROTH),
        storing=Storing(running=store),
    )
    claim(str(path.absolute()), (), notes)
    # Sources need to know their store, wherever in the file it is described.
    ordered = {key: document[key] for key in sorted(document, key=lambda key: key != "store")}
    config = shape_of(Config).read(ordered, (), notes)
    if config is FAILED or notes.problems:
        return BadConfig(in_order(notes.problems, document))
    if mode & (stat.S_IWGRP | stat.S_IWOTH) and stat.S_ISREG(mode):
        notes.warn((), "can be written by others, and it says what is run: chmod go-w")
    if not config.tokens:
        notes.warn(("tokens",), "there is none: the sidecar will not be ready. Write a table [tokens.NAME]")
    warnings = in_order(notes.warnings, document)
    return Checked(path=path, config=config, parts=_parts(config, notes), warnings=warnings)


def _parts(config: Config, notes: Notes) -> tuple[TokenParts, ...]:
    from token_keeper.sidecar._served import TokenParts  # noqa: PLC0415 - It needs our model.

    parts = []
    for name, token in config.tokens.items():
        profile = profile_named(token.profile)
        at = ("tokens", name, "source")
        parts.append(
            TokenParts(
                name=name,
                config=token,
                source=notes.sources[at],
                policy=token.policy,
                profile=profile,
                expect=profile.expectations(token.expect),
                settled=Exact(notes.settled.get(name, [])),
                links=_links(token, at, notes),
            )
        )
    return tuple(parts)


def _links(token: TokenConfig, at: At, notes: Notes) -> Mapping[str, Source]:
    if not isinstance(token.source, ChainSourceConfig):
        return {}
    return {name: notes.sources[*at, "sources", name] for name in token.source.sources}


def _parsed(raw: bytes) -> dict[str, Any] | ConfigError:
    if len(raw) > LARGEST:
        return ConfigError(THE_FILE, f"is larger than {LARGEST // 1_048_576} MiB: no configuration is")
    try:
        return tomllib.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        return ConfigError(f"line {line}", "is not in UTF-8: save the file in that encoding")
    except tomllib.TOMLDecodeError as error:
        return _syntax_error(str(error), raw)
    except RecursionError:
        return ConfigError(THE_FILE, "is nested too deeply")
    except ValueError:
        # Numbers of thousands of digits, and days that no calendar has.
        return ConfigError(THE_FILE, "holds a number, a date or a time that is none")


def _syntax_error(message: str, raw: bytes) -> ConfigError:
    match = _POSITION.match(message)
    what, place = (match[1], match[2]) if match else (message, None)
    if place is None:
        lines = raw.split(b"\n")
        place = f"line {len(lines)}, column {len(lines[-1]) + 1}"
    # What the message quotes may be a secret that a quotation mark is missing around.
    return ConfigError(place, f"is not TOML: {_QUOTED.sub('...', what)[:120]}")
