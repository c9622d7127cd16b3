"""The steps of a source that asks an OAuth 2.0 authorization server.

A refresh token is never sent: that would spend it. Then the store is looked into instead.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from token_keeper._errors import FetchError, RefusedError
from token_keeper._model import Secret
from token_keeper.doctor import _findings as findings
from token_keeper.doctor._http import UNREACHED, clock_of, target_of, trusted
from token_keeper.doctor._probes import walk
from token_keeper.doctor._report import Status, Step, skipped
from token_keeper.doctor._seen import NO_DATE, Seen, unseen
from token_keeper.doctor._server import Server, client_step, discovery_step, endpoint_step
from token_keeper.doctor._stored import Asked, grant_step, kept_token, look_into
from token_keeper.doctor._subject import Subject
from token_keeper.doctor._watching import Watching
from token_keeper.sources._clients import TlsFiles
from token_keeper.sources._settings import endpoint_of
from token_keeper.sources._values import Values
from token_keeper.sources.oauth2._discovery import DEVICE, TOKEN, Discovery, Metadata
from token_keeper.sources.oauth2._rotation import ReplayRule
from token_keeper.sources.oauth2._words import REPLAY_LIMIT, REPLAY_WINDOW_S, STORED

_TIMEOUT_S: Final = 10.0
_SPENT: Final = "not asked: it would spend the refresh token"
_STORED: Final = ("store", "stored_as", "replay_window", "replay_limit")
_TRANSPORT: Final = ("ca_file", "client_cert", "client_key", "proxy")
_REFUSALS: Final = {
    "invalid_client": "Check client_id, its secret or key, and auth_method.",
    "unauthorized_client": "Allow this client the grant at the server.",
    "invalid_grant": "Check the assertion or the subject_token: its audience, its times, and who signed it.",
    "access_denied": "Check what the server lets this client have: scope, audience, resource.",
}


@dataclass(frozen=True, slots=True)
class _Way:
    """How far we came to the server, and what it says of itself."""

    steps: tuple[Step, ...]
    metadata: Metadata | None


async def see_oauth2(subject: Subject, *, clock: Callable[[], float]) -> Seen:
    """Walk to the server, and ask it once or look into the store; return what came of it.

    Raises:
        ConfigError: If a setting cannot work.
    """
    source = subject.made()
    words, server = subject.words, _server(subject.words)
    context = trusted(_tls_files(words))
    try:
        watching = Watching(context, proxy=words.get("proxy"), clock=clock)
    except (ImportError, ValueError):
        # The source's own proxy was checked when it was made.
        return unseen(server.place, (_BAD_PROXY,), UNREACHED, at=clock())
    try:
        async with watching.client:
            return await _seen(subject, server, watching, clock)
    finally:
        await source.aclose()


_BAD_PROXY: Final = Step(
    name="http",
    status=Status.FAILED,
    summary="the environment sets a proxy that cannot be used",
    remedy="Correct HTTPS_PROXY and ALL_PROXY; SOCKS needs pip install 'httpx[socks]'.",
)


async def _seen(subject: Subject, server: Server, watching: Watching, clock: Callable[[], float]) -> Seen:
    words = subject.words
    way = await _way(server, words, watching, clock)
    if server.grant in STORED:
        return await _kept(server, words, way, watching)
    kept = await _keeping(server, words, clock)
    if any(step.status is Status.FAILED for step in way.steps):
        steps = (*way.steps, *kept, *skipped(("http",), UNREACHED))
        return unseen(server.place, steps, UNREACHED, at=clock())
    return await _asked(subject, server, replace(way, steps=(*way.steps, *kept)), watching)


def _server(words: Mapping[str, Any]) -> Server:
    issuer, token_url, allow_http = words.get("issuer"), words.get("token_url"), words.get("allow_http")
    given = {TOKEN: token_url, DEVICE: words.get("device_authorization_url")}
    return Server(
        issuer=None if issuer is None else endpoint_of(issuer, allow_http=bool(allow_http), key="issuer"),
        token_url=token_url,
        given={name: url for name, url in given.items() if url is not None},
        grant=words.get("grant", "client_credentials"),
        client_id=words.get("client_id"),
        method=words.get("auth_method"),
        has_secret=words.get("client_secret") is not None,
        has_key=words.get("private_key") is not None,
        allow_http=bool(allow_http),
    )


def _tls_files(words: Mapping[str, Any]) -> TlsFiles:
    return TlsFiles(
        ca_file=words.get("ca_file"), client_cert=words.get("client_cert"), client_key=words.get("client_key")
    )


async def _way(
    server: Server, words: Mapping[str, Any], watching: Watching, clock: Callable[[], float]
) -> _Way:
    """Walk to who is asked first; then have an issuer say where its endpoints are."""
    timeout_s, has_proxy = float(words.get("timeout", _TIMEOUT_S)), words.get("proxy") is not None
    target = target_of(server.first, timeout=timeout_s, has_proxy=has_proxy)
    steps = await walk(target, watching.context if target.is_tls else None, now=clock())
    rest = ("discovery", "client")
    if any(step.status is Status.FAILED for step in steps):
        return _Way((*steps, *skipped(rest, "the server was not reached")), None)
    metadata, error = None, None
    if server.issuer is not None:
        try:
            metadata = await Discovery(server.issuer, timeout_s=timeout_s).metadata(watching.client)
        except FetchError as failure:
            error = failure
    found = discovery_step(server, metadata, error)
    steps = (*steps, found)
    if found.status is Status.FAILED:
        return _Way((*steps, *skipped(rest[1:], "the server's metadata are not known")), metadata)
    url = server.endpoint(TOKEN, metadata)
    second = target_of(url, timeout=timeout_s, has_proxy=has_proxy)
    if (second.host, second.port) != (target.host, target.port):
        legs = await walk(second, watching.context if second.is_tls else None, now=clock())
        steps = (*steps, endpoint_step(url, legs))
    return _Way((*steps, client_step(server, metadata)), metadata)


async def _asked(subject: Subject, server: Server, way: _Way, watching: Watching) -> Seen:
    """Fetch once, as a keeper does, but keep nothing of it."""
    instead = dict.fromkeys((*_STORED, *_TRANSPORT))
    words = {name: value for name, value in subject.words.items() if name not in instead}
    source = Subject(subject.kind, words).made(client=watching.client)
    watching.forget()
    begin, issued, error = time.monotonic(), None, None
    try:
        issued = await source.fetch(tries=1)
    except FetchError as failure:
        error = failure
    finally:
        await source.aclose()
    observed = watching.observed(
        issued, error, seconds=time.monotonic() - begin, path=words.get("token_path") or "access_token"
    )
    http = _explained(findings.http_step(observed, takes_options=False), error)
    if http.status is Status.FAILED:
        token, missing = skipped(("token",), "the server issued no token")[0], "the server issued no token"
    else:
        token, missing = findings.token_step(observed, takes_options=False), "no token was found"
    return Seen(
        place=server.place,
        steps=(*way.steps, http),
        received_at=observed.received_at,
        issued=issued,
        token=token,
        missing=missing,
        clock=clock_of(observed),
    )


def _explained(http: Step, error: FetchError | None) -> Step:
    if not isinstance(error, RefusedError):
        return http
    return replace(http, remedy=_REFUSALS.get(error.reason, http.remedy))


async def _keeping(server: Server, words: Mapping[str, Any], clock: Callable[[], float]) -> tuple[Step, ...]:
    """Look into the store of a grant that needs none, if it has one."""
    if words.get("store") is None:
        return ()
    store, record = await asyncio.to_thread(look_into, words["store"], words["stored_as"])
    if store.status is not Status.OK:
        return (store,)
    return store, grant_step(record, await _asked_for(server, words), now=clock())


async def _kept(server: Server, words: Mapping[str, Any], way: _Way, watching: Watching) -> Seen:
    """Look into the store, and judge what is kept there."""
    store, record = await asyncio.to_thread(look_into, words["store"], words["stored_as"])
    http, now = skipped(("http",), _SPENT)[0], watching.clock()
    if store.status is Status.FAILED:
        why = "the store cannot be read"
        return unseen(server.place, (*way.steps, http, store, *skipped(("grant",), why)), why, at=now)
    try:
        asked = await _asked_for(server, words)
    except FetchError as error:
        found, remedy = findings.told(error, takes_options=False)
        failed = Step(name="grant", status=Status.FAILED, summary=found, remedy=remedy)
        return unseen(server.place, (*way.steps, http, store, failed), "the grant is not known", at=now)
    grant, answered = grant_step(record, asked, now=now), watching.observed()
    issued, token = kept_token(record, asked, now=now)
    return Seen(
        place=server.place,
        steps=(*way.steps, http, store, grant),
        received_at=now,
        issued=issued,
        token=token,
        missing="no token that serves is kept",
        is_new=False,
        # Whoever told the metadata said what time it is.
        clock=clock_of(answered) if answered.status is not None else NO_DATE,
    )


async def _asked_for(server: Server, words: Mapping[str, Any]) -> Asked:
    """Return whose grant the store should hold.

    Raises:
        FetchError: If the configured refresh token cannot be had.
    """
    seed = await Values("refresh_token", words.get("refresh_token")).resolve()
    return Asked(
        owner=server.owner,
        grant=server.grant,
        seed=Secret(seed) if isinstance(seed, str) and seed else None,
        rule=ReplayRule(
            window_s=float(words.get("replay_window", REPLAY_WINDOW_S)),
            limit=int(words.get("replay_limit", REPLAY_LIMIT)),
        ),
    )
