"""Checks signatures, with PyJWT, which is imported when there is a key to check with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from token_keeper._finding import Finding
from token_keeper._secret import Secret
from token_keeper.inspection._findings import error
from token_keeper.inspection._profile import Context, Key
from token_keeper.inspection._reading import is_canonical, signed_parts

if TYPE_CHECKING:
    from jwt.algorithms import Algorithm

SHARED = frozenset({"HS256", "HS384", "HS512"})
"""The algorithms whose key is a shared secret. A public key must never be used as one."""


def signature(context: Context) -> Iterator[Finding]:
    """Check the signature, if there is a key to check with."""
    if context.key is None or not context.is_jwt:
        return
    problem = _problem(context.reading.value, context.header, context.key)
    if problem:
        yield error(
            "signature-invalid",
            problem,
            "Sign with the secret of the very key that the token names, and change nothing after signing.",
        )


def _problem(token: Secret, header: Mapping[str, object], key: Key) -> str:
    from jwt.algorithms import get_default_algorithms  # noqa: PLC0415 # Costs more than all else here.

    name = header.get("alg")
    algorithm = get_default_algorithms().get(name) if isinstance(name, str) and name != "none" else None
    if algorithm is None:
        return "the signature cannot be checked: alg names no algorithm that is known here"
    document = _document(key)
    shared = name in SHARED
    if document is None and isinstance(key, Secret):
        if shared is _is_pem(key):
            return "the signature cannot be checked: alg does not go with the key that was given"
        candidates: list[object] = [key]
    else:
        candidates = _keys_in(document or {}, header.get("kid"), shared=shared)
        if not candidates:
            return "the signature cannot be checked: no key of the set goes with kid and alg"
    if any(_verifies(token, algorithm, candidate) for candidate in candidates):
        # The last character has bits to spare: changed in those, it still decodes to the same bytes.
        return "" if is_canonical(token) else "the signature was altered: no encoder ends one like this"
    return "the signature does not match: another secret, or altered after signing"


def _is_pem(key: Secret) -> bool:
    return key.reveal().lstrip().startswith("-----BEGIN")


def _document(key: Key) -> Mapping[str, object] | None:
    """Return the JWK or JWKS that *key* is, or None if it is a secret or PEM."""
    if not isinstance(key, Secret):
        return key
    if not key.reveal().lstrip().startswith("{"):
        return None
    try:
        document = json.loads(key.reveal())
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) and {"keys", "kty"} & document.keys() else None


def _keys_in(document: Mapping[str, object], kid: object, *, shared: bool) -> list[object]:
    keys = document.get("keys", [document])
    found = [key for key in keys if isinstance(key, dict)] if isinstance(keys, list) else []
    fitting = [key for key in found if (key.get("kty") == "oct") is shared]
    named = [key for key in fitting if key.get("kid") == kid]
    return list(named if kid is not None and any("kid" in key for key in found) else fitting)


def _verifies(token: Secret, algorithm: Algorithm, candidate: object) -> bool:
    signing_input, signature_bytes = signed_parts(token)
    try:
        if isinstance(candidate, Secret):
            prepared: Any = algorithm.prepare_key(candidate.reveal())
        else:
            prepared = algorithm.from_jwk(candidate)  # type: ignore[arg-type] # It is a dict.
        return bool(algorithm.verify(signing_input, prepared, signature_bytes))
    except Exception:  # noqa: BLE001 # Whatever a foreign key makes PyJWT raise: it does not verify.
        return False
