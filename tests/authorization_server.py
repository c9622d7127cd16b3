"""An authorization server that is not ours: Authlib's server side, on loopback, with what can go wrong.

Authlib decides what is granted and how it is refused. Here are its clients, its
tokens, the rotation of refresh tokens with detection of reuse, and faults.
"""

# ruff: noqa: ARG002 - Authlib passes its hooks more than they need.

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Self

from authlib.integrations.flask_oauth2 import AuthorizationServer as FlaskServer
from authlib.oauth2.rfc6749 import ClientMixin, TokenMixin, grants
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7523 import JWTBearerClientAssertion, JWTBearerGrant
from authlib.oauth2.rfc8628 import DeviceAuthorizationEndpoint, DeviceCodeGrant
from flask import Flask, Response, jsonify, redirect, request
from joserfc import jwk
from werkzeug.serving import WSGIRequestHandler, make_server

CLIENT_ID, CLIENT_SECRET = "robot", "the-secret-of-the-robot"
METHODS = ["client_secret_basic", "client_secret_post", "client_assertion_jwt", "none"]
GRANTS = (
    "client_credentials",
    "refresh_token",
    JWTBearerGrant.GRANT_TYPE,
    DeviceCodeGrant.GRANT_TYPE,
)
ENDPOINTS = {"token": "/token", "revocation": "/revoke", "device_authorization": "/device"}


class Fault(Enum):
    """What goes wrong with one request to the token endpoint."""

    DROPPED_BEFORE = "the connection is cut before anything is done"
    DROPPED_AFTER = "the same when all is done"
    CUT = "half of the answer comes"
    BUSY = "503, nothing is done"
    BROKEN_BEFORE = "500, nothing is done"
    BROKEN_AFTER = "500 when all is done"
    GARBAGE = "a page when all is done"
    SLOW = "nothing is done before `release` is set"
    FOUND = "302 to /token"
    SAME_AGAIN = "307 to /token"
    GONE = "404"


@dataclass
class Client(ClientMixin):
    """A registered client. With *public_key* (PEM) it signs assertions."""

    client_id: str = CLIENT_ID
    secret: str | None = CLIENT_SECRET
    methods: Iterable[str] = tuple(METHODS)
    grants: Iterable[str] = GRANTS
    scope: str = "read write"
    public_key: bytes | None = None

    def get_client_id(self) -> str:
        return self.client_id

    def get_default_redirect_uri(self) -> str:
        return ""

    def get_allowed_scope(self, scope: str | None) -> str:
        return " ".join(word for word in (scope or "").split() if word in self.scope.split())

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return False

    def check_client_secret(self, client_secret: str) -> bool:
        return client_secret == self.secret

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method in self.methods

    def check_response_type(self, response_type: str) -> bool:
        return False

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in self.grants


@dataclass
class Family:
    """All tokens of one login."""

    serial: int
    client_id: str
    is_revoked: bool = False


@dataclass
class Issued(TokenMixin):
    """An access token, and the refresh token beside it."""

    access_token: str
    refresh_token: str | None
    client_id: str
    family: Family
    scope: str = ""
    expires_in: int = 3600
    used_at: float | None = None
    uses: int = 0
    is_revoked_itself: bool = False

    def check_client(self, client: Client) -> bool:
        return client.client_id == self.client_id

    def get_scope(self) -> str:
        return self.scope

    def get_expires_in(self) -> int:
        return self.expires_in

    def get_client(self) -> None:
        return None

    def get_user(self) -> str:
        return "alice"

    def is_expired(self) -> bool:
        return False

    def is_revoked(self) -> bool:
        return self.is_revoked_itself or self.family.is_revoked


@dataclass
class DeviceLogin:
    """A login that was begun."""

    client_id: str
    scope: str
    user_code: str
    ends_at: float
    decision: bool | None = None

    def get_client_id(self) -> str:
        return self.client_id

    def get_scope(self) -> str:
        return self.scope

    def get_user_code(self) -> str:
        return self.user_code

    def is_expired(self) -> bool:
        return time.monotonic() >= self.ends_at


@dataclass
class Asked:
    """One request that came."""

    path: str
    form: dict[str, list[str]]
    headers: dict[str, str]

    def __getitem__(self, name: str) -> str:
        (value,) = self.form[name]
        return value


@dataclass(repr=False)
class AuthorizationServer:
    """An authorization server on loopback.

        with AuthorizationServer(rotate=True, reuse_window_s=10) as server:
            refresh_token = server.login()

    Args:
        clients: Who may ask. Default: one with `CLIENT_ID` and `CLIENT_SECRET`.
        rotate: Whether a refresh token is replaced when it is used. One that comes
            again after *reuse_window_s*, or more often than *reuse_limit* times
            within it, ends its family: the grant is lost.
        reuse_window_s: Seconds.
        reuse_limit: How often a used refresh token is forgiven.
        lifetime_s: Of access tokens.
        device_interval_s: As the device authorization endpoint says.
        device_lifetime_s: Of a user code.
        slow_downs: How often a device is told to slow down.
        clock: Of the reuse window.
        issuer_path: Of the issuer's URL.
        metadata: Replaces members of the metadata; None removes one.
        well_known: Which documents there are.
    """

    clients: Iterable[Client] = ()
    rotate: bool = False
    reuse_window_s: float = 0.0
    reuse_limit: int = 1
    lifetime_s: int = 3600
    device_interval_s: float = 1.0
    device_lifetime_s: float = 60.0
    slow_downs: int = 0
    clock: Callable[[], float] = time.monotonic
    issuer_path: str = ""
    metadata: Mapping[str, object] = field(default_factory=dict)
    well_known: Iterable[str] = ("oauth-authorization-server", "openid-configuration")

    def __post_init__(self) -> None:
        self.requests: list[Asked] = []
        self.counts: Counter[str] = Counter()
        """`issued`, `replays` that were forgiven, `reuses` that were not, `families_revoked`."""
        self.faults: deque[Fault] = deque()
        self.retry_after: str | None = None
        self.release = threading.Event()
        self.arrived = threading.Event()
        self.tokens: list[Issued] = []
        self.logins: dict[str, DeviceLogin] = {}
        self.assertions: set[str] = set()
        self.lock = threading.RLock()
        self._families = itertools.count(1)
        self._known = {client.client_id: client for client in self.clients or (Client(),)}
        self._oauth = _oauth(self)

    def __enter__(self) -> Self:
        application = _application(self, self._oauth)
        self._server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=QuietHandler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def issuer(self) -> str:
        return f"{self.url}{self.issuer_path}"

    def endpoint(self, name: str = "token") -> str:
        return f"{self.url}{ENDPOINTS[name]}"

    def login(self, client_id: str = CLIENT_ID, *, scope: str = "read") -> str:
        """Return the first refresh token of a new login."""
        with self.lock:
            token = self._oauth.generate_token("refresh_token", self._known[client_id], "alice", scope)
            return self.save(token, client_id, self.new_family(client_id)).refresh_token or ""

    def fail(self, *faults: Fault) -> None:
        """Let the next requests to the token endpoint go wrong."""
        self.faults.extend(faults)

    def decide(self, *, approve: bool) -> None:
        """Let somebody answer all device logins that were begun."""
        with self.lock:
            for login in self.logins.values():
                login.decision = approve

    def is_active(self, access_token: str) -> bool:
        with self.lock:
            return any(one.access_token == access_token and not one.is_revoked() for one in self.tokens)

    def is_alive(self, refresh_token: str) -> bool:
        """Whether the family of *refresh_token* was not revoked."""
        found = self.find(refresh_token)
        return found is not None and not found.family.is_revoked

    def posted(self, name: str = "token") -> list[Asked]:
        return [asked for asked in self.requests if asked.path == ENDPOINTS[name]]

    def client(self, client_id: str) -> Client | None:
        return self._known.get(client_id)

    def new_family(self, client_id: str) -> Family:
        return Family(next(self._families), client_id)

    def find(self, raw: str) -> Issued | None:
        with self.lock:
            return next((one for one in self.tokens if raw in {one.access_token, one.refresh_token}), None)

    def save(self, token: Mapping[str, Any], client_id: str, family: Family) -> Issued:
        with self.lock:
            self.counts["issued"] += 1
            issued = Issued(
                access_token=token["access_token"],
                refresh_token=token.get("refresh_token"),
                client_id=client_id,
                family=family,
                scope=token.get("scope") or "",
                expires_in=self.lifetime_s,
            )
            self.tokens.append(issued)
            return issued

    def usable(self, refresh_token: str) -> Issued | None:
        """Return what *refresh_token* stands for, unless it is unknown, or was stolen."""
        with self.lock:
            found = self.find(refresh_token)
            if found is None or found.refresh_token != refresh_token or found.family.is_revoked:
                return None
            if found.used_at is not None:
                is_late = self.clock() - found.used_at > self.reuse_window_s
                if is_late or found.uses > self.reuse_limit:
                    self.counts["reuses"] += 1
                    self.counts["families_revoked"] += 1
                    found.family.is_revoked = True
                    return None
                self.counts["replays"] += 1
            return found

    def use(self, issued: Issued) -> None:
        if self.rotate:
            issued.used_at = self.clock() if issued.used_at is None else issued.used_at
            issued.uses += 1


class QuietHandler(WSGIRequestHandler):
    """Logs nothing, and takes it calmly that a client has gone."""

    def log(self, *_: object) -> None:
        return

    def make_environ(self) -> dict[str, Any]:
        # As behind a proxy that ends TLS: Authlib insists on it.
        return super().make_environ() | {"wsgi.url_scheme": "https"}


def _oauth(server: AuthorizationServer) -> FlaskServer:
    def save_token(token: dict[str, Any], asked: Any) -> None:
        former = asked.refresh_token
        family = former.family if isinstance(former, Issued) else server.new_family(asked.client.client_id)
        server.save(token, asked.client.client_id, family)

    app = Flask("authorization_server")
    app.config["OAUTH2_REFRESH_TOKEN_GENERATOR"] = True
    app.config["OAUTH2_TOKEN_EXPIRES_IN"] = dict.fromkeys(GRANTS, server.lifetime_s)
    oauth = FlaskServer(app, query_client=server.client, save_token=save_token)
    for grant in _grants(server):
        oauth.register_grant(grant)
    for endpoint in _endpoints(server):
        oauth.register_endpoint(endpoint)
    oauth.register_client_auth_method("client_assertion_jwt", _client_assertion(server))
    return oauth


def _grants(server: AuthorizationServer) -> Iterable[type]:
    class ClientCredentials(grants.ClientCredentialsGrant):
        TOKEN_ENDPOINT_AUTH_METHODS = METHODS

    class Refresh(grants.RefreshTokenGrant):
        TOKEN_ENDPOINT_AUTH_METHODS = METHODS
        INCLUDE_NEW_REFRESH_TOKEN = server.rotate

        def authenticate_refresh_token(self, refresh_token: str) -> Issued | None:
            return server.usable(refresh_token)

        def authenticate_user(self, refresh_token: Issued) -> str:
            return refresh_token.get_user()

        def revoke_old_credential(self, refresh_token: Issued) -> None:
            server.use(refresh_token)

    class Bearer(JWTBearerGrant):
        TOKEN_ENDPOINT_AUTH_METHODS = METHODS

        def get_audiences(self) -> list[str]:
            return [server.endpoint()]

        def resolve_issuer_client(self, issuer: str) -> Client | None:
            return server.client(issuer)

        def resolve_client_public_key(self, client: Client) -> Any:
            return _public(client)

        def authenticate_user(self, subject: str) -> str:
            return subject

        def has_granted_permission(self, client: Client, user: str) -> bool:
            return user == "alice"

    return ClientCredentials, Refresh, Bearer, _device_grant(server)


def _device_grant(server: AuthorizationServer) -> type:
    left = itertools.chain(itertools.repeat(True, server.slow_downs), itertools.repeat(False))

    class Device(DeviceCodeGrant):
        TOKEN_ENDPOINT_AUTH_METHODS = METHODS

        def query_device_credential(self, device_code: str) -> DeviceLogin | None:
            return server.logins.get(device_code)

        def query_user_grant(self, user_code: str) -> tuple[str, bool] | None:
            login = next(one for one in server.logins.values() if one.user_code == user_code)
            return None if login.decision is None else ("alice", login.decision)

        def should_slow_down(self, credential: DeviceLogin) -> bool:
            return next(left)

    return Device


def _endpoints(server: AuthorizationServer) -> Iterable[type]:
    class Revocation(RevocationEndpoint):
        CLIENT_AUTH_METHODS = METHODS

        def query_token(self, token_string: str, token_type_hint: str | None) -> Issued | None:
            return server.find(token_string)

        def revoke_token(self, token: Issued, request: Any) -> None:
            if request.form.get("token_type_hint") == "refresh_token":
                token.family.is_revoked = True
            token.is_revoked_itself = True

    class Device(DeviceAuthorizationEndpoint):
        CLIENT_AUTH_METHODS = METHODS
        EXPIRES_IN = server.device_lifetime_s
        INTERVAL = server.device_interval_s

        def get_verification_uri(self) -> str:
            return f"{server.url}/activate"

        def save_device_credential(self, client_id: str, scope: str, data: dict[str, Any]) -> None:
            ends_at = time.monotonic() + server.device_lifetime_s
            server.logins[data["device_code"]] = DeviceLogin(client_id, scope, data["user_code"], ends_at)

    return Revocation, Device


def _client_assertion(server: AuthorizationServer) -> JWTBearerClientAssertion:
    class ClientAssertion(JWTBearerClientAssertion):
        def get_audiences(self) -> list[str]:
            return [server.endpoint(), server.issuer]

        def validate_jti(self, claims: Mapping[str, Any], jti: str) -> bool:
            is_new = jti not in server.assertions
            server.assertions.add(jti)
            return is_new

        def resolve_client_public_key(self, client: Client) -> Any:
            return _public(client)

    return ClientAssertion()


def _public(client: Client) -> Any:
    assert client.public_key is not None
    kind = "EC" if b"BEGIN PUBLIC KEY" in client.public_key and len(client.public_key) < 300 else "RSA"
    return jwk.import_key(client.public_key, kind)


def _application(server: AuthorizationServer, oauth: FlaskServer) -> Flask:
    app = Flask("authorization_server")

    @app.before_request
    def note() -> None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        server.requests.append(Asked(request.path, request.form.to_dict(flat=False), headers))
        server.arrived.set()

    @app.post("/token")
    def token() -> Any:
        return _faulty(server, lambda: _locked(server, oauth.create_token_response))

    @app.post("/revoke")
    def revoke() -> Any:
        return oauth.create_endpoint_response("revocation")

    @app.post("/device")
    def device() -> Any:
        return oauth.create_endpoint_response("device_authorization")

    def metadata(**_: str) -> Any:
        known = {"issuer": server.issuer} | {f"{name}_endpoint": server.endpoint(name) for name in ENDPOINTS}
        members = known | {"grant_types_supported": GRANTS} | dict(server.metadata)
        return jsonify({name: value for name, value in members.items() if value is not None})

    for name in server.well_known:
        inserted = name == "oauth-authorization-server"
        path = (
            f"/.well-known/{name}{server.issuer_path}"
            if inserted
            else f"{server.issuer_path}/.well-known/{name}"
        )
        app.add_url_rule(path, name, metadata)
    return app


def _locked(server: AuthorizationServer, act: Callable[[], Any]) -> Any:
    with server.lock:
        return act()


def _faulty(server: AuthorizationServer, act: Callable[[], Any]) -> Any:
    fault = server.faults.popleft() if server.faults else None
    again = {Fault.FOUND: 302, Fault.SAME_AGAIN: 307}
    refused = {Fault.BUSY: 503, Fault.BROKEN_BEFORE: 500, Fault.GONE: 404}
    if fault is Fault.DROPPED_BEFORE:
        return _hung_up()
    if fault in refused:
        return Response("", refused[fault], {"Retry-After": server.retry_after} if server.retry_after else {})
    if fault in again:
        return redirect("/token", again[fault])
    if fault is Fault.SLOW:
        server.release.wait(20)
    answer = act()
    if fault is Fault.DROPPED_AFTER:
        return _hung_up()
    if fault is Fault.BROKEN_AFTER:
        return Response("", 500)
    if fault is Fault.GARBAGE:
        return Response("<html>", 200)
    if fault is Fault.CUT:
        body = answer.get_data()
        request.environ["werkzeug.socket"].sendall(
            b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n"
            + f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body[: len(body) // 2]
        )
        return _hung_up()
    return answer


def _hung_up() -> Response:
    request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    return Response("")
