"""What the providers of `docs/sources.md` want of a request, and what they answer, as they document it.

A request that a provider would not take is a complaint, and gets the error that
the provider sends. Which page says so stands in `docs/sources.md`.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from provider_files import secret
from provider_server import Asked, UnlikeTheDocumentation

from token_keeper.testing import mint

CLIENT_ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TOKEN_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
DEVICE_CODE: Final = "urn:ietf:params:oauth:grant-type:device_code"
TENANT: Final = "11111111-2222-3333-4444-555555555555"
ENTRA: Final = f"https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/token"
REALM: Final = "https://sso.example/realms/app"
OKTA: Final = "https://example.okta.com"


def need(condition: object, why: str, status: int, document: object) -> None:
    """Complain if *condition* is not met, and answer *document*."""
    if not condition:
        raise UnlikeTheDocumentation(why, status, document)


class Providers:
    """All of them, with what they remember.

    Attributes:
        issued: By the name that a token has on the page: what was issued for it, in order.
        complaints: What was asked in another way than documented.
        rejecting: Names whose credentials are wrong from now on.
        rejected: What was answered to these: the status, and how the page shows the rest.
    """

    def __init__(self) -> None:
        self.issued: defaultdict[str, list[str]] = defaultdict(list)
        self.complaints: list[str] = []
        self.rejecting: set[str] = set()
        self.rejected: dict[str, tuple[int, str]] = {}
        self.seen_jti: set[str] = set()
        self.approved = False
        self.key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
        self.refresh = {
            "keycloak-user": secret("keycloak-refresh-token"),
            "auth0-user": secret("auth0-refresh-token"),
            "google-user": secret("google-refresh-token"),
            "okta-user": "",
            "mail": secret("mail-refresh-token"),
        }

    @property
    def private_key(self) -> str:
        """The key that all examples sign with, in PEM."""
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()

    def answer(self, asked: Asked) -> tuple[int, object]:
        """Answer as the provider at *asked.host* does."""
        try:
            return HOSTS[asked.host](self, asked)
        except UnlikeTheDocumentation as unlike:
            self.complaints.append(f"{asked.method} {asked.host}{asked.path}: {unlike}")
            return unlike.status, unlike.document
        except Exception as error:  # noqa: BLE001 - A complaint as well; only its answer is ours.
            self.complaints.append(f"{asked.method} {asked.host}{asked.path}: {error!r}")
            return 400, {"error": "invalid_request"}

    def reject(self, name: str, status: int, document: dict[str, Any]) -> tuple[int, object]:
        """Answer that the credentials of *name* are wrong."""
        ((key, value), *_) = document.items()
        shown = value if key == "error" else f'{{"{key}": {"[...]" if isinstance(value, list) else "..."}}}'
        self.rejected[name] = (status, shown)
        return status, document

    def new(self, name: str, token: str | None = None, **claims: object) -> str:
        """Issue a token for *name*: *token* with a number, or else a JWT of an hour."""
        serial = len(self.issued[name]) + 1
        made = (
            f"{token}{serial:04}"
            if token
            else mint(expires_at=time.time() + 3600, jti=f"{name}{serial}", **claims)
        )
        self.issued[name].append(made)
        return made

    def claims(self, text: str, audience: str, wrong: tuple[int, object], **more: Any) -> dict[str, Any]:
        """Return the claims of a JWT that we signed for *audience*, for at most an hour, and only once."""
        header = jwt.get_unverified_header(text)
        expected = {"alg": "RS256", "typ": "JWT", **more}
        need(header == expected, f"header {header}, not {expected}", *wrong)
        try:
            claims: dict[str, Any] = jwt.decode(
                text, self.key.public_key(), algorithms=[header["alg"]], audience=audience
            )
        except jwt.PyJWTError as error:
            raise UnlikeTheDocumentation(f"assertion: {error!r}", *wrong) from None
        need(claims["exp"] <= time.time() + 3600, "exp is more than an hour ahead", *wrong)
        if "jti" in claims:
            need(claims["jti"] not in self.seen_jti, "jti was seen before", *wrong)
            self.seen_jti.add(claims["jti"])
        return claims

    def rotated(self, name: str, given: str, wrong: tuple[int, object]) -> str:
        """Return the successor of the refresh token *given*, which is good only once."""
        need(given == self.refresh[name], f"refresh token {given} instead of {self.refresh[name]}", *wrong)
        stem = given.rpartition("-")[0]
        self.refresh[name] = f"{stem}-{int(given.rpartition('-')[2]) + 1}"
        return self.refresh[name]


def granted(token: str, lifetime_s: int = 3600, **more: object) -> dict[str, object]:
    """Return a success by RFC 6749 section 5.1."""
    return {"access_token": token, "token_type": "Bearer", "expires_in": lifetime_s, **more}


def oauth_error(code: str) -> dict[str, str]:
    """Return an error by RFC 6749 section 5.2."""
    return {"error": code, "error_description": "this may repeat what was sent"}


def fields(asked: Asked, grant: str, names: set[str]) -> dict[str, str]:
    """Return the fields of a token request, which has exactly *names* besides the grant."""
    wrong = (400, oauth_error("invalid_request"))
    need(asked.method == "POST", asked.method, 405, {})
    form = asked.form
    need(form.get("grant_type") == grant, f"grant_type {form.get('grant_type')}", *wrong)
    need(form.keys() == names | {"grant_type"}, f"fields {sorted(form)}", *wrong)
    need("application/json" in asked.headers["Accept"], f"Accept: {asked.headers['Accept']}", *wrong)
    return form


def _vault(all_: Providers, asked: Asked) -> tuple[int, object]:
    if asked.path == "/v1/identity/oidc/token/app":
        denied = (403, {"errors": ["1 error occurred:\n\t* permission denied\n\n"]})
        need(asked.method == "GET", asked.method, 405, {"errors": []})
        need(asked.headers["X-Vault-Token"] == secret("vault-agent/token"), "X-Vault-Token", *denied)
        need(asked.headers["X-Vault-Namespace"] == "team-a", "X-Vault-Namespace", *denied)
        token = all_.new("vault-identity", aud="app")
        return 200, _vaults(data={"client_id": "app", "token": token, "ttl": 3600})
    need(asked.method == "POST", asked.method, 405, {"errors": []})
    if asked.path == "/v1/auth/approle/login":
        name, wrong = "vault", (400, {"errors": ["invalid role or secret ID"]})
        if name in all_.rejecting:
            return all_.reject(name, *wrong)
        wanted = {"role_id": "675a50e7-cfe0-be76-e35f-49ec009731ea", "secret_id": secret("secret-id")}
        need(asked.json == wanted, "role_id, secret_id", *wrong)
        need(asked.headers["X-Vault-Namespace"] == "team-a", "X-Vault-Namespace", *wrong)
    else:
        name = "vault-kubernetes"
        need(asked.path == "/v1/auth/kubernetes/login", asked.path, 404, {"errors": []})
        wanted = {"role": "app", "jwt": secret("serviceaccount/token")}
        need(asked.json == wanted, "role, jwt", 403, {"errors": ["permission denied"]})
    auth = {
        "client_token": all_.new(name, "hvs.CAESIJ-"),
        "accessor": "0e9e354a-520f-df04-6867-ee81cae3d42d",
        "policies": ["default"],
        "token_policies": ["default"],
        "metadata": {"role_name": "app"},
        "lease_duration": 1200,
        "renewable": True,
        "token_type": "service",
    }
    return 200, _vaults(auth=auth)


def _vaults(**more: object) -> dict[str, object]:
    usual = {"lease_id": "", "renewable": False, "lease_duration": 0, "warnings": None, "wrap_info": None}
    return {"request_id": "f3d0d2c8-0000-4000-8000-000000000000", **usual, "data": None, "auth": None, **more}


def _keycloak(all_: Providers, asked: Asked) -> tuple[int, object]:
    token_url = f"{REALM}/protocol/openid-connect/token"
    if asked.path == "/realms/app/.well-known/openid-configuration":
        methods = ["private_key_jwt", "client_secret_basic", "client_secret_post", "tls_client_auth"]
        return 200, _metadata(REALM, token_url, methods)
    if asked.path != "/realms/app/protocol/openid-connect/token":
        return 404, {"error": "Unable to find matching target resource method"}
    wrong = (401, oauth_error("unauthorized_client"))
    if "keycloak" in all_.rejecting and asked.form["grant_type"] == "client_credentials":
        return all_.reject("keycloak", *wrong)
    if "client_id" in asked.form:
        return _keycloaks_public_client(all_, asked)
    if asked.form["grant_type"] == TOKEN_EXCHANGE:
        return _keycloaks_exchange(all_, asked)
    need(asked.basic == ("worker", secret("keycloak-secret")), "client authentication", *wrong)
    if asked.form["grant_type"] == "client_credentials":
        fields(asked, "client_credentials", set())
        token = all_.new("keycloak", azp="worker")
        more = {"not-before-policy": 0, "refresh_expires_in": 0, "scope": "profile email"}
        return 200, granted(token, 300, **more)
    form = fields(asked, "refresh_token", {"refresh_token"})
    following = all_.rotated("keycloak-user", form["refresh_token"], (400, oauth_error("invalid_grant")))
    token = all_.new("keycloak-user", azp="worker")
    return 200, granted(token, 300, refresh_expires_in=1800, refresh_token=following, session_state="s")


def _keycloaks_public_client(all_: Providers, asked: Asked) -> tuple[int, object]:
    form = fields(asked, "refresh_token", {"client_id", "refresh_token"})
    need(form["client_id"] == "worker", "client_id", 401, oauth_error("invalid_client"))
    following = all_.rotated("mail", form["refresh_token"], (400, oauth_error("invalid_grant")))
    return 200, granted(all_.new("mail", azp="worker"), 300, refresh_token=following)


def _keycloaks_exchange(all_: Providers, asked: Asked) -> tuple[int, object]:
    wrong = (400, oauth_error("invalid_request"))
    form = fields(asked, TOKEN_EXCHANGE, {"audience", "subject_token", "subject_token_type"})
    need(asked.basic == ("worker", secret("/client-secret")), "client authentication", *wrong)
    kind = "urn:ietf:params:oauth:token-type:access_token"
    need(form["subject_token_type"] == kind, "subject_token_type", *wrong)
    need(form["subject_token"] == secret("incoming.token"), "subject_token", *wrong)
    need(form["audience"] == "orders", "audience", *wrong)
    return 200, granted(all_.new("downstream", aud="orders"), 300, issued_token_type=kind)


def _metadata(issuer: str, token_url: str, methods: list[str], **more: str) -> dict[str, object]:
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer.rstrip('/')}/authorize",
        "token_endpoint": token_url,
        "token_endpoint_auth_methods_supported": methods,
        "response_types_supported": ["code"],
        **more,
    }


def _auth0(all_: Providers, asked: Asked) -> tuple[int, object]:
    root = "https://example.eu.auth0.com/"
    if asked.path == "/.well-known/openid-configuration":
        methods = ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"]
        return 200, _metadata(root, f"{root}oauth/token", methods)
    if asked.path != "/oauth/token":
        return 404, {"error": "Not Found"}
    need("Authorization" not in asked.headers, "Authorization", 401, oauth_error("access_denied"))
    if asked.form.get("grant_type") == "client_credentials":
        form = fields(asked, "client_credentials", {"client_id", "client_secret", "audience"})
        if "auth0" in all_.rejecting:
            return all_.reject("auth0", 401, oauth_error("access_denied"))
        is_right = form["client_secret"] == secret("auth0-secret")
        need(is_right, "client_secret", 401, oauth_error("access_denied"))
        need(form["audience"] == "https://api.example/", "audience", 403, oauth_error("access_denied"))
        return 200, granted(all_.new("auth0", aud=form["audience"]), 86_400)
    form = fields(asked, "refresh_token", {"client_id", "refresh_token"})
    following = all_.rotated("auth0-user", form["refresh_token"], (403, oauth_error("invalid_grant")))
    token = all_.new("auth0-user", aud="https://api.example/")
    return 200, granted(token, 86_400, refresh_token=following, scope="offline_access")


def _okta(all_: Providers, asked: Asked) -> tuple[int, object]:
    wrong = (401, oauth_error("invalid_client"))
    server = f"{OKTA}/oauth2/default"
    match asked.path:
        case "/oauth2/v1/token":
            names = {"client_assertion_type", "client_assertion", "client_id", "scope"}
            form = fields(asked, "client_credentials", names)
            if "okta" in all_.rejecting:
                return all_.reject("okta", *wrong)
            need(form["client_assertion_type"] == CLIENT_ASSERTION, "client_assertion_type", *wrong)
            claims = all_.claims(form["client_assertion"], f"{OKTA}/oauth2/v1/token", wrong, kid="jwks1")
            need(claims["iss"] == claims["sub"] == "0oar95zt9zIpYuz6A0h7", "iss, sub", *wrong)
            need(form["scope"] == "okta.users.read", "scope", 400, oauth_error("invalid_scope"))
            return 200, granted(all_.new("okta", scp=[form["scope"]]), scope=form["scope"])
        case "/oauth2/default/.well-known/openid-configuration":
            methods = ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"]
            device = f"{server}/v1/device/authorize"
            return 200, _metadata(server, f"{server}/v1/token", methods, device_authorization_endpoint=device)
        case "/oauth2/default/v1/device/authorize":
            need(asked.form.keys() == {"client_id", "scope"}, f"fields {sorted(asked.form)}", *wrong)
            need(asked.form["scope"] == "openid offline_access", "scope", *wrong)
            return 200, {
                "device_code": "1a521d9f-0922-4e6d-8db9-8b654297435a",
                "user_code": "GDLMZQCT",
                "verification_uri": f"{OKTA}/activate",
                "verification_uri_complete": f"{OKTA}/activate?user_code=GDLMZQCT",
                "expires_in": 600,
                "interval": 1,
            }
    return _okta_user(all_, asked)


def _okta_user(all_: Providers, asked: Asked) -> tuple[int, object]:
    if asked.path != "/oauth2/default/v1/token":
        return 404, {"errorCode": "E0000022"}
    if asked.form.get("grant_type") == DEVICE_CODE:
        form = fields(asked, DEVICE_CODE, {"client_id", "device_code"})
        need(form["device_code"].startswith("1a521d9f"), "device_code", 400, oauth_error("invalid_grant"))
        if not all_.approved:
            all_.approved = True
            return 400, oauth_error("authorization_pending")
        all_.refresh["okta-user"] = following = "okta-1"
    else:
        form = fields(asked, "refresh_token", {"client_id", "refresh_token"})
        following = all_.rotated("okta-user", form["refresh_token"], (400, oauth_error("invalid_grant")))
    token = all_.new("okta-user")
    return 200, granted(token, refresh_token=following, scope="openid offline_access", id_token="not.a.token")


def _entra(all_: Providers, asked: Asked) -> tuple[int, object]:
    wrong = (401, {**oauth_error("invalid_client"), "error_codes": [7_000_215]})
    need(f"https://{asked.host}{asked.path}" == ENTRA, asked.path, 404, "")
    form = asked.form
    if "client_secret" in form:
        name = "entra"
        fields(asked, "client_credentials", {"client_id", "client_secret", "scope"})
        if name in all_.rejecting:
            return all_.reject(name, *wrong)
        need(form["client_secret"] == secret("entra-secret"), "client_secret", *wrong)
    else:
        fields(
            asked, "client_credentials", {"client_assertion_type", "client_assertion", "client_id", "scope"}
        )
        need(form["client_assertion_type"] == CLIENT_ASSERTION, "client_assertion_type", *wrong)
        if form["client_assertion"] == secret("azure-identity-token"):
            name = "entra-federated"
        else:
            name = "entra-certificate"
            thumbprint = "Xs5DxHHRLqbMEKjnCYfTQMFiB7DShvWQKAtnJVBSVCE"
            more = {"alg": "PS256", "x5t#S256": thumbprint}
            claims = all_.claims(form["client_assertion"], ENTRA, wrong, **more)
            need(claims.keys() >= {"jti", "iat", "sub"}, f"claims {sorted(claims)}", *wrong)
            need(claims["iss"] == claims["sub"] == form["client_id"], "iss, sub", *wrong)
    is_default = form["scope"] == "https://graph.microsoft.com/.default"
    need(is_default, "scope", 400, {**oauth_error("invalid_scope"), "error_codes": [1_002_012]})
    token = all_.new(name, aud="https://graph.microsoft.com")
    return 200, granted(token, 3599, ext_expires_in=3599)


def _google(all_: Providers, asked: Asked) -> tuple[int, object]:
    wrong = (400, oauth_error("invalid_grant"))
    need(asked.path == "/token", asked.path, 404, "")
    if "assertion" not in asked.form:
        form = fields(asked, "refresh_token", {"client_id", "client_secret", "refresh_token"})
        client = (form["client_id"], form["client_secret"])
        is_ours = client == ("123456789-abc.apps.googleusercontent.com", secret("google-client-secret"))
        need(is_ours, "client", 401, oauth_error("invalid_client"))
        need(form["refresh_token"] == all_.refresh["google-user"], "refresh_token", *wrong)
        return 200, granted(all_.new("google-user", "ya29.a0-"), 3599, scope="openid")
    form = fields(asked, JWT_BEARER, {"assertion"})
    if "google" in all_.rejecting:
        return all_.reject("google", *wrong)
    claims = all_.claims(form["assertion"], "https://oauth2.googleapis.com/token", wrong, kid="2b7f0c1d9e")
    need(claims["iss"] == "worker@project.iam.gserviceaccount.com", "iss", *wrong)
    need(claims["scope"] == "https://www.googleapis.com/auth/cloud-platform", "scope", *wrong)
    need(claims["iat"] <= time.time() < claims["exp"], "iat, exp", *wrong)
    return 200, granted(all_.new("google", "ya29.c.b0-"), 3599)


def _google_sts(all_: Providers, asked: Asked) -> tuple[int, object]:
    wrong = (400, oauth_error("invalid_request"))
    names = {"audience", "scope", "requested_token_type", "subject_token", "subject_token_type"}
    need(asked.path == "/v1/token", asked.path, 404, "")
    need("Authorization" not in asked.headers, "Authorization", *wrong)
    form = fields(asked, TOKEN_EXCHANGE, names)
    pool = "//iam.googleapis.com/projects/123456789/locations/global/workloadIdentityPools/pool"
    kinds = "urn:ietf:params:oauth:token-type:"
    need(form["audience"] == f"{pool}/providers/cluster", "audience", *wrong)
    need(form["subject_token"] == secret("tokens/google"), "subject_token", *wrong)
    need(form["subject_token_type"] == f"{kinds}jwt", "subject_token_type", *wrong)
    need(form["requested_token_type"] == f"{kinds}access_token", "requested_token_type", *wrong)
    token = all_.new("google-federated", "ya29.d.b0-")
    return 200, granted(token, issued_token_type=f"{kinds}access_token")


def _github(all_: Providers, asked: Asked) -> tuple[int, object]:
    wrong = (401, {"message": "A JSON web token could not be decoded", "status": "401"})
    need(asked.method == "POST", asked.method, 404, {"message": "Not Found"})
    need(asked.path == "/app/installations/12345678/access_tokens", asked.path, 404, {"message": "Not Found"})
    need(asked.headers["User-Agent"], "User-Agent", 403, "Request forbidden by administrative rules.")
    need(asked.headers["Accept"] == "application/vnd.github+json", "Accept", 415, {})
    need(asked.headers["X-GitHub-Api-Version"] == "2022-11-28", "X-GitHub-Api-Version", 400, {})
    if "github" in all_.rejecting:
        return all_.reject("github", *wrong)
    kind, _, text = asked.headers["Authorization"].partition(" ")
    need(kind == "Bearer", "Authorization", *wrong)
    need(jwt.get_unverified_header(text)["alg"] == "RS256", "alg", *wrong)
    claims = jwt.decode(text, all_.key.public_key(), algorithms=["RS256"])
    need(claims["iss"] == "Iv23liABCDEFabcdef12", "iss", *wrong)
    need(claims["exp"] <= time.time() + 600, "exp is more than 10 minutes ahead", *wrong)
    need(claims["iat"] <= time.time() - 30, "iat leaves no room for clocks that differ", *wrong)
    permissions = {"contents": "read"}
    need(asked.json == {"repositories": ["app"], "permissions": permissions}, "json", 422, {})
    token = f"ghs_12345_{mint(expires_at=time.time() + 3600, n=len(all_.issued['github']))}"
    expires_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
    more = {"permissions": permissions, "repository_selection": "selected", "repositories": []}
    return 201, {"token": all_.new("github", token), "expires_at": expires_at, **more}


def twilios(name: str, **grants: object) -> str:
    """Return an Access Token of Twilio's for alice."""
    now = int(time.time())
    key, account = f"SK{'0' * 31}1", f"AC{'0' * 31}1"
    return mint(
        headers={"cty": "twilio-fpa;v=1"},
        expires_at=now + 3600,
        jti=f"{key}-{name}",
        iss=key,
        sub=account,
        iat=now,
        grants={"identity": "alice", **grants},
    )


def _twilio(all_: Providers, asked: Asked) -> tuple[int, object]:
    denied = (403, "Unauthorized")
    need(asked.method == "POST", asked.method, *denied)
    name = "flex" if asked.path == "/flex-token" else "twilio"
    if name == "flex":
        need(asked.form == {"Token": secret("flex/sso-token")}, f"fields {sorted(asked.form)}", *denied)
    else:
        need(asked.path == "/token", asked.path, 404, "")
        need(asked.headers["X-Api-Key"] == secret("function-key"), "X-Api-Key", *denied)
        need(asked.json == {"identity": "alice"}, "json", *denied)
    serial = len(all_.issued[name])
    token = twilios(f"{name}{serial}", chat={"service_sid": f"IS{'0' * 31}1"})
    all_.issued[name].append(token)
    return 200, {"token": token}


def _backend(all_: Providers, asked: Asked) -> tuple[int, object]:
    if asked.headers.get_content_type() == "application/x-www-form-urlencoded":
        form = fields(asked, "client_credentials", {"scope"})
        is_ours = asked.basic == ("worker", secret("/client-secret"))
        need(is_ours, "client authentication", 401, oauth_error("invalid_client"))
        need(form["scope"] == "orders:read", "scope", 400, oauth_error("invalid_scope"))
        return 200, granted(all_.new("orders"))
    need(asked.headers["Authorization"] == f"Bearer {secret('backend-key')}", "Authorization", 401, {})
    name = "backend" if asked.method == "POST" else "chat"
    need(name == "chat" or asked.json == {"identity": "alice"}, "json", 400, {})
    return 200, {"data": {"token": all_.new(name)}}


def _partner(all_: Providers, asked: Asked) -> tuple[int, object]:
    wrong = (400, oauth_error("invalid_grant"))
    form = fields(asked, JWT_BEARER, {"assertion"})
    need(asked.basic == ("worker", secret("/client-secret")), "client authentication", *wrong)
    claims = all_.claims(form["assertion"], "https://partner.example/oauth2/token", wrong)
    need((claims["iss"], claims["sub"]) == ("worker", "alice@example.com"), "iss, sub", *wrong)
    return 200, granted(all_.new("partner"))


HOSTS: Final[Mapping[str, Callable[[Providers, Asked], tuple[int, object]]]] = {
    "vault.example": _vault,
    "sso.example": _keycloak,
    "example.eu.auth0.com": _auth0,
    "example.okta.com": _okta,
    "login.microsoftonline.com": _entra,
    "oauth2.googleapis.com": _google,
    "sts.googleapis.com": _google_sts,
    "api.github.com": _github,
    "tokens-1234.twil.io": _twilio,
    "backend.example": _backend,
    "partner.example": _partner,
}
"""Who answers at which host name of the page."""


def thumbprint_of(certificate_der: bytes) -> str:
    """Return the header `x5t#S256` of a certificate (RFC 7515 section 4.1.8)."""
    return base64.urlsafe_b64encode(hashlib.sha256(certificate_der).digest()).rstrip(b"=").decode()
