"""What the codes of HTTP, OAuth 2.0 (RFC 6750) and WebSocket mean for a token."""

from __future__ import annotations

from token_keeper._finding import DenialClass
from token_keeper.inspection._entries import UNREADABLE, Cause, Entry

_NO_TOKEN = Cause(
    text="No token was sent, or not in the form that the server reads",
    remedy="Send it as Authorization: Bearer and the token, with nothing around it.",
    look="Look at the request that the client really sends, without printing the token.",
    shown_by=frozenset(
        {"empty", "wrapped-json", "surrounding-whitespace", "bearer-prefix", "bad-characters", "not-a-jwt"}
    ),
    ruled_out="the value is a token, with nothing around it",
    hidden_by=frozenset({"too-long"}),
)
_EXPIRED = Cause(
    text="The token has expired (exp)",
    remedy="Refresh the token before exp passes.",
    look="Inspect the very token that was refused, at the time of the refusal (--now).",
    shown_by=frozenset({"expired"}),
    ruled_out="exp lies ahead",
    hidden_by=UNREADABLE | {"exp-missing", "exp-not-a-number", "exp-in-milliseconds"},
)
_NOT_YET_VALID = Cause(
    text="The token is not yet valid (nbf), or a clock is wrong",
    remedy="Set the clocks of the issuer and of the server (NTP), and nbf to the present.",
    look="Compare the clocks of the issuer and of the server.",
    shown_by=frozenset({"not-yet-valid"}),
    ruled_out="nbf has passed, or there is none",
)
_SIGNATURE = Cause(
    text="The signature does not match the server's key: another key, or altered on the way",
    remedy="Compare kid and the key of the issuer with those that the server trusts.",
    look="Check the signature with the key at hand (--secret-file).",
    shown_by=frozenset({"signature-invalid"}),
    ruled_out="the signature matches the key",
    needs=frozenset({"secret"}),
)
_REVOKED = Cause(
    text="The token was revoked, or is for another audience (aud) or issuer (iss)",
    remedy="Get a fresh token for this server, and compare its iss and aud with what the server expects.",
    look="Look into the server's own log; the client cannot see this.",
)
_SCOPE = Cause(
    text="The token is accepted, but does not carry the right that the request needs",
    remedy="Ask for a token with the scope that the server names; refreshing the same one does not help.",
    look="Look at scope in WWW-Authenticate, and at the scopes of the token.",
)
_REQUEST = Cause(
    text="The request itself is malformed: a parameter is missing, or the token was sent twice",
    remedy="Correct the request; another token would be refused too.",
    look="Look at the description in the server's answer.",
)
_RATE = Cause(
    text="Too many requests or connections in a short time",
    remedy="Slow down and keep the token; wait as long as Retry-After says.",
    look="Count the requests per minute, over all replicas.",
)

_DENIED = (_EXPIRED, _NO_TOKEN, _NOT_YET_VALID, _SIGNATURE, _REVOKED)
_LOG = "Look into the log of the server that refused the token."


def _entry(
    code: int | str, title: str, meaning: DenialClass, causes: tuple[Cause, ...], source: str
) -> Entry:
    return Entry(code=code, title=title, denial_class=meaning, causes=causes, where=_LOG, source=source)


_HTTP, _BEARER, _WEBSOCKET = "HTTP status", "RFC 6750 error", "WebSocket close code"

ENTRIES = (
    _entry(401, "Unauthorized", DenialClass.DENIED, _DENIED, _HTTP),
    _entry(403, "Forbidden", DenialClass.FORBIDDEN, (_SCOPE,), _HTTP),
    _entry(429, "Too Many Requests", DenialClass.THROTTLED, (_RATE,), _HTTP),
    _entry(
        "invalid_token", "The token is expired, revoked or malformed", DenialClass.DENIED, _DENIED, _BEARER
    ),
    _entry("insufficient_scope", "A right is missing", DenialClass.FORBIDDEN, (_SCOPE,), _BEARER),
    _entry("invalid_request", "The request is malformed", DenialClass.FORBIDDEN, (_REQUEST,), _BEARER),
    _entry(1008, "Policy violation", DenialClass.DENIED, _DENIED, _WEBSOCKET),
    _entry(1013, "Try again later", DenialClass.THROTTLED, (_RATE,), _WEBSOCKET),
    _entry(3000, "Unauthorized", DenialClass.DENIED, _DENIED, _WEBSOCKET),
    _entry(3003, "Forbidden", DenialClass.FORBIDDEN, (_SCOPE,), _WEBSOCKET),
    _entry(4401, "Unauthorized (by custom)", DenialClass.DENIED, _DENIED, _WEBSOCKET),
    _entry(4403, "Forbidden (by custom)", DenialClass.FORBIDDEN, (_SCOPE,), _WEBSOCKET),
    _entry(4429, "Too many requests (by custom)", DenialClass.THROTTLED, (_RATE,), _WEBSOCKET),
)
