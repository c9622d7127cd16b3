"""Settings that are secrets: texts, or functions that are called when the secret is needed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from token_keeper._errors import ConfigError, TransientFetchError
from token_keeper._model import Secret
from token_keeper.sources._values import Values

T = TypeVar("T")


class SecretSetting:
    """One secret of the configuration.

    Args:
        name: The setting, as the user wrote it.
        value: A string, a Secret, or a function that returns one, sync or async.

    Raises:
        ConfigError: If it is something else.
    """

    def __init__(self, name: str, value: object) -> None:
        if isinstance(value, str):
            value = Secret(value)
        if not callable(value) and not isinstance(value, Secret):
            raise ConfigError(name, "must be a string, a Secret, or a function that returns one")
        if isinstance(value, Secret) and not value.reveal():
            raise ConfigError(name, "is empty")
        self.name = name
        self.fixed = value if isinstance(value, Secret) else None
        self._values = Values(name, value)

    async def read(self) -> Secret:
        """Return the secret as it is now.

        Raises:
            FetchError: If its function fails, or returns something else.
        """
        if self.fixed is not None:
            return self.fixed
        value = await self._values.resolve()
        if isinstance(value, str) and value:
            return Secret(value)
        found = "an empty string" if value == "" else type(value).__name__
        del value
        raise TransientFetchError(
            f"the function for {self.name} returned {found}; a valid token stays. "
            "Let it return a string or a Secret"
        )


async def in_time(reading: Awaitable[T], seconds: float, names: str) -> T:
    """Return what *reading* comes to.

    Raises:
        TransientFetchError: If a function for one of the settings *names* takes over *seconds*.
        FetchError: If *reading* does.
    """
    try:
        async with asyncio.timeout(seconds):
            return await reading
    except TimeoutError:
        pass
    raise TransientFetchError(
        f"a function for {names} did not return within {seconds:g} s; a valid token stays. "
        "If it usually takes longer, raise timeout",
        timed_out=True,
    )
