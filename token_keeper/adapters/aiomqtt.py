"""aiomqtt: a client that logs in with the current token, and a new one for each connection.

    while True:
        with suppress(aiomqtt.MqttError):
            async with connect(keeper, "broker.example", username="app") as client:
                await client.subscribe("jobs/#")
                async for message in client.messages: ...
        await asyncio.sleep(1)

aiomqtt's clients keep the password that they were made with, so each connection is a client of its own. No
new token can be shown on a live one: a broker that ends it gets the new token with the next.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from aiomqtt import Client, MqttCodeError, MqttError

from token_keeper._face import Face
from token_keeper._model import Secret, Verdict
from token_keeper._share import WAIT_S, WORTH_ANOTHER, Share
from token_keeper._waiting import check_wait
from token_keeper.adapters._options import check_left_out

DENIALS = {0x86, 0x87, 4, 5}
"""Reason codes of MQTT 5 and return codes of MQTT 3: bad user name or password, not authorized."""
OURS = ("password",)
"""Options of aiomqtt that come from the keeper."""


@asynccontextmanager
async def connect(  # noqa: PLR0913, D417 - the others are aiomqtt's
    keeper: Face,
    hostname: str,
    port: int = 1883,
    *,
    username: str = "",
    by: str = "mqtt",
    token_timeout: float = WAIT_S,
    **options: Any,
) -> AsyncIterator[Client]:
    """Connect; if the broker refuses the token, once more with another one. Use it with `async with`.

    Args:
        keeper: A `TokenKeeper` or an `AsyncTokenKeeper`.
        hostname: As for `aiomqtt.Client`, and so are all other options.
        port: As above.
        username: Goes with the token, which is the password.
        by: Names the reporter: a token that is denied to it is withheld from it alone.
        token_timeout: Seconds to wait for a token, if there is none. `timeout` is aiomqtt's own.

    Raises:
        ConfigError: If an argument cannot work.
        TokenUnavailable: If there was no token in time.
        aiomqtt.MqttError: If the broker refused, cannot be reached, or ends the connection.
    """
    check_wait("token_timeout", token_timeout)
    check_left_out(options, OURS)
    share = Share(keeper, by)

    def made(sent: Secret) -> Client:
        return Client(hostname, port, username=username, password=sent.reveal(), **options)

    client, sent = None, Secret(await share.awaited(token_timeout))
    async with AsyncExitStack() as open_client:
        try:
            client = await open_client.enter_async_context(made(sent))
        except MqttError as refusal:
            another = await _another(share, sent, refusal, token_timeout)
            if another is None:
                raise
            sent = another
        try:
            if client is None:
                client = await open_client.enter_async_context(made(sent))
            share.accepted(sent.reveal())
            yield client
        except MqttError as error:
            _judged(share, sent, error)
            raise


async def _another(share: Share, sent: Secret, refusal: MqttError, token_timeout: float) -> Secret | None:
    """Report the *refusal*, and return another token if that is worth one more try."""
    if _judged(share, sent, refusal) not in WORTH_ANOTHER:
        return None
    raw = await share.another_awaited(sent.reveal(), token_timeout)
    return Secret(raw) if raw is not None else None


def _judged(share: Share, sent: Secret, error: BaseException | None) -> Verdict | None:
    """Report what *error*, or what caused it, says of the token that was *sent*."""
    while error is not None:
        if isinstance(error, MqttCodeError) and error.rc is not None:
            code = getattr(error.rc, "value", error.rc)
            if code in DENIALS:
                return share.denied(sent.reveal(), reason=str(error))
        error = error.__cause__
    return None
