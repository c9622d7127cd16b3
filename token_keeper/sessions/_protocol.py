"""What a session has to have, and what it may have."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Protocol

from token_keeper._errors import ConfigError
from token_keeper.supervision import Rung

METHODS = {Rung.UPDATE: "update_token", Rung.RECONNECT: "reconnect", Rung.RECREATE: "recreate"}


class Session(Protocol):
    """A live connection that can be given another token. Each method may be sync or async.

    It may also have `reconnect()`, which ends the connection and makes another
    with the token that was handed over last, and `recreate()`, which makes a new
    client; what `recreate()` returns, if anything, is the session from then on.
    Both may take the token: as the one argument that they need, or as one named *token*.
    """

    def update_token(self, token: str, /) -> object:
        """Use *token* from now on. Never called while an earlier call is under way."""
        ...


def rungs_of(session: object) -> frozenset[Rung]:
    """Return what *session* can do.

    Raises:
        ConfigError: If it has no `update_token`.
    """
    if isinstance(session, type):
        raise ConfigError("session", f"is a class: attach an object, such as {session.__name__}(...)")
    rungs = frozenset(rung for rung, name in METHODS.items() if callable(getattr(session, name, None)))
    if Rung.UPDATE not in rungs:
        raise ConfigError(
            "session",
            f"a {type(session).__name__} has no update_token(token): wrap it in a class of yours that has "
            "one; if its token is only used to connect, use keeper.connections(connect)",
        )
    return rungs


def takes_token(method: Callable[..., object]) -> bool:
    """Whether `reconnect` or `recreate` wants to be given the token, as its first argument."""
    try:
        parameters = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):  # A method without a signature, such as one written in C.
        return False
    first = next(iter(parameters), None)
    if first is None or first.kind not in {first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD}:
        return False
    # Not an optional one of another name: it is a delay, or a flag.
    return first.default is first.empty or first.name == "token"
