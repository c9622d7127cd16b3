"""Settings in which functions may stand for values, so that secrets are read when they are needed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from token_keeper._errors import TransientFetchError
from token_keeper._model import Secret
from token_keeper.sources._callback import Callback


class Values:
    """A setting whose functions are called, and secrets revealed, at each `resolve`.

    Args:
        name: The setting, as the user wrote it.
        setting: A value, or mappings, lists and tuples of values.
    """

    def __init__(self, name: str, setting: object) -> None:
        self._name = name
        self._template = _template(setting, f"the function for {name}")

    async def resolve(self) -> object:
        """Return the setting with everything in it called.

        Raises:
            FetchError: If a function failed, or returned what has no end.
        """
        with suppress(RecursionError):
            return await _resolved(self._template)
        # Out of the handler: the frames of that exception hold what was returned.
        raise TransientFetchError(
            f"a function for {self._name} returned what contains itself; a valid token stays. "
            "Let it return a plain value"
        )


def _template(value: object, name: str) -> object:
    if isinstance(value, Mapping):
        return {key: _template(member, f"{name}[{key!r}]") for key, member in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_template(member, name) for member in value)
    if callable(value) and not hasattr(value, "async_auth_flow"):
        return Callback(value, name)
    return value


async def _resolved(value: object) -> object:
    if isinstance(value, Callback):
        return await _resolved(await value.call())
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, Mapping):
        return {key: await _resolved(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([await _resolved(member) for member in value])
    return value
