"""What may be behind a refusal by Twilio: each cause with the findings that confirm or exclude it."""

from __future__ import annotations

from token_keeper.inspection._entries import UNREADABLE, Cause
from token_keeper.inspection._profile import Inspection
from token_keeper.profiles._twilio import ALONE

_CONSOLE = "the Console's Debugger"
_NO_GRANTS = UNREADABLE | {"grants-missing", "grants-malformed", "grants-empty"}
_HEADER = frozenset({"header-typ", "header-alg", "header-cty"})


def _names_identity(inspection: Inspection) -> bool:
    grants = (inspection.claims or {}).get("grants")
    identity = grants.get("identity") if isinstance(grants, dict) else None
    return isinstance(identity, str) and identity != ""


NO_TOKEN = Cause(
    text="The client passed no token at all",
    remedy="Await the backend's answer, and pass the SDK the string in it: what AccessToken.to_jwt() made.",
    look="Print the length of what the client passes to the SDK: it may be undefined or empty.",
    shown_by=frozenset({"empty"}),
    ruled_out="there is a value",
    # "undefined" and "null" stand for no token, too.
    hidden_by=frozenset({"not-a-jwt"}),
)
JSON_OBJECT = Cause(
    text="The client passed the backend's JSON answer (or a prefix, or blanks) instead of the bare token",
    remedy="Parse the backend's answer and pass the string that AccessToken.to_jwt() made, and nothing else.",
    look="Look at what the client passes: it has to start with eyJ, not with a brace or a quote.",
    shown_by=frozenset({"wrapped-json", "bearer-prefix", "surrounding-whitespace"}),
    ruled_out="the value is the bare string",
    # What is said of another credential is said alone, also if that was wrapped.
    hidden_by=frozenset({"empty", "too-long"}) | ALONE,
    excluded_by=lambda inspection: not inspection.wrapped and bool(inspection.codes & ALONE),
)
NOT_A_TOKEN = Cause(
    text="The value is not an Access Token: malformed, cut off, an Auth Token, a secret or a SID",
    remedy="Pass the string that AccessToken.to_jwt() makes, whole: header, claims and signature.",
    look="Inspect the value that the client really sends.",
    shown_by=frozenset(
        {
            "not-a-jwt",
            "too-long",
            "empty",
            "looks-like-auth-token",
            "looks-like-api-secret",
            "looks-like-sid",
        }
    ),
    ruled_out="there is a JWT",
    hidden_by=frozenset(),
)
OTHER_TYPE = Cause(
    text="The token is of another type: a Capability Token, a validation token, another issuer's JWT",
    remedy="Mint it with AccessToken (header cty = twilio-fpa;v=1), not with another class.",
    look="Inspect the token: its header has to say typ JWT, alg HS256 and cty twilio-fpa;v=1.",
    shown_by=_HEADER | {"capability-token", "client-validation-token"},
    ruled_out="the header is that of an Access Token",
)
HEADER = Cause(
    text="typ, alg or cty in the header is wrong",
    remedy="Let AccessToken write the header: typ = JWT, alg = HS256, cty = twilio-fpa;v=1.",
    look="Inspect the token's header.",
    shown_by=_HEADER | {"client-validation-token", "capability-token"},
    ruled_out="typ, alg and cty are right",
)
EXPIRED = Cause(
    text="The token has expired (exp), or was used after its lifetime",
    remedy="Get a fresh token before exp passes: refresh on tokenAboutToExpire and call updateToken; "
    "AccessToken(..., ttl=3600) sets exp.",
    look="Inspect the very token that was refused, at the time of the refusal (--now).",
    shown_by=frozenset({"expired"}),
    ruled_out="exp lies ahead",
    hidden_by=UNREADABLE | {"exp-missing", "exp-not-a-number", "exp-in-milliseconds"},
)
BAD_EXPIRY = Cause(
    text="exp is missing, not a number, not in seconds, or not after iat",
    remedy="Set exp to Unix seconds as a number, after iat; AccessToken does it from ttl.",
    look="Inspect the token: exp has to be a number of ten digits.",
    shown_by=frozenset({"exp-missing", "exp-not-a-number", "exp-in-milliseconds", "issued-after-expiry"}),
    ruled_out="exp is a number of seconds",
)
TOO_LONG = Cause(
    text="The lifetime is over the maximum of 24 hours (Voice: a second less)",
    remedy="Lower ttl: AccessToken(..., ttl=3600) puts exp an hour after iat.",
    look="Inspect the token: exp - iat must not exceed 86400.",
    shown_by=frozenset({"lifetime-too-long", "exp-in-milliseconds"}),
    ruled_out="the lifetime is within the maximum",
    hidden_by=UNREADABLE | {"exp-missing", "exp-not-a-number"},
)
NOT_YET_VALID = Cause(
    text="The token is not yet valid (nbf): the minting host's clock runs ahead, or nbf was set ahead",
    remedy="Set the minting host's clock (NTP), or leave nbf out: AccessToken(..., nbf=None).",
    look="Compare the clock of the minting host with the true time.",
    shown_by=frozenset({"not-yet-valid"}),
    ruled_out="nbf has passed, or there is none",
)
MINTING_CLOCK = Cause(
    text="The minting host's clock is wrong, so that exp is in the past from the start",
    remedy="Set the minting host's clock (NTP): AccessToken computes exp from it.",
    look="Compare the clock of the minting host with the true time.",
)
REUSED = Cause(
    text="An expired or cached token was handed out again",
    remedy="Let the backend mint a new AccessToken for each request, and forbid caches in between "
    "(Cache-Control: no-store); compare exp and jti of two answers.",
    look="Ask the backend twice, some seconds apart: jti has to differ.",
    shown_by=frozenset({"expired"}),
    ruled_out="this token has not expired",
    hidden_by=UNREADABLE | {"exp-missing", "exp-not-a-number", "exp-in-milliseconds"},
)
WRONG_SECRET = Cause(
    text="The token was signed with another API Key Secret, or altered on the way",
    remedy="Give AccessToken the secret that was shown when the API Key (iss) was made, or make a new key.",
    look="Check the signature with the secret (--secret-file), and compare iss with the backend's settings.",
    shown_by=frozenset({"signature-invalid"}),
    ruled_out="the signature matches the secret",
    needs=frozenset({"secret"}),
)
WRONG_ACCOUNT = Cause(
    text="sub is the SID of another account or subaccount, or no Account SID",
    remedy="Give AccessToken, as its first argument (sub), the SID of the account that owns the API Key.",
    look="Compare sub with the Account SID in the Console (--expect account_sid=AC...).",
    shown_by=frozenset({"account-mismatch", "subject", "issuer-subject-swapped"}),
    ruled_out="sub is the expected account",
    needs=frozenset({"account_sid"}),
)
WRONG_KEY = Cause(
    text="iss is another API Key than the one meant, or no API Key SID",
    remedy="Give AccessToken, as its second argument (iss), the SID of an API Key of the same account.",
    look="Compare iss with the API Keys in the Console (--expect api_key_sid=SK...).",
    shown_by=frozenset({"key-mismatch", "issuer", "issuer-subject-swapped"}),
    ruled_out="iss is the expected key",
    needs=frozenset({"api_key_sid"}),
)
TEST_CREDENTIALS = Cause(
    text="The token was minted with test credentials",
    remedy="Mint with the live account: AccessToken needs the live Account SID (sub) and API Key (iss).",
    look="Compare the backend's Account SID with the live one in the Console: test credentials differ.",
)
DEAD_KEY = Cause(
    text="The API Key was deleted or suspended, or the account is suspended",
    remedy="Create a new API Key in the account of sub, and give AccessToken its SID (iss) and secret.",
    look="Look for the key of iss in the Console (API keys), and at the state of the account.",
)
RESTRICTED_KEY = Cause(
    text="The API Key is a restricted one, which cannot mint Access Tokens",
    remedy="Create a standard API Key, and give AccessToken its SID (iss) and secret.",
    look="Look at the type of the key of iss in the Console: it has to be Standard or Main.",
)
GRANTS_BROKEN = Cause(
    text="grants is missing or malformed",
    remedy="Add a grant, such as ChatGrant, with AccessToken.add_grant(): that writes the claim grants.",
    look="Inspect the token: grants has to be an object of objects.",
    shown_by=frozenset({"grants-missing", "grants-malformed", "grants-empty"}),
    ruled_out="grants is an object with a product's grant",
)
GRANT_MISSING = Cause(
    text="The product's grant is missing, or only another SDK's is there",
    remedy="Add to grants what the connecting SDK needs: ChatGrant for Conversations, SyncGrant, VoiceGrant "
    "or VideoGrant.",
    look="Inspect the token for the SDK that connects (--for chat, sync, voice or video).",
    shown_by=frozenset({"grant-missing", "grants-missing", "grants-empty"}),
    ruled_out="the grants asked for are there",
    hidden_by=UNREADABLE | {"grants-malformed"},
    needs=frozenset({"grants"}),
)
GRANT_FIELD = Cause(
    text="A grant lacks its required field, or the field is malformed",
    remedy="Fill in service_sid of ChatGrant or SyncGrant, or outgoing_application_sid of VoiceGrant.",
    look="Inspect the token: service_sid is IS and 32 hex digits, application_sid AP and 32 hex digits.",
    shown_by=frozenset({"grant-field-missing", "grant-field-malformed"}),
    ruled_out="each grant has its required field",
    hidden_by=_NO_GRANTS | {"grant-missing"},
)
NO_IDENTITY = Cause(
    text="The token names no identity",
    remedy="Give AccessToken the user's name, identity=..., which becomes grants.identity.",
    look="Inspect the token: grants.identity has to be a string that is not empty.",
    shown_by=frozenset({"identity-missing", "grants-missing"}),
    ruled_out="grants.identity is there",
    hidden_by=_NO_GRANTS,
    excluded_by=_names_identity,
)
BAD_IDENTITY = Cause(
    text="The identity has reserved or forbidden characters",
    remedy="Mint AccessToken with an identity (grants.identity) of A-Z a-z 0-9 and _ only.",
    look="Inspect the token: characters such as @ + / in grants.identity are reserved.",
    shown_by=frozenset({"identity-reserved-characters", "identity-voice-characters"}),
    ruled_out="the identity has no such characters",
    hidden_by=_NO_GRANTS | {"identity-missing"},
)
REGION = Cause(
    text="Video was asked for with an API Key outside of region US1",
    remedy="Create the API Key in region US1 and mint the VideoGrant with it, without region= (header twr).",
    look="Look at the region of the key of iss in the Console.",
    shown_by=frozenset({"region-not-us1"}),
    ruled_out="there is no video grant, or twr is us1",
    hidden_by=_NO_GRANTS,
)
OTHER_SERVICE = Cause(
    text="The token is for another Conversations or Sync service",
    remedy="Give ChatGrant (or SyncGrant) the service_sid of the service that the client connects to.",
    look="Compare service_sid with the service in the Console (--expect service_sid=IS...).",
    shown_by=frozenset({"service-mismatch"}),
    ruled_out="the grant is for the expected service",
    hidden_by=_NO_GRANTS,
    needs=frozenset({"service_sid"}),
)
OTHER_USER = Cause(
    text="The token is for another user than the client's session",
    remedy="Mint AccessToken with the identity (grants.identity) of the user whose client connects.",
    look="Compare grants.identity with the signed-in user (--expect identity=...).",
    shown_by=frozenset({"identity-mismatch"}),
    ruled_out="the token is for the expected user",
    hidden_by=_NO_GRANTS | {"identity-missing"},
    needs=frozenset({"identity"}),
)
USER_BARRED = Cause(
    text="The user may not connect at all",
    remedy="Let the user of grants.identity connect: check the roles in the service that ChatGrant names, "
    "and whether the user was deleted.",
    look=f"Look for the user in the service's user list in the Console, and in {_CONSOLE}.",
)

RECREATED = Cause(
    text="Clients are created again and again in a loop",
    remedy="Keep one client per user, and call updateToken on it instead of creating another.",
    look="Count the connections per minute of one client.",
)
ALL_AT_ONCE = Cause(
    text="Expired tokens disconnect everybody at once, and all come back together",
    remedy="Refresh before exp, at times that are spread out: a token keeper does both.",
    look="Compare exp of the tokens of several clients: do they fall together?",
)
STARTED_TOGETHER = Cause(
    text="Many replicas were started together",
    remedy="Start the replicas one after the other, and let each wait a random moment before it connects.",
    look="Compare the time of the error with the last deployment.",
)
