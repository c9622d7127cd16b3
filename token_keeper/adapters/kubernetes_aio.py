"""kubernetes.aio: an API client that sends the keeper's token, and another one if it is refused.

    from token_keeper.adapters.kubernetes_aio import api_client

    core = client.CoreV1Api(api_client(keeper))  # After load_kube_config(), or
    core = client.CoreV1Api(api_client(keeper, configuration))

It is as `token_keeper.adapters.kubernetes`, without blocking the event loop.
"""

from __future__ import annotations

from typing import Any

from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.rest import RESTClientObject

from token_keeper._face import Face
from token_keeper._share import WAIT_S
from token_keeper.adapters._challenge import challenges
from token_keeper.adapters._kubernetes_rules import Bearer, Rules


def api_client(
    keeper: Face, configuration: Any = None, *, by: str | None = None, timeout: float = WAIT_S
) -> Any:
    """Return an async `ApiClient` that is authenticated by the keeper. Call it in the event loop.

    Args:
        keeper: A `TokenKeeper` or an `AsyncTokenKeeper`.
        configuration: A `Configuration`, which is changed as by `configure`; by default a copy of
            the default one.
        by: Names the reporter; by default the API server's origin.
        timeout: Seconds to wait for a token, if there is none.

    Raises:
        ConfigError: If an argument cannot work.
    """
    chosen = Configuration.get_default_copy() if configuration is None else configuration
    rules = _configured(chosen, keeper, by, timeout)
    made = ApiClient(chosen)
    # The one that it made has opened nothing yet.
    made.rest_client = _RetryingClient(chosen, rules)
    return made


def configure(configuration: Any, keeper: Face, *, by: str | None = None, timeout: float = WAIT_S) -> None:
    """Let *configuration* read the keeper's token before each request, instead of a key that it has.

    Args:
        configuration: A `Configuration` whose `host` is set.
        keeper: A `TokenKeeper` or an `AsyncTokenKeeper`.
        by: Names the reporter; by default the API server's origin.
        timeout: Seconds to wait for a token, if there is none.

    Raises:
        ConfigError: If an argument cannot work.
    """
    _configured(configuration, keeper, by, timeout)


def _configured(configuration: Any, keeper: Face, by: str | None, timeout: float) -> Rules:
    rules = Rules(keeper, configuration, by=by, timeout=timeout)
    rules.prepare(configuration)

    async def fresh(asked: Any) -> None:
        rules.put(asked, await rules.share.awaited(timeout))

    configuration.refresh_api_key_hook = fresh
    return rules


class _RetryingClient(RESTClientObject):
    def __init__(self, configuration: Any, rules: Rules) -> None:
        super().__init__(configuration)
        self._rules = rules

    async def request(self, method: Any, url: Any, headers: Any = None, *args: Any, **options: Any) -> Any:
        ask: Any = super().request  # Untyped there.
        headers = dict(headers or {})
        sent = self._rules.sent(url, headers)
        # The SDK changes the headers that it is given.
        response = await ask(method, url, dict(headers), *args, **options)
        if sent is None or not self._is_refusal(sent, response):
            return response
        renewed = self._rules.renew(
            headers, await self._rules.share.another_awaited(sent.token, self._rules.timeout)
        )
        if renewed is None:
            return response
        response.response.release()
        response = await ask(method, url, headers, *args, **options)
        self._is_refusal(renewed, response)
        return response

    def _is_refusal(self, sent: Bearer, response: Any) -> bool:
        challenge = challenges(response.headers)
        end = str(response.response.url)
        return self._rules.is_refusal(sent, response.status, challenge, url=end)
