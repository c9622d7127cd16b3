"""Signs JWTs with a private key: assertions for OAuth 2.0, and bearer tokens such as GitHub's.

It decides which algorithm fits a key. Where the key comes from is its callers' affair.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from token_keeper._errors import ConfigError, FetchError, TransientFetchError
from token_keeper._model import Secret
from token_keeper.sources._source import as_cause, check_seconds, without_traces

LONGEST_LIFE_S: Final = 86_400.0
"""A signed JWT is a credential: none is issued for longer."""

_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_BY_CURVE: Final = {
    "secp256r1": ("ES256",),
    "secp384r1": ("ES384",),
    "secp521r1": ("ES512",),
    "secp256k1": ("ES256K",),
}
_EDWARDS: Final = ("EdDSA",)
_ALGORITHMS: Final = (*_RSA, "ES256", "ES384", "ES512", "ES256K", *_EDWARDS)
_FEWEST_RSA_BITS: Final = 2048
# GitHub and others refuse what seems to be issued in the future.
_BACKDATED_S: Final = 60.0


class Signer:
    """Signs with whatever key it is given, and remembers the last one parsed.

    Args:
        key_id: For the header `kid`.
        algorithm: Such as ``RS256``. Without it the key decides.
        headers: More members of the header.
        headers_key: What the user calls *headers*.

    Raises:
        ConfigError: If one of them cannot work.
    """

    def __init__(
        self,
        *,
        key_id: str | None = None,
        algorithm: str | None = None,
        headers: Mapping[str, object] | None = None,
        headers_key: str = "headers",
    ) -> None:
        if key_id is not None and (not isinstance(key_id, str) or not key_id):
            raise ConfigError("key_id", "must be a string")
        if algorithm is not None and algorithm not in _ALGORITHMS:
            raise ConfigError("algorithm", f"must be one of {', '.join(_ALGORITHMS)}")
        self._algorithm = algorithm
        self._headers = _checked_headers(headers_key, headers) | ({"kid": key_id} if key_id else {})
        self._digest = b""
        self._key: Any = None
        self._fits: tuple[str, ...] = ()

    def problem(self, pem: str) -> tuple[str, str] | None:
        """Return which setting is wrong if *pem* cannot sign, and why; None if it can."""
        digest = hashlib.sha256(pem.encode("utf-8", "surrogatepass")).digest()
        if digest != self._digest:
            key = _parsed(pem)
            if isinstance(key, str):
                return "private_key", key
            fits = _fitting(key)
            if isinstance(fits, str):
                return "private_key", fits
            self._digest, self._key, self._fits = digest, key, fits
        if self._algorithm is not None and self._algorithm not in self._fits:
            return "algorithm", f"does not fit private_key, which can {' or '.join(self._fits)}"
        return None

    def signed(self, pem: str, claims: Mapping[str, object]) -> Secret:
        """Return *claims* signed with the private key *pem*.

        Raises:
            TransientFetchError: If the key or the claims cannot work.
        """
        wrong = self.problem(pem)
        token = None if wrong else self._encoded(claims)
        del pem
        if wrong:
            raise TransientFetchError(f"{wrong[0]}: {wrong[1]}; a valid token stays")
        if token is None:
            raise TransientFetchError(
                "the claims to sign cannot be written as JSON; a valid token stays. "
                "Check what their functions return"
            )
        return Secret(token)

    def _encoded(self, claims: Mapping[str, object]) -> str | None:
        import jwt  # noqa: PLC0415 - Only who signs pays for it.

        algorithm = self._algorithm or self._fits[0]
        try:
            return jwt.encode(dict(claims), self._key, algorithm=algorithm, headers=self._headers)
        except (TypeError, ValueError, RecursionError, jwt.PyJWTError):
            return None


class SignedJwt:
    """A function that returns ``Bearer`` and a fresh JWT, for a header.

        HttpSource(
            "https://api.github.com/app/installations/42/access_tokens",
            method="POST",
            headers={"Authorization": SignedJwt(private_key=key_of_the_app, claims={"iss": "12345"})},
        )

    `iat` is a minute ago, for servers whose clock is behind, `exp` is
    *lifetime* ahead; both may be set in *claims*.

    Args:
        private_key: PEM without a passphrase, or a sync function that returns it.
        claims: What to sign.
        lifetime: Seconds until the JWT expires, at most a day.
        key_id: For the header `kid`.
        algorithm: Without it: RS256, ES256, ES384, ES512 or EdDSA, as the key is.
        headers: More members of the JWT's header.

    Raises:
        ConfigError: If a setting cannot work.
    """

    def __init__(  # noqa: PLR0913 - Each has its place in a JWT.
        self,
        *,
        private_key: str | Secret | Callable[[], str | Secret],
        claims: Mapping[str, object],
        lifetime: float = 540.0,
        key_id: str | None = None,
        algorithm: str | None = None,
        headers: Mapping[str, object] | None = None,
    ) -> None:
        try:
            if inspect.iscoroutinefunction(private_key):
                raise ConfigError("private_key", "must be a function that is not async")  # noqa: TRY301
            check_seconds("lifetime", lifetime, most=LONGEST_LIFE_S)
            self._signer = Signer(key_id=key_id, algorithm=algorithm, headers=headers)
            self._private_key = checked_key(private_key, self._signer)
            self._claims = dict(checked_claims("claims", claims))
            self._lifetime = lifetime
        except ConfigError as error:
            problem = without_traces(error)
        else:
            return
        del private_key, claims, headers
        raise problem

    def __repr__(self) -> str:
        return "<SignedJwt>"

    def __call__(self) -> str:
        """Return ``Bearer`` and a JWT that was just signed.

        Raises:
            FetchError: If that cannot be done.
        """
        outcome = self._outcome()
        if isinstance(outcome, FetchError):
            raise outcome
        return f"Bearer {outcome.reveal()}"

    def _outcome(self) -> Secret | FetchError:
        try:
            key = self._private_key() if callable(self._private_key) else self._private_key
            pem = key.reveal() if isinstance(key, Secret) else key
            claims = timed_claims(lifetime=self._lifetime, backdated=_BACKDATED_S) | self._claims
            return self._signer.signed(pem, claims)
        except FetchError as error:
            return without_traces(error)
        except Exception as error:  # noqa: BLE001 - A function of the user's may raise anything.
            problem = TransientFetchError(
                f"the function for private_key failed with {type(error).__name__}; a valid token stays. "
                "Let it return a string; its exception is this one's __cause__"
            )
            problem.__cause__ = as_cause(error)
            return problem


def checked_key(private_key: Any, signer: Signer) -> Any:
    """Return *private_key* as a Secret or the function that it is.

    Raises:
        ConfigError: About it, or about `algorithm` of *signer*, if it cannot sign.
    """
    if callable(private_key):
        return private_key
    pem = private_key.reveal() if isinstance(private_key, Secret) else private_key
    if not isinstance(pem, str):
        raise ConfigError("private_key", "must be a string, a Secret, or a function that returns one")
    if wrong := signer.problem(pem):
        raise ConfigError(*wrong)
    return Secret(pem)


def checked_claims(key: str, claims: object) -> Mapping[str, object]:
    """Return *claims*, which the user set as *key*.

    Raises:
        ConfigError: If they are no mapping of names to what JSON can say.
    """
    if not isinstance(claims, Mapping) or not all(isinstance(name, str) for name in claims):
        raise ConfigError(key, "must be a mapping of claims, such as {'iss': '12345'}")
    if not _is_json(claims):
        raise ConfigError(key, "cannot be written as JSON")
    return claims


def timed_claims(*, lifetime: float, backdated: float = 0.0) -> dict[str, object]:
    """Return `iat`, `exp` and `jti` for a JWT that is signed now.

    Args:
        lifetime: Seconds from now.
        backdated: Seconds by which `iat` is in the past.
    """
    now = time.time()
    return {"iat": int(now - backdated), "exp": int(now + lifetime), "jti": secrets.token_urlsafe(16)}


def _checked_headers(key: str, headers: object) -> dict[str, object]:
    if headers is None:
        return {}
    if not isinstance(headers, Mapping) or not all(isinstance(name, str) for name in headers):
        raise ConfigError(key, "must be a mapping of names to values, such as {'x5t#S256': '...'}")
    if "alg" in headers:
        raise ConfigError(f"{key}['alg']", "is set by algorithm")
    if not isinstance(headers.get("kid", ""), str):
        raise ConfigError(f"{key}['kid']", "must be a string")
    if not _is_json(headers):
        raise ConfigError(key, "cannot be written as JSON")
    return dict(headers)


def _is_json(document: Mapping[Any, Any]) -> bool:
    try:
        json.dumps(dict(document), allow_nan=False, default=_later)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _later(value: object) -> object:
    if callable(value) or isinstance(value, Secret):
        return ""
    raise TypeError


def _parsed(pem: str) -> Any:
    """Return the key in *pem*, or why there is none."""
    try:
        from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - Only who signs pays for it.
        from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415
    except ImportError:
        return "needs the package cryptography: pip install cryptography"
    if not isinstance(pem, str) or "-----BEGIN" not in pem:
        return "is no private key: it must be in PEM, which begins with -----BEGIN"
    try:
        return load_pem_private_key(pem.encode("utf-8", "replace"), password=None)
    except TypeError:
        return "is encrypted: give a key without a passphrase"
    except (ValueError, UnsupportedAlgorithm):
        return "cannot be read as a private key in PEM: check that it is whole, and no certificate"


def _fitting(key: object) -> tuple[str, ...] | str:
    """Return the algorithms for *key*, the usual one first, or why there is none."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa  # noqa: PLC0415

    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < _FEWEST_RSA_BITS:
            return f"has {key.key_size} bits: RFC 7518 wants {_FEWEST_RSA_BITS} at least"
        return _RSA
    if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        return _EDWARDS
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _BY_CURVE:
        return _BY_CURVE[key.curve.name]
    return "is of a kind that signs no JWT: use RSA, P-256, P-384, P-521 or Ed25519"
