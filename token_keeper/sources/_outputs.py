"""Where the token stands in what a program printed.

Beside raw tokens and JSON of any kind, two documents are known that programs
print for other tools: those of kubectl's exec plugins and of AWS's credential_process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from token_keeper._errors import ResponseError
from token_keeper._extract import parse_json
from token_keeper._lifetime import moment
from token_keeper._model import Issued
from token_keeper._shape import shape_of
from token_keeper.sources._place import TokenPlace

FORMATS: Final = ("auto", "raw", "json", "exec_credential", "credential_process")
"""What a program may print."""
EXEC_API: Final = "client.authentication.k8s.io/"
EXEC_VERSIONS: Final = ("v1", "v1beta1")


def token_in(text: str, kind: str, place: TokenPlace) -> Issued:
    """Return the token in *text*.

    Args:
        text: What was printed.
        kind: One of `FORMATS`.
        place: Where it stands in JSON of no known kind.

    Raises:
        ResponseError: If there is none.
    """
    if kind == "raw":
        return place.issued({"token": text.strip()})
    document = parse_json(text)
    if kind == "auto":
        is_plain = place.token_path is not None or not isinstance(document, Mapping)
        kind = "plain" if is_plain else _kind_of(document)
    if kind == "exec_credential":
        return _from_exec(document, place)
    if kind == "credential_process":
        return _from_aws(document, place)
    if kind == "json":
        if document is None:
            raise _problem("it is no JSON", 'Let it print JSON, or set format="raw"')
        return place.issued(document)
    return place.issued(text)


def _kind_of(document: object) -> str:
    if not isinstance(document, Mapping):
        return "plain"
    api = document.get("apiVersion")
    if document.get("kind") == "ExecCredential" and isinstance(api, str) and api.startswith(EXEC_API):
        return "exec_credential"
    return "credential_process" if document.get("Version") == 1 and "AccessKeyId" in document else "plain"


def _from_exec(document: object, place: TokenPlace) -> Issued:
    """Read an ExecCredential of the API group client.authentication.k8s.io."""
    if not isinstance(document, Mapping) or document.get("kind") != "ExecCredential":
        raise _problem(f"it is {shape_of(document)}, not an ExecCredential", "Correct run, or format")
    if document.get("apiVersion") not in {f"{EXEC_API}{version}" for version in EXEC_VERSIONS}:
        known = " or ".join(EXEC_VERSIONS)
        raise _problem(f"its apiVersion is not {EXEC_API}{known}", "Let it print one of these")
    status = document.get("status")
    token = status.get("token") if isinstance(status, Mapping) else None
    if not isinstance(status, Mapping) or not token:
        certified = isinstance(status, Mapping) and "clientCertificateData" in status
        held = "a client certificate and no token" if certified else "no status.token"
        raise _problem(f"the ExecCredential holds {held}", "Let it print one: a keeper keeps tokens")
    return _issued(token, status, "expirationTimestamp", place)


def _from_aws(document: object, place: TokenPlace) -> Issued:
    """Read what AWS calls a credential process prints, version 1."""
    if not isinstance(document, Mapping) or "Version" not in document:
        raise _problem(f"it is {shape_of(document)}, not credentials of AWS", "Correct run, or format")
    if document.get("Version") != 1:
        raise _problem("the Version of its credentials is not 1", "Let it print version 1")
    token = document.get("SessionToken")
    if not token:
        raise _problem(
            "its credentials hold no SessionToken",
            "Only short-lived credentials have one: let it print those",
        )
    return _issued(token, document, "Expiration", place)


def _issued(token: object, scope: Mapping[object, object], name: str, place: TokenPlace) -> Issued:
    if not isinstance(token, str):
        raise _problem(f"its token is {shape_of(token)}, not a string", "Let it print a string")
    stated = scope.get(name)
    expires_at = None if stated is None else moment(stated)
    if stated is not None and expires_at is None:
        raise _problem(f"its {name} is no time", "Let it print one such as 2030-01-02T03:04:05Z")
    return replace(place.issued({"token": token}), expires_at=expires_at, expires_in=None)


def _problem(found: str, remedy: str) -> ResponseError:
    return ResponseError(f"{found}; a valid token stays. {remedy}")
