"""Says what went wrong on the way to a backend, by the type of the exception, never by its text."""

from __future__ import annotations

import errno
import socket
import ssl
from types import ModuleType
from typing import Final, TypeVar

from token_keeper._errors import TransientFetchError
from token_keeper.sources._source import as_cause, chained

E = TypeVar("E", bound=BaseException)

_LATER: Final = "The keeper tries again by itself"


def network_problem(error: BaseException, package: ModuleType, origin: str) -> TransientFetchError:
    """Return what the *error* of the HTTP *package* means. Only a cause of the system is chained.

    The package's own exceptions are not: they hold the request, and their
    texts may quote a header.
    """
    causes = list(chained(error))
    found, remedy, cause = _system_problem(causes, origin) or _package_problem(error, package, origin)
    is_timeout = isinstance(error, package.TimeoutException) or isinstance(cause, TimeoutError)
    problem = TransientFetchError(f"{found}; a valid token stays. {remedy}", timed_out=is_timeout)
    problem.__cause__ = as_cause(cause)
    return problem


def too_slow(origin: str, seconds: float) -> TransientFetchError:
    """Return the failure of a backend that did not answer in time."""
    return TransientFetchError(
        f"{origin} timed out: no complete answer within {seconds:g} s; a valid token stays. "
        "If it usually takes longer, raise timeout",
        timed_out=True,
    )


def _system_problem(causes: list[BaseException], origin: str) -> tuple[str, str, BaseException] | None:
    if untrusted := _first(causes, ssl.SSLCertVerificationError):
        return (
            f"the certificate of {origin} is not trusted ({untrusted.verify_message})",
            "If the backend has a private authority, give its certificate as ca_file",
            untrusted,
        )
    if tls := _first(causes, ssl.SSLError):
        reason = tls.reason or type(tls).__name__
        return f"TLS with {origin} failed ({reason})", "Check the scheme, the port and client_cert", tls
    if unknown := _first(causes, socket.gaierror):
        return f"the host of {origin} has no address (DNS)", "Check the URL and the resolver", unknown
    if refused := _first(causes, ConnectionRefusedError):
        return f"{origin} refused the connection", "Check that the backend runs, and the port", refused
    if broken := _first(causes, ConnectionError):
        return f"{origin} broke the connection off before its answer was complete", _LATER, broken
    if error := _first(causes, OSError):
        code = errno.errorcode.get(error.errno or 0, type(error).__name__)
        return f"{origin} cannot be reached ({code})", "Check the network", error
    return None


def _package_problem(error: BaseException, package: ModuleType, origin: str) -> tuple[str, str, None]:
    kind = type(error).__name__
    if isinstance(error, package.ConnectTimeout):
        return f"{origin} timed out: no connection in time", "Check the host, the port and the network", None
    if isinstance(error, package.TimeoutException):
        return f"{origin} timed out ({kind})", _LATER, None
    if isinstance(error, package.ProxyError):
        return "the proxy did not let the request through", "Check proxy, and HTTPS_PROXY and the like", None
    if isinstance(error, package.ReadError | package.WriteError | package.RemoteProtocolError):
        return f"{origin} broke the connection off before its answer was complete ({kind})", _LATER, None
    if isinstance(error, package.NetworkError):
        return f"{origin} cannot be reached ({kind})", "Check the network", None
    if isinstance(error, package.HTTPError | package.InvalidURL):
        return (
            f"the request to {origin} could not be sent ({kind})",
            "Check url, headers, params and body",
            None,
        )
    return (
        f"the request to {origin} failed with {kind}",
        "If a client was passed in: is it open, and used in this event loop only?",
        None,
    )


def _first(causes: list[BaseException], kind: type[E]) -> E | None:
    return next((cause for cause in causes if isinstance(cause, kind)), None)
