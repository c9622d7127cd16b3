"""What a grant may be called: its name is part of a file's."""

from __future__ import annotations

from token_keeper._errors import ConfigError
from token_keeper._model import NAME


def checked_name(name: object) -> str:
    """Return *name* if a grant can be called so.

    Raises:
        ConfigError: If not.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ConfigError(
            "stored_as",
            "must be 1 to 64 letters, digits, dots, hyphens or underscores of ASCII, "
            "the first a letter or a digit",
        )
    return name
