"""Shows the token to Twilsock, and says what its answer means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import httpx

from token_keeper._errors import ConfigError
from token_keeper._model import DenialClass, Secret
from token_keeper.doctor._findings import Examined
from token_keeper.doctor._report import Status, Step, skipped
from token_keeper.doctor._words import length
from token_keeper.inspection import Expectations
from token_keeper.profiles import Certainty, Explanation, explain, profile_named
from token_keeper.profiles._products import TWILIO
from token_keeper.sources._clients import TlsFiles
from token_keeper.twilsock import ProbeResult, check_installed, endpoint_of, probe

NAME: Final = "twilsock"
_USUAL_REGION: Final = "us1"
_CREDENTIALS: Final = frozenset({"looks-like-auth-token", "looks-like-api-secret", "looks-like-sid"})
_WAYS: Final = (
    "Check the network, where a firewall or a proxy has to let WebSockets to this host through, "
    "and what --twilsock-url and --region say."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect:
    """Whom to show the token to.

    Args:
        url: A Twilsock server; None is Twilio's own.
        region: Of Twilio; None goes by the token.
        timeout: For all of it, in seconds.
        ca_file: Authorities to trust at *url*, in PEM. Twilio's own are public.
    """

    url: str | None = field(default=None, repr=False)
    region: str | None = None
    timeout: float = 10.0
    ca_file: str | None = None

    def check(self) -> None:
        """Check what can be checked before a token is there.

        Raises:
            ConfigError: About ``twilsock_url``, ``region``, or ``twilsock`` if the extra is missing.
        """
        check_installed()
        try:
            endpoint_of(self.url, region=self.region or _USUAL_REGION)
        except ConfigError as wrong:
            key = {"url": "twilsock_url"}.get(wrong.key, wrong.key)
            raise ConfigError(key, wrong.problem) from None


def not_connected(connect: Connect | None, why: str) -> tuple[Step, ...]:
    """Return the step as skipped, if it was asked for."""
    return () if connect is None else skipped((NAME,), why)


async def connected(
    connect: Connect | None, examined: Examined, *, expect: Expectations, key: Secret | None
) -> tuple[Step, ...]:
    """Show the token to Twilsock, if that was asked for, and say what came of it.

    Args:
        connect: Whom to show it to; None is nobody.
        examined: The token.
        expect: What it must be good for.
        key: What to check its signature with.
    """
    if connect is None:
        return ()
    if examined.inspection.profile != TWILIO:
        return not_connected(connect, "only a token of Twilio's is shown to Twilsock; see --profile twilio")
    if examined.inspection.codes & _CREDENTIALS:
        return not_connected(connect, "a credential is not shown to anybody")
    files = TlsFiles(ca_file=connect.ca_file if connect.url is not None else None)
    result = await probe(
        examined.secret,
        url=connect.url,
        region=connect.region or _region_of(examined.inspection.header or {}),
        timeout=connect.timeout,
        ssl_context=files.context(httpx.create_ssl_context()),
    )
    return (_step(result, _explained(result, examined, expect=expect, key=key)),)


def _region_of(header: Mapping[str, object]) -> str:
    region = header.get("twr")
    if not isinstance(region, str):
        return _USUAL_REGION
    try:
        endpoint_of(region=region)
    except ConfigError:
        return _USUAL_REGION
    return region


def _explained(
    result: ProbeResult, examined: Examined, *, expect: Expectations, key: Secret | None
) -> Explanation | None:
    twilio = profile_named(TWILIO)
    code = result.code if result.code is not None else result.status
    if result.connected or not result.answered or twilio.entry(code) is None:
        return None
    return explain(
        code or 0, examined.secret, now=examined.now, profile=twilio, expectations=expect, secret=key
    )


def _step(result: ProbeResult, meaning: Explanation | None) -> Step:
    took = length(result.took_s)
    details = {
        "endpoint": result.endpoint,
        "connected": result.connected,
        "status": result.status,
        "code": result.code,
        "description": result.description,
        "class": meaning.denial_class.value if meaning else None,
        "seconds": round(result.took_s, 3),
        "retry_after": result.retry_after_s,
    }
    if result.connected:
        summary = f"{result.endpoint} accepted the token, in {took}"
        return Step(name=NAME, status=Status.OK, summary=summary, details=details)
    if not result.answered:
        summary = f"no verdict from {result.endpoint}: {result.description}"
        return Step(name=NAME, status=Status.FAILED, summary=summary, details=details, remedy=_WAYS)
    numbers = ", ".join(str(number) for number in (result.status, result.code) if number is not None)
    answer = f"{numbers or 'no code'}: {result.description}, in {took}"
    if meaning is None:
        remedy = "Look at the answer, and into Twilio's Debugger in the Console (Monitor, Errors)."
        summary = f"{result.endpoint} refused with {answer}"
        return Step(name=NAME, status=Status.FAILED, summary=summary, details=details, remedy=remedy)
    return _explained_step(result, meaning, answer=answer, details=details)


def _explained_step(
    result: ProbeResult, meaning: Explanation, *, answer: str, details: Mapping[str, object]
) -> Step:
    is_throttled = meaning.denial_class is DenialClass.THROTTLED
    wait = f"Wait {length(result.retry_after_s)} and try again. " if result.retry_after_s else ""
    verdict = "did not judge the token:" if is_throttled else "refused the token with"
    return Step(
        name=NAME,
        status=Status.WARNING if is_throttled else Status.FAILED,
        summary=f"{result.endpoint} {verdict} {answer}",
        details=details,
        remedy=wait + meaning.actions[0],
        notes=_causes(meaning),
    )


def _causes(meaning: Explanation) -> tuple[str, ...]:
    """Return what the token confirms; if that is nothing, what is left to check."""
    confirmed = [each for each in meaning.causes if each.certainty is Certainty.CONFIRMED]
    open_ones = [each for each in meaning.causes if each.certainty is Certainty.UNKNOWN]
    if confirmed:
        return tuple(f"{each.cause.text} ({each.evidence})" for each in confirmed)
    return tuple(f"To check: {each.cause.text}" for each in open_ones)
