"""`keeper.attach(session)`: checks its arguments, and puts the session into the keeper's circle."""

from __future__ import annotations

import asyncio

from token_keeper._errors import ConfigError, KeeperClosed
from token_keeper._face import Face, check_reporter
from token_keeper._kept import NOT_STARTED
from token_keeper._model import Secret
from token_keeper._waiting import check_wait
from token_keeper.sessions._circle import Circle
from token_keeper.sessions._handle import SessionHandle
from token_keeper.sessions._protocol import rungs_of

MAX_NAME = 256


def attach(  # noqa: PLR0913 - all but the first two are keywords
    keeper: Face,
    session: object,
    *,
    made_with: Secret | None,
    by: str,
    name: str | None,
    deadline: float,
) -> SessionHandle:
    """See `Face.attach`."""
    check_reporter(by)
    if not isinstance(name, str | None) or (name is not None and not 0 < len(name) <= MAX_NAME):
        raise ConfigError("name", f"must be a string of 1 to {MAX_NAME} characters")
    check_wait("deadline", deadline)
    if not deadline:
        raise ConfigError("deadline", "must be more than 0 seconds")
    rungs_of(session)
    circle = _circle(keeper)
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = None
    supervisor = circle.add(
        session, by=by, name=name, made_with=made_with, deadline_s=float(deadline), loop=loop
    )
    return SessionHandle(supervisor)


def _circle(keeper: Face) -> Circle:
    keeper._kept.check_started()  # noqa: SLF001 - sessions are of one piece with their keeper
    with keeper._turn:  # noqa: SLF001 - as above
        home = keeper._home  # noqa: SLF001 - as above
        if home is None:
            raise KeeperClosed(NOT_STARTED)
        if keeper._circle is None:  # noqa: SLF001 - as above
            in_thread = keeper._sync_in_thread  # noqa: SLF001 - as above
            keeper._circle = Circle(keeper, home.loop, in_thread=in_thread)  # noqa: SLF001 - as above
        return keeper._circle  # noqa: SLF001 - as above
