"""What Twilio's codes mean for a token."""

from __future__ import annotations

from token_keeper._finding import DenialClass
from token_keeper.inspection._entries import Cause, Entry
from token_keeper.profiles import _causes as cause
from token_keeper.profiles._twilio import ALONE

_MALFORMED = ALONE | {"empty", "not-a-jwt", "wrapped-json", "header-typ", "header-alg", "header-cty"}
_DEBUGGER = (
    "Open Twilio's Debugger in the Console (Monitor, Errors): it names the rejected field of most tokens."
)
_FORM = (cause.NOT_A_TOKEN, cause.JSON_OBJECT, cause.OTHER_TYPE)
_CREDENTIALS = (cause.WRONG_SECRET, cause.WRONG_ACCOUNT, cause.WRONG_KEY, cause.TEST_CREDENTIALS)
_GRANTS = (cause.GRANTS_BROKEN, cause.GRANT_MISSING, cause.GRANT_FIELD, cause.NO_IDENTITY)
_TIMES = (cause.EXPIRED, cause.BAD_EXPIRY, cause.TOO_LONG, cause.NOT_YET_VALID)
_RATE = (cause.RECREATED, cause.ALL_AT_ONCE, cause.STARTED_TOGETHER)
_VOICE = (cause.NOT_A_TOKEN, cause.OTHER_TYPE, cause.NO_IDENTITY, cause.GRANT_MISSING, cause.GRANT_FIELD)


def _denied(code: int, title: str, *causes: Cause) -> Entry:
    return _entry(code, title, DenialClass.DENIED, causes)


def _config(code: int, title: str, *causes: Cause) -> Entry:
    return _entry(code, title, DenialClass.CONFIG, causes)


def _throttled(code: int, title: str) -> Entry:
    return _entry(code, title, DenialClass.THROTTLED, _RATE)


def _entry(code: int, title: str, meaning: DenialClass, causes: tuple[Cause, ...]) -> Entry:
    return Entry(
        code=code,
        title=title,
        denial_class=meaning,
        causes=causes,
        where=_DEBUGGER,
        source="Twilio",
        profile="twilio",
        config_on=_MALFORMED if code == 51130 else frozenset(),
        products=("voice",) if code // 100 == 312 else (),
    )


ENTRIES = (
    _denied(
        51007,
        "Client Connection: Token authentication is rejected",
        cause.EXPIRED,
        cause.NOT_YET_VALID,
        cause.REUSED,
        cause.WRONG_SECRET,
        *_GRANTS,
        cause.REGION,
    ),
    _denied(
        51130,
        "Twilsock: Token is invalid",
        cause.NOT_A_TOKEN,
        cause.OTHER_TYPE,
        *_CREDENTIALS,
        cause.JSON_OBJECT,
        cause.GRANTS_BROKEN,
        cause.GRANT_MISSING,
        cause.BAD_IDENTITY,
    ),
    _denied(
        51215,
        "Twilsock: Unauthorized",
        cause.NO_TOKEN,
        *_CREDENTIALS,
        cause.EXPIRED,
        cause.NOT_YET_VALID,
        cause.GRANTS_BROKEN,
        cause.GRANT_MISSING,
        cause.NO_IDENTITY,
        cause.JSON_OBJECT,
        cause.OTHER_SERVICE,
        cause.OTHER_USER,
        cause.USER_BARRED,
    ),
    _throttled(51002, "Connection rate exceeded"),
    _throttled(51126, "Service limit exceeded"),
    _throttled(51128, "Too many messages per connection"),
    _throttled(51201, "Too many connections per account"),
    _throttled(51202, "Too many requests"),
    _denied(
        51207, "Twilsock: Token expired (a live connection's token ran out)", cause.EXPIRED, cause.REUSED
    ),
    _denied(20101, "Invalid Access Token", *_FORM, cause.WRONG_ACCOUNT, cause.WRONG_KEY, cause.BAD_EXPIRY),
    _config(20102, "Invalid Access Token header", cause.HEADER),
    _config(
        20103,
        "Invalid issuer/subject",
        cause.WRONG_ACCOUNT,
        cause.WRONG_KEY,
        cause.DEAD_KEY,
    ),
    _denied(
        20104,
        "Expired, or expiration invalid",
        cause.EXPIRED,
        cause.BAD_EXPIRY,
        cause.TOO_LONG,
    ),
    _denied(20105, "Not yet valid", cause.NOT_YET_VALID),
    _config(20106, "Invalid grants", cause.GRANTS_BROKEN, cause.GRANT_MISSING, cause.GRANT_FIELD),
    _config(20107, "Invalid signature", cause.WRONG_SECRET),
    _denied(
        20151,
        "Authentication failed",
        cause.NOT_A_TOKEN,
        cause.HEADER,
        cause.WRONG_ACCOUNT,
        cause.WRONG_KEY,
        *_TIMES,
        cause.GRANTS_BROKEN,
        cause.GRANT_MISSING,
        cause.GRANT_FIELD,
        cause.WRONG_SECRET,
        cause.DEAD_KEY,
    ),
    _denied(
        20156,
        "Expired or invalid expiration",
        cause.MINTING_CLOCK,
        cause.EXPIRED,
        cause.BAD_EXPIRY,
    ),
    _config(20157, "Expiration exceeds the maximum", cause.TOO_LONG),
    _config(
        20160, "Invalid Token", cause.NOT_A_TOKEN, cause.HEADER, cause.WRONG_SECRET, cause.RESTRICTED_KEY
    ),
    _denied(31204, "Voice: JWT invalid", *_VOICE),
    _denied(31205, "Voice: JWT expired", cause.EXPIRED, cause.REUSED),
    _config(31207, "Voice: expiration too long", cause.TOO_LONG),
)
