"""What a grant may be called: its name is part of a file's."""

from __future__ import annotations

import re
from typing import Final

from token_keeper._errors import ConfigError

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


def checked_name(name: object) -> str:
    """Return *name* if a grant can be called so.

    Raises:
        ConfigError: If not.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            "stored_as",
            "must be 1 to 64 letters, digits, dots, dashes and underscores of ASCII, "
            "the first a letter or a digit",
        )
    return name
