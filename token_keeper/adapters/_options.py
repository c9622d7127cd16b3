"""Options of a library that the keeper takes the place of."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from token_keeper._errors import ConfigError


def check_left_out(
    options: Collection[str], ours: Iterable[str], problem: str = "comes from the keeper: leave it out"
) -> None:
    """Complain about the first of *ours* that is among the caller's *options*.

    Raises:
        ConfigError: With that option's name and the *problem*.
    """
    for name in ours:
        if name in options:
            raise ConfigError(name, problem)
