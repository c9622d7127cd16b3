"""One form that is posted to an authorization server, and how far it got.

It decides what was certainly not sent. What an answer means is in `_reading`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Final

from token_keeper._errors import FetchError
from token_keeper._model import Secret
from token_keeper.sources._answers import Answer
from token_keeper.sources._clients import package_of
from token_keeper.sources._exchange import HEADERS, Question, ask
from token_keeper.sources._network import network_problem, too_slow
from token_keeper.sources._settings import Endpoint
from token_keeper.sources._source import without_traces
from token_keeper.sources.oauth2._outcomes import Delivery, NotGranted

Fields = Mapping[str, Secret | str | Sequence[str]]
"""Of a form. A name with several values is sent several times."""

_HEADERS: Final = {"Accept": "application/json", **HEADERS}


@dataclass(slots=True)
class Form:
    """What to send.

    Args:
        endpoint: Where to.
        fields: Of the body; None is a GET.
        authorization: Of the header, if there is to be one.
    """

    endpoint: Endpoint
    fields: Fields | None = None
    authorization: Secret | None = field(default=None, repr=False)


async def send(client: Any, form: Form, *, timeout_s: float) -> Answer | NotGranted:
    """Send *form* with *client*, once, and return what was answered. Raises nothing but CancelledError."""
    try:
        came = await _outcome(client, form, timeout_s)
    except asyncio.CancelledError as error:
        raise without_traces(error) from None
    return came


async def _outcome(client: Any, form: Form, timeout_s: float) -> Answer | NotGranted:
    trace, package, origin = _Trace(), package_of(client), form.endpoint.origin
    problem: FetchError
    try:
        async with asyncio.timeout(timeout_s):
            return await ask(client, _question(form, package, trace, timeout_s))
    except FetchError as error:
        # It was redirected to where it must not go.
        return NotGranted(error=without_traces(error), delivery=Delivery.ANSWERED)
    except TimeoutError:
        return NotGranted(error=too_slow(origin, timeout_s), delivery=trace.delivery(None, package))
    except Exception as error:  # noqa: BLE001 - Sorted there by type.
        delivery = trace.delivery(error, package)
        problem = network_problem(error, package, origin)
    return NotGranted(error=problem, delivery=delivery)


def _question(form: Form, package: ModuleType, trace: _Trace, timeout_s: float) -> Question:
    headers = dict(_HEADERS)
    if form.authorization is not None:
        headers["Authorization"] = form.authorization.reveal()
    return Question(
        method="GET" if form.fields is None else "POST",
        url=form.endpoint.url,
        headers=headers,
        params=None,
        json=None,
        data=None if form.fields is None else {name: _plain(value) for name, value in form.fields.items()},
        # An Auth of the client's would overwrite our own header.
        auth=None if form.authorization is None else package.Auth(),
        timeout_s=timeout_s,
        extensions={"trace": trace},
        keeps_method=True,
        reads_all=True,
    )


def _plain(value: Secret | str | Sequence[str]) -> str | list[str]:
    if isinstance(value, Secret):
        return value.reveal()
    return value if isinstance(value, str) else list(value)


class _Trace:
    """Notices when the first byte of a request leaves: httpcore tells what it does."""

    def __init__(self) -> None:
        self._is_told = False
        self._is_sent = False

    async def __call__(self, event: str, told: Mapping[str, Any]) -> None:
        self._is_told = True
        # A proxy is asked with CONNECT first, which carries nothing of ours.
        if event.endswith("send_request_headers.started"):
            request = told.get("request")
            self._is_sent = self._is_sent or getattr(request, "method", b"") != b"CONNECT"

    def delivery(self, error: Exception | None, package: ModuleType) -> Delivery:
        """Return what is certain after *error*, or after our own time limit."""
        if self._is_told:
            return Delivery.LOST if self._is_sent else Delivery.NEVER_SENT
        # A transport of the user's tells nothing: the kind of error must do.
        before = package.ConnectError | package.ConnectTimeout | package.PoolTimeout | package.ProxyError
        is_before = isinstance(error, before | package.UnsupportedProtocol | package.InvalidURL)
        return Delivery.NEVER_SENT if is_before else Delivery.LOST
