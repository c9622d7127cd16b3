"""A token exchange (RFC 8693) that is not ours: idpyoidc's server side, on loopback."""

from __future__ import annotations

import threading
from typing import Any, Self

from authorization_server import CLIENT_ID, CLIENT_SECRET, QuietHandler
from flask import Flask, Response, request
from idpyoidc.message.oauth2 import AuthorizationRequest
from idpyoidc.server import ASConfiguration, Server
from idpyoidc.server.authn_event import create_authn_event
from werkzeug.serving import make_server

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
AUDIENCE, RESOURCE = "https://api.example", "https://files.example"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
_POLICY = "idpyoidc.server.oauth2.token_helper.validate_token_exchange_policy"
_HELPER = "idpyoidc.server.oauth2.token_helper.token_exchange.TokenExchangeHelper"
_JWT = {
    "class": "idpyoidc.server.token.jwt_token.JWTToken",
    "kwargs": {"lifetime": 3600, "aud": [AUDIENCE]},
}


def _keys(*names: str) -> dict[str, Any]:
    return {"key_defs": [{"type": "OCT", "use": ["enc"], "kid": name} for name in names]}


def _configuration() -> dict[str, Any]:
    policy = {"function": _POLICY, "kwargs": {"audience": [AUDIENCE], "resource": [RESOURCE]}}
    exchange = {
        "class": _HELPER,
        "kwargs": {
            "requested_token_types_supported": [ACCESS_TOKEN],
            "default_requested_token_type": ACCESS_TOKEN,
            "policy": {"": policy},
        },
    }
    token = {
        "path": "token",
        "class": "idpyoidc.server.oauth2.token.Token",
        "kwargs": {
            "client_authn_method": ["client_secret_basic", "client_secret_post"],
            "grant_types_helpers": {EXCHANGE: exchange},
        },
    }
    rules = {"access_token": {"supports_minting": ["access_token"], "expires_in": 600}}
    return {
        "issuer": "http://127.0.0.1",
        "httpc_params": {"verify": False},
        "key_conf": {"key_defs": [{"type": "EC", "crv": "P-256", "use": ["sig"]}]},
        "claims_interface": {"class": "idpyoidc.server.session.claims.OAuth2ClaimsInterface", "kwargs": {}},
        "cookie_handler": {
            "class": "idpyoidc.server.cookie_handler.CookieHandler",
            "kwargs": {"keys": _keys("enc", "sig"), "name": {"session": "session"}},
        },
        "endpoint": {"token": token},
        "token_handler_args": {
            "key_conf": _keys("code", "token"),
            "code": {"lifetime": 600},
            "token": _JWT,
        },
        "session_params": {
            "password": "p" * 32,
            "salt": "s" * 16,
            "encrypter": {"kwargs": {"keys": _keys("password", "salt"), "iterations": 1}},
        },
        "authz": {
            "class": "idpyoidc.server.authz.AuthzHandling",
            "kwargs": {"grant_config": {"usage_rules": rules, "expires_in": 43200}},
        },
        "authentication": {
            "none": {
                "acr": "none",
                "class": "idpyoidc.server.user_authn.user.NoAuthn",
                "kwargs": {"user": "alice"},
            }
        },
        "preference": {"grant_types_supported": [EXCHANGE], "scopes_supported": ["read", "write"]},
        "scopes_to_claims": {"read": [], "write": []},
    }


class TokenExchangeServer:
    """Trades access tokens of alice for others, on loopback.

    with TokenExchangeServer() as server:
        source = OAuth2Source(server.token_url, grant="token_exchange", subject_token=server.subject_token())
    """

    def __init__(self) -> None:
        self._server = Server(ASConfiguration(conf=_configuration()))
        self._server.context.cdb[CLIENT_ID] = {
            "client_secret": CLIENT_SECRET,
            "client_salt": "salt",
            "redirect_uris": [("https://app.example", None)],
            "response_types_supported": ["code"],
            "allowed_scopes": ["read", "write"],
            "token_endpoint_auth_method": "client_secret_basic",
        }
        self.forms: list[dict[str, list[str]]] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        app = Flask("token_exchange_server")
        app.add_url_rule("/token", "token", self._answer, methods=["POST"])
        self._wsgi = make_server("127.0.0.1", 0, app, threaded=True, request_handler=QuietHandler)
        self._thread = threading.Thread(target=self._wsgi.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._wsgi.shutdown()
        self._thread.join()
        self._wsgi.server_close()

    @property
    def token_url(self) -> str:
        return f"http://127.0.0.1:{self._wsgi.server_port}/token"

    def subject_token(self, scope: str = "read") -> str:
        """Return an access token of alice, as if she had logged in."""
        context = self._server.context
        manager = context.session_manager
        asked = AuthorizationRequest(
            client_id=CLIENT_ID,
            redirect_uri="https://app.example",
            scope=[scope],
            state="s",
            response_type="code",
        )
        session = manager.create_session(create_authn_event("alice"), asked, "alice", client_id=CLIENT_ID)
        grant = context.authz(session, asked)
        token = grant.mint_token(
            session_id=session,
            context=context,
            token_class="access_token",
            token_handler=manager.token_handler["access_token"],
            scope=[scope],
            usage_rules={"supports_minting": ["access_token"], "expires_in": 600},
        )
        manager.set(manager.decrypt_session_id(session), grant)
        return token.value

    def is_known(self, access_token: str) -> bool:
        """Whether *access_token* was issued here, and to whom its claims say."""
        manager = self._server.context.session_manager
        found = manager.get_session_info_by_token(access_token, grant=True, handler_key="access_token")
        return found["user_id"] == "alice"

    def _answer(self) -> Response:
        self.forms.append(request.form.to_dict(flat=False))
        # A message of idpyoidc takes several values as a list.
        fields = {name: one[0] if len(one) == 1 else one for name, one in self.forms[-1].items()}
        http = {"headers": {"authorization": request.headers.get("authorization", "")}, "url": request.url}
        endpoint = self._server.endpoint["token"]
        with self._lock:
            parsed = endpoint.parse_request(fields, http_info=http | {"method": "POST"})
            made = endpoint.process_request(parsed)
            if "error" in made:
                return Response(made.to_json(), 400, content_type="application/json")
            answer = endpoint.do_response(request=parsed, **made)
        return Response(answer["response"], headers=answer["http_headers"])
