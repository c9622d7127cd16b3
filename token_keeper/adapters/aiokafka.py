"""aiokafka: a token provider for SASL/OAUTHBEARER.

    provider = KeeperTokenProvider(keeper)
    producer = AIOKafkaProducer(..., sasl_mechanism="OAUTHBEARER", sasl_oauth_token_provider=provider)
    await provider.start(producer)  # producer.start(), and once more with another token if refused

aiokafka shows a token once for each connection: a broker that ends its sessions (KIP-368) closes it, and
aiokafka opens another one with the current token. It does not tell that a token was refused. `start()` sees
it by what happens; later on only the application can, which then calls `report()`.
"""

from __future__ import annotations

from typing import Protocol

from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError

from token_keeper._errors import TokenKeeperError, TokenUnavailable
from token_keeper._face import Face
from token_keeper._model import Secret, Verdict
from token_keeper._share import WAIT_S, WORTH_ANOTHER, Share
from token_keeper._waiting import check_wait

REFUSED = "the broker did not let the client in"


class NoToken(TokenUnavailable, KafkaConnectionError):  # type: ignore[misc]  # aiokafka's has no types
    """There is no usable token now. To aiokafka it is a failed connection, so it tries again."""


class Startable(Protocol):
    """A producer, a consumer or an admin client."""

    async def start(self) -> None:
        """Connect to the cluster."""


class KeeperTokenProvider(AbstractTokenProvider):  # type: ignore[misc]  # as above
    """Gives each new connection the current token.

    Args:
        keeper: A `TokenKeeper` or an `AsyncTokenKeeper`.
        by: Names the reporter: a token that is denied to it is withheld from it alone.
        timeout: Seconds to wait for a token, if there is none.
        extensions: SASL extensions, such as ``{"logicalCluster": "lkc-1"}``.

    Raises:
        ConfigError: If an argument cannot work.
    """

    def __init__(
        self,
        keeper: Face,
        *,
        by: str = "kafka",
        timeout: float = WAIT_S,
        extensions: dict[str, str] | None = None,
    ) -> None:
        check_wait("timeout", timeout)
        self._share = Share(keeper, by)
        self._timeout = timeout
        self._extensions = dict(extensions or {})
        self._sent = Secret("")

    async def token(self) -> str:
        """Return the token for a new connection. aiokafka calls it."""
        try:
            raw = await self._share.awaited(self._timeout)
        except TokenKeeperError as error:
            # Anything but a KafkaError would end the task that sends.
            raise NoToken(str(error)) from None
        self._sent = Secret(raw)
        return raw

    def extensions(self) -> dict[str, str]:
        """Return the SASL extensions. aiokafka calls it."""
        return self._extensions

    async def start(self, client: Startable) -> None:
        """Start *client*; if the brokers refuse the token, once more with another one.

        aiokafka says only that it did not get in. If it had come so far as to ask for a token, that is
        taken for a denial.

        Raises:
            TokenUnavailable: If there was no token in time.
            aiokafka.errors.KafkaConnectionError: If no broker let it in, or none was reached.
        """
        await self._share.awaited(self._timeout)
        self._sent = Secret("")
        try:
            await client.start()
        except KafkaConnectionError:
            sent = self._sent
            if self.report() not in WORTH_ANOTHER:
                raise
            if await self._share.another_awaited(sent.reveal(), self._timeout) is None:
                raise
            await self._start_again(client)
        self._share.accepted(self._sent.reveal())

    def report(self) -> Verdict | None:
        """Say that the brokers refuse the token that was shown last. Returns None if none was shown.

        For an application that learns it, such as by sends that time out while the cluster is well.
        """
        if self._sent == Secret(""):
            return None
        return self._share.denied(self._sent.reveal(), reason=REFUSED)

    async def _start_again(self, client: Startable) -> None:
        self._sent = Secret("")
        try:
            await client.start()
        except KafkaConnectionError:
            self.report()
            raise

    def __repr__(self) -> str:
        return f"<KeeperTokenProvider of {self._share!r}>"
