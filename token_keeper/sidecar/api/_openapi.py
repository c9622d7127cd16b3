"""The description of the API (OpenAPI 3.1), written by hand. A test holds the API to it."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from token_keeper._model import NAME, EventKind, Phase, Status, Verdict
from token_keeper._waiting import LONGEST_S
from token_keeper.sidecar.api._reports import CODE_LIMIT, CODE_MAX, REASON_MAX, TOKEN_MAX
from token_keeper.sidecar.api._requests import GENERATION_MAX
from token_keeper.sidecar.api._stream import HISTORY_MAX_S
from token_keeper.sidecar.api._waits import WAIT_MAX_S

Schema = dict[str, Any]

_NAME = f"^{NAME.pattern}$"
PROBLEM = "application/problem+json"


def document() -> Schema:
    """Return the description."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "token_keeper",
            "version": version("token-keeper"),
            "description": "One process keeps the tokens of many services fresh.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        # The Unix socket asks for no key: the peer's credentials are enough.
        "security": [{"key": []}, {}],
        "paths": {
            "/v1/tokens": {"get": _STATUS},
            "/v1/tokens/{name}": {"parameters": [_NAME_IN_PATH], "get": _TOKEN},
            "/v1/tokens/{name}/denied": {"parameters": [_NAME_IN_PATH], "post": _DENIED},
            "/v1/tokens/{name}/accepted": {"parameters": [_NAME_IN_PATH], "post": _ACCEPTED},
            "/v1/tokens/{name}/refresh": {"parameters": [_NAME_IN_PATH], "post": _REFRESH},
            "/v1/events": {"get": _EVENTS},
            "/v1/reload": {"post": _RELOAD},
            "/v1/dashboard/codes": {"post": _CODES},
            "/v1/dashboard/keys": {"post": _KEYS},
            "/healthz": {"get": _HEALTH},
            "/readyz": {"get": _READY},
            "/metrics": {"get": _METRICS},
            "/openapi.json": {"get": _SELF},
        },
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(members: Schema, *, optional: tuple[str, ...] = (), closed: bool = False, **more: Any) -> Schema:
    required = [name for name in members if name not in optional]
    schema = {"type": "object", "properties": members, **({"required": required} if required else {}), **more}
    return {**schema, "additionalProperties": False} if closed else schema


def _or_null(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


def _query(name: str, said: str, schema: Schema) -> Schema:
    return {"name": name, "in": "query", "required": False, "description": said, "schema": schema}


def _header(said: str, kind: str = "string") -> Schema:
    return {"description": said, "required": True, "schema": {"type": kind}}


def _json(said: str, schema: Schema, **headers: Schema) -> Schema:
    answer = {"description": said, "content": {"application/json": {"schema": schema}}}
    return {**answer, "headers": headers} if headers else answer


def _problem(said: str, schema: str = "Problem", headers: Schema | None = None) -> Schema:
    answer = {"description": said, "content": {PROBLEM: {"schema": _ref(schema)}}}
    return {**answer, "headers": headers} if headers else answer


def _body(schema: Schema, *, required: bool = True) -> Schema:
    return {"required": required, "content": {"application/json": {"schema": schema}}}


def _operation(name: str, said: str, answers: dict[str, Schema], **more: Any) -> Schema:
    return {"operationId": name, "summary": said, **more, "responses": {**answers, **_REFUSED}}


_STRING: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_TRUTH: Schema = {"type": "boolean"}
_NAMES: Schema = {"type": "array", "items": _STRING}
_FINGERPRINT: Schema = {"type": "string", "pattern": "^[0-9a-f]{8}$"}
_REPORTER: Schema = {"type": "string", "pattern": f"^$|{_NAME}", "maxLength": 64}
_RETRY = {"Retry-After": _header("Seconds to the next attempt to get a token.", "integer")}
_ETAG = _header('`"START-GENERATION"`: changes with the token and with a restart.')
_NAME_IN_PATH: Schema = {
    "name": "name",
    "in": "path",
    "required": True,
    "description": "Name of the token.",
    "schema": {"type": "string", "pattern": _NAME},
}
_WAIT = _query(
    "wait",
    "Seconds to wait for a token; 0 is not at all.",
    {"type": "number", "minimum": 0, "maximum": WAIT_MAX_S, "default": 0},
)

_TOKEN_MEMBERS: Schema = {
    "token": {"type": "string", "description": "The raw token."},
    "token_type": {"const": "Bearer"},
    "expires_at": {"type": ["number", "null"], "description": "Unix seconds; null if not known."},
    "expires_in": {"type": ["integer", "null"], "description": "Whole seconds, rounded down."},
    "generation": {"type": "integer", "minimum": 1},
    "start": _FINGERPRINT,
    "status": {"enum": [Status.FRESH, Status.STALE]},
}
_VERDICT: Schema = {"enum": list(Verdict)}
_PROBLEM_MEMBERS: Schema = {
    "type": {"type": "string", "pattern": "^urn:token-keeper:problem:[a-z-]+$"},
    "title": _STRING,
    "status": {"type": "integer", "minimum": 400, "maximum": 599},
    "detail": {"type": "string", "description": "What to do."},
}
_REASON = _object({"problem": _STRING, "token": _STRING, "sink": _STRING}, optional=("token", "sink"))
_SINK = _object({"path": _STRING, "generation": _COUNT, "error": _or_null(_STRING)})
_ROW = _object(
    {
        "name": {"type": "string", "pattern": _NAME},
        "profile": _STRING,
        "status": {"enum": list(Status)},
        "phase": {"enum": list(Phase)},
        "generation": _COUNT,
        "fingerprint": _or_null(_FINGERPRINT),
        "issued_at": _or_null(_NUMBER),
        "expires_at": _or_null(_NUMBER),
        "expires_in": {"type": ["integer", "null"], "minimum": 0},
        "stale_at": _or_null(_NUMBER),
        "refresh_at": _or_null(_NUMBER),
        "next_attempt_at": _or_null(_NUMBER),
        "failures": _COUNT,
        "unchanged": _COUNT,
        "last_error": _or_null(_STRING),
        "usable_for": {"type": ["number", "null"], "description": "Null: no end is known."},
        "attempts_left": _or_null(_COUNT),
        "denied_by": _NAMES,
        "source": _or_null(_STRING) | {"description": "The link of a chain that the token came from."},
        "sinks": {"type": "array", "items": _ref("Sink")},
    }
)
_REPORT = _object(
    {
        "token": {"type": "string", "minLength": 1, "maxLength": TOKEN_MAX},
        "generation": {"type": "integer", "minimum": 1, "maximum": GENERATION_MAX},
        "fingerprint": _FINGERPRINT,
        "start": {"type": ["string", "null"], "maxLength": 64},
        "by": _REPORTER,
        "code": {
            "type": ["integer", "string", "null"],
            "minimum": -CODE_LIMIT,
            "maximum": CODE_LIMIT - 1,
            "maxLength": CODE_MAX,
        },
        "reason": {"type": ["string", "null"], "maxLength": REASON_MAX},
    },
    optional=("token", "generation", "fingerprint", "start", "by", "code", "reason"),
    closed=True,
    anyOf=[{"required": [name]} for name in ("token", "generation", "fingerprint")],
    description="Which token a server saw, and what it said. Of several names all must be right.",
)
_SCHEMAS: Schema = {
    "Problem": _object(_PROBLEM_MEMBERS, description="RFC 9457"),
    "Unavailable": _object(
        {**_PROBLEM_MEMBERS, "retry_after": {"type": "integer", "minimum": 1}, "verdict": _VERDICT},
        optional=("verdict", "retry_after"),
    ),
    "NotReady": _object(
        {
            **_PROBLEM_MEMBERS,
            "ready": {"const": False},
            "reasons": {"type": "array", "items": _REASON},
            "more": {**_COUNT, "description": "How many reasons are not listed."},
        }
    ),
    "BadConfiguration": _object(
        {
            **_PROBLEM_MEMBERS,
            "errors": {"type": "array", "items": _object({"key": _STRING, "problem": _STRING})},
        }
    ),
    "Token": _object(_TOKEN_MEMBERS),
    "Sink": _SINK,
    "Row": _ROW,
    "Status": _object(
        {
            "start": _FINGERPRINT,
            "started_at": _NUMBER,
            "ready": _TRUTH,
            "live": _TRUTH,
            "version": _STRING,
            "tokens": {"type": "array", "items": _ref("Row")},
        }
    ),
    "Report": _REPORT,
    "Verdict": _object(
        {
            "verdict": _VERDICT,
            "generation": {**_COUNT, "description": "Of the current token, or of the one that follows."},
            "retry_after": {"type": ["integer", "null"], "minimum": 1},
            **{name: schema for name, schema in _TOKEN_MEMBERS.items() if name != "generation"},
        },
        optional=tuple(_TOKEN_MEMBERS.keys() - {"generation"}),
    ),
    "Event": _object(
        {
            "kind": {"enum": list(EventKind)},
            "name": {"type": "string", "pattern": _NAME},
            "at": _NUMBER,
            "generation": _COUNT,
            "fingerprint": _or_null(_FINGERPRINT),
            "expires_at": _or_null(_NUMBER),
            "failures": _COUNT,
            "error": _or_null(_STRING),
            "verdict": {"enum": [*Verdict, None]},
            "diagnosis": _NAMES,
        },
        description="The `data` of an event of the stream; the first one is a `snapshot`, a Status.",
    ),
}

_REFUSED: dict[str, Schema] = {
    "400": _problem("The query or the body cannot be understood; the detail names the part."),
    "401": _problem("Over TCP, without a key.", headers={"WWW-Authenticate": _header("Bearer")}),
    "403": _problem("Not for this caller."),
    "421": _problem("Wrong `Host`."),
    "500": _problem("A mistake of ours."),
}
_NO_TOKEN = {
    "404": _problem("No such token."),
    "503": _problem("No usable token now.", "Unavailable", _RETRY),
}
_NO_REPORT = {
    "404": _problem("No such token."),
    "413": _problem("The body is over 64 KiB."),
    "415": _problem("The body is not JSON."),
    "503": _problem("No usable token now, or not in time.", "Unavailable", _RETRY),
}
_NO_BODY = {name: _NO_REPORT[name] for name in ("413", "415")}
_EMPTY_BODY = _body({"type": "object", "additionalProperties": False}, required=False)

_STATUS = _operation("status", "How every token stands", {"200": _json("No secrets.", _ref("Status"))})
_TOKEN = _operation(
    "token",
    "The token itself",
    {
        "200": {
            "description": "A usable token.",
            "headers": {"ETag": _ETAG},
            "content": {
                "application/json": {"schema": _ref("Token")},
                "text/plain": {"schema": {"type": "string"}},
            },
        },
        "304": {"description": "Not changed, or none newer in time.", "headers": {"ETag": _ETAG}},
        "406": _problem("Neither JSON nor plain text is accepted."),
        **_NO_TOKEN,
    },
    parameters=[
        _query(
            "min_validity",
            "Seconds for which the token must be usable; a fetch starts if it is not.",
            {"type": "number", "minimum": 0, "maximum": LONGEST_S, "default": 0},
        ),
        _query(
            "after_generation",
            "A newer one than this is wanted.",
            {"type": "integer", "minimum": 0, "maximum": GENERATION_MAX},
        ),
        _WAIT,
        _query("by", "Read as this reporter.", {**_REPORTER, "default": ""}),
    ],
)
_DENIED = _operation(
    "denied",
    "A server denied the token",
    {"200": _json("The verdict; with `wait` also a token.", _ref("Verdict")), **_NO_REPORT},
    parameters=[_WAIT],
    requestBody=_body(_ref("Report")),
)
_ACCEPTED = _operation(
    "accepted",
    "A server accepted the token",
    {"204": {"description": "Noted."}, **_NO_REPORT},
    requestBody=_body(_ref("Report")),
)
_REFRESH = _operation(
    "refresh",
    "Get a newer token now",
    {
        "200": _json("With `wait`: the token that came of it.", _ref("Token"), ETag=_ETAG),
        "202": _json(
            "Asked for; the generation is that of the token before.", _object({"generation": _COUNT})
        ),
        **_NO_REPORT,
    },
    parameters=[_WAIT],
    requestBody=_EMPTY_BODY,
)
# What OpenAPI 3.2 calls `itemSchema`: it describes one event, not the endless text.
_FRAME = _object({"event": {"enum": ["snapshot", *EventKind]}, "id": _STRING, "data": _STRING})
_EVENTS = _operation(
    "events",
    "What happens, as it happens",
    {
        "200": {
            "description": "Server-sent events; the data of each is an Event.",
            "content": {"text/event-stream": {"schema": _FRAME}},
        },
        "404": _problem("No such token."),
    },
    parameters=[
        _query("token", "Of this token only.", {"type": "string", "pattern": _NAME}),
        _query(
            "history",
            "Begin so many seconds ago.",
            {"type": "number", "minimum": 0, "maximum": HISTORY_MAX_S},
        ),
        {
            "name": "Last-Event-ID",
            "in": "header",
            "required": False,
            "description": "Resume after this event, if it is still known.",
            "schema": {"type": "string"},
        },
    ],
)
_RELOAD = _operation(
    "reload",
    "Read the configuration again",
    {
        "200": _json(
            "What changed.",
            _object(dict.fromkeys(("added", "changed", "removed", "unchanged", "restart_needed"), _NAMES)),
        ),
        "422": _problem("Every error; nothing changed.", "BadConfiguration"),
        **_NO_BODY,
    },
    requestBody=_EMPTY_BODY,
)
_CODES = _operation(
    "dashboardCode",
    "A code that opens the dashboard once",
    {
        "200": _json("For a minute; only over the Unix socket.", _object({"code": _STRING, "url": _STRING})),
        "409": _problem("There is no TCP listener."),
        **_NO_BODY,
    },
    requestBody=_EMPTY_BODY,
)
_KEYS = _operation(
    "dashboardKey",
    "Trade a code for a read-only key",
    {
        "200": _json("Lives until the sidecar ends.", _object({"key": _STRING, "start": _FINGERPRINT})),
        **_NO_BODY,
    },
    security=[{}],
    requestBody=_body(_object({"code": {"type": "string", "minLength": 1, "maxLength": 128}}, closed=True)),
)
_HEALTH = _operation(
    "live",
    "Whether the scheduler ticks",
    {"200": _json("It does.", _object({"live": _TRUTH})), "503": _problem("It does not.")},
    security=[{}],
)
_READY = _operation(
    "ready",
    "Whether every token is usable and written",
    {"200": _json("It is.", _object({"ready": _TRUTH})), "503": _problem("It is not.", "NotReady")},
    security=[{}],
)
_METRICS = _operation(
    "metrics",
    "Prometheus metrics",
    {
        "200": {
            "description": "In the form that `Accept` asks for.",
            "content": {
                "text/plain": {"schema": {"type": "string"}},
                "application/openmetrics-text": {"schema": {"type": "string"}},
            },
        }
    },
)
_SELF = _operation("openapi", "This document", {"200": _json("OpenAPI 3.1.", {"type": "object"})})
