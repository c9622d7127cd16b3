"""A source that asks an HTTP backend.

It decides what is sent and when it is sent again. How that travels is in
`_exchange`, what an answer means in `_answers`, what a failure means in `_network`.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

from token_keeper._errors import ConfigError, FetchError, TransientFetchError
from token_keeper._model import Issued
from token_keeper.sources import _settings as settings
from token_keeper.sources._answers import token_in
from token_keeper.sources._clients import ClientLease, TlsFiles, package_of
from token_keeper.sources._exchange import HEADERS, Question, ask
from token_keeper.sources._network import network_problem, too_slow
from token_keeper.sources._place import TokenPlace
from token_keeper.sources._source import FETCH_TIMEOUT_S, as_cause, check_seconds, cleanly, without_traces
from token_keeper.sources._tries import retrying
from token_keeper.sources._values import Values

_HEADERS: Final = {"Accept": "application/json, text/plain;q=0.9, */*;q=0.1", **HEADERS}
_VALUES: Final = ("headers", "params", "json", "data", "auth")
_NAMES: Final = f"{', '.join(_VALUES[:-1])} or {_VALUES[-1]}"


class HttpSource:
    """Ask an HTTP backend for tokens.

        source = HttpSource(
            "https://backend.example/token",
            headers={"Authorization": lambda: f"Bearer {key_file.read_text().strip()}"},
            token_path="data.token",
        )

    *headers*, *params*, *json*, *data*, *auth*, or any value in them may be a
    function of no arguments, sync or async. It is called afresh at each fetch.

    Redirects are followed only within the origin, at most five. An answer is at
    most 1 MiB, also after decompression. Nothing is sent before the first fetch.

    Args:
        url: Where tokens are issued. https, or http to loopback.
        method: GET, or POST, which is the default with *json* or *data*.
        headers: Sent with each request.
        params: Added to the query of *url*.
        json: Sent as JSON.
        data: Form fields.
        auth: (user, password), or an Auth of httpx.
        token_path: JMESPath of the token. Without it the usual names are tried.
        expires_path: JMESPath of the lifetime in seconds, or of the time of expiry.
        timeout: Seconds for one try, from the name's resolution to the end of
            the body; at most 30, which is also the most for a whole fetch.
        default_lifetime: Seconds, for opaque tokens that do not say theirs.
        client: An AsyncClient of httpx or httpx2, instead of the shared one. Never closed.
        ca_file: PEM file with the authorities to trust, instead of the usual ones.
        client_cert: PEM file with the certificate to show.
        client_key: PEM file with its key, if that is not in *client_cert*.
        proxy: URL of a proxy, or an `httpx.Proxy`. Without it the environment decides.
        allow_http: Send secrets in the clear to other hosts, too.

    Raises:
        ConfigError: If a setting cannot work.
    """

    splay = True

    def __init__(  # noqa: PLR0913 - Each is a word of httpx, and all have a default.
        self,
        url: str,
        *,
        method: str | None = None,
        headers: Any = None,
        params: Any = None,
        json: Any = None,
        data: Any = None,
        auth: Any = None,
        token_path: str | None = None,
        expires_path: str | None = None,
        timeout: float = 10.0,
        default_lifetime: float | None = None,
        client: Any = None,
        ca_file: str | None = None,
        client_cert: str | None = None,
        client_key: str | None = None,
        proxy: Any = None,
        allow_http: bool = False,
    ) -> None:
        try:
            self._endpoint = settings.endpoint_of(url, allow_http=allow_http)
            has_body = json is not None or data is not None
            self._method = settings.method_of(method, has_body=has_body)
            settings.check_headers(headers)
            settings.check_params(params)
            settings.check_body(json, data)
            settings.check_auth(auth)
            settings.check_proxy(proxy)
            check_seconds("timeout", timeout, most=FETCH_TIMEOUT_S)
            tls = TlsFiles(ca_file=ca_file, client_cert=client_cert, client_key=client_key)
            self._lease = ClientLease(client=client, tls=tls, proxy=proxy)
            self._is_passed_in = client is not None
            given = zip(_VALUES, (headers, params, json, data, auth), strict=True)
            self._values = {name: Values(name, setting) for name, setting in given}
            self._place = TokenPlace(
                token_path=token_path, expires_path=expires_path, default_lifetime=default_lifetime
            )
            self._timeout = timeout
        except ConfigError as error:
            problem = without_traces(error)
        else:
            return
        # A traceback shows the locals of its frames: a header with a line end in it is a secret all the same.
        del url, headers, params, json, data, auth, client, proxy
        raise problem

    def __repr__(self) -> str:
        return f"<HttpSource {self.origin}{self._endpoint.path}>"

    @property
    def origin(self) -> str:
        """Scheme, host and port of the backend."""
        return self._endpoint.origin

    async def fetch(self, *, tries: int = 1) -> Issued:
        """Ask for a token, within 30 s.

        Args:
            tries: How often to ask at most: again only after what may pass
                at once, and not if the backend said how long to wait.

        Raises:
            TransientFetchError: If the backend was not reached or cannot answer now.
            RefusedError: If it will not issue a token.
            ResponseError: If what it answered is not a token.
        """
        return await cleanly(self._outcome(tries))

    async def aclose(self) -> None:
        """Close the connections, unless other sources or a passed-in client need them."""
        await self._lease.aclose()

    async def _outcome(self, tries: int) -> Issued | FetchError:
        """Return the token or why there is none. Nothing is raised: frames down there hold secrets."""
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                question = await self._question()
                client = await self._lease.client()
                outcome: Issued | FetchError = await retrying(tries)(self._try, client, question)
                return outcome
        except FetchError as error:
            return without_traces(error)
        except TimeoutError:
            return too_slow(self.origin, FETCH_TIMEOUT_S)
        except Exception as error:  # noqa: BLE001 - Whatever it is, the keeper goes on.
            cause = as_cause(error) if isinstance(error, OSError | ImportError) else None
            remedy = "Its __cause__ says more" if cause else f"Check what the functions for {_NAMES} return"
            problem = TransientFetchError(
                f"the fetch from {self.origin} failed with {type(error).__name__}; "
                f"a valid token stays. {remedy}"
            )
            problem.__cause__ = cause
            return problem

    async def _question(self) -> Question:
        try:
            async with asyncio.timeout(self._timeout):
                values = {name: await value.resolve() for name, value in self._values.items()}
        except TimeoutError:
            raise TransientFetchError(
                f"a function for {_NAMES} did not return within {self._timeout:g} s; "
                "a valid token stays. If it usually takes longer, raise timeout",
                timed_out=True,
            ) from None
        return Question(
            method=self._method,
            url=self._endpoint.url,
            headers=self._headers(cast("dict[str, str]", values["headers"] or {})),
            params=values["params"],
            json=values["json"],
            data=values["data"],
            auth=values["auth"],
            timeout_s=self._timeout,
        )

    def _headers(self, given: dict[str, str]) -> dict[str, str]:
        """Return the headers to send: those of the user, and ours that he did not set."""
        for name, value in given.items():
            if not settings.is_header_value(value):
                raise TransientFetchError(
                    f"headers[{name!r}]: the function returned what no header can hold; "
                    "a valid token stays. Let it return a string of visible ASCII"
                )
        set_already = {name.lower() for name in given}
        ours = {"Accept-Encoding": "identity"} if self._is_passed_in else _HEADERS
        return {name: value for name, value in ours.items() if name.lower() not in set_already} | given

    async def _try(self, client: Any, question: Question) -> Issued | FetchError:
        try:
            async with asyncio.timeout(self._timeout):
                answer = await ask(client, question)
            return token_in(answer, self._place)
        except FetchError as error:
            return without_traces(error)
        except TimeoutError:
            return too_slow(self.origin, self._timeout)
        except Exception as error:  # noqa: BLE001 - Sorted there by type.
            return network_problem(error, package_of(client), self.origin)
