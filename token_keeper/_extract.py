"""Finds the raw token in what a backend answered, and never guesses.

Decides where a token may stand and what a stated lifetime may look like. It
knows neither clock nor network, and whether the token works is for inspection.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from token_keeper._errors import ConfigError, ResponseError
from token_keeper._lifetime import AT_NAMES, IN_NAMES, duration, is_number, moment, stated_beside
from token_keeper._model import Secret
from token_keeper._shape import described, shape_of

TOKEN_NAMES: Final = ("token", "access_token", "accessToken", "jwt", "id_token")
"""Where a token usually stands, most usual first."""

SCOPE_NAMES: Final = ("data", "result", "auth")
"""Members in which the names above are tried, too."""

_UNIQUE_NAMES: Final = frozenset((*TOKEN_NAMES, *IN_NAMES, *AT_NAMES))
_WORDS: Final = frozenset({"error", "false", "nan", "nil", "none", "null", "ok", "true", "undefined"})
_NUMBER_LENGTH: Final = 16

_FORM: Final = re.compile(rf"(?:{'|'.join(TOKEN_NAMES)}|error|expires_in|token_type)=", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extracted:
    """A raw token, and what stood beside it.

    Args:
        secret: The raw token, not yet inspected.
        path: Where it stood: `data.token`; `@` is a bare JSON string, and
            nothing a raw text.
        expires_in: Seconds from receipt, 0 to 10 years, if that was said.
        expires_at: Unix seconds, if that was said.
    """

    secret: Secret
    path: str
    expires_in: float | None = None
    expires_at: float | None = None


def extract(body: object, *, token_path: str | None = None, expires_path: str | None = None) -> Extracted:
    """Return the one token in *body*: a text as it was received, or JSON that is parsed already.

    Without a path the usual names are tried, at the top and in `data`, `result`
    and `auth`; a bare JSON string or a raw text is the token itself. An object
    with `token_type` is an OAuth 2.0 answer (RFC 6749 section 5.1) and about its
    `access_token`, whatever else it holds. The same token under two names is
    one token; two different ones are an error.

    The lifetime is `expires_in` or `expires_at` in the object that holds the
    token, else at the top. They may be numbers or numerals, and `expires_at` an
    ISO 8601 time with a zone or a number of milliseconds. Anything else is as
    if it was not said.

    Args:
        body: What was received.
        token_path: JMESPath of the token.
        expires_path: JMESPath of its expiry. What it finds must be a lifetime
            in seconds, or a time: a number from 1e9 is Unix time.

    Raises:
        ResponseError: If there is no token, or more than one.
    """
    try:
        return _extracted(body, token_path, expires_path)
    except ResponseError as error:
        problem = error.with_traceback(None)
    except RecursionError:
        problem = _problem("the answer is nested too deeply", "Let the backend answer with the token alone")
    # A traceback shows the locals of its frames.
    del body
    raise problem


def check_path(key: str, expression: object) -> None:
    """Check that *expression* is JMESPath, or None.

    Raises:
        ConfigError: About *key*, if it is not.
    """
    if expression is None:
        return
    if not isinstance(expression, str) or not expression.strip():
        raise ConfigError(key, 'must be a JMESPath expression, such as "data.token"')
    from jmespath import compile as compile_path  # noqa: PLC0415 - Only who gives a path pays for it.
    from jmespath.exceptions import (  # noqa: PLC0415
        ArityError,
        JMESPathError,
        JMESPathTypeError,
        UnknownFunctionError,
    )

    try:
        # Unknown functions show only when they are called.
        compile_path(expression).search({})
    except (ArityError, UnknownFunctionError) as error:
        raise ConfigError(key, "calls a function that JMESPath does not have, or wrongly") from error
    except JMESPathTypeError:
        # A function's complaint about the empty document that was tried: no fault of the expression.
        return
    except JMESPathError as error:
        raise ConfigError(key, f"is not a JMESPath expression: {expression[:80]!r}") from error
    except RecursionError:
        raise ConfigError(key, "is nested too deeply") from None


def parse_json(text: str) -> object:
    """Return what *text* says in JSON, or None if it is not JSON."""
    document = _parsed(_trimmed(text))
    return None if isinstance(document, _NotJson) else document


@dataclass(frozen=True, slots=True)
class _NotJson:
    """Why a text is not JSON."""

    reason: str


@dataclass(frozen=True, slots=True)
class _RawText:
    """An answer that is no document, so it may be the token itself."""

    text: str


class _RepeatedName(Exception):
    """A name that must be unique stands twice in one object, with different values."""


def _extracted(body: object, token_path: str | None, expires_path: str | None) -> Extracted:
    document = _document(body) if isinstance(body, str) else body
    if isinstance(document, _RawText):
        value, path = _raw_text(document.text, token_path), ""
    elif token_path is not None:
        value, path = _at_path(document, token_path), token_path
    else:
        value, path = _by_name(document)
    _check(value, path)
    expires_in, expires_at = _expiry(document, path, expires_path)
    return Extracted(secret=Secret(value), path=path, expires_in=expires_in, expires_at=expires_at)


def _trimmed(text: str) -> str:
    return text.removeprefix("\ufeff").strip()


def _document(body: str) -> object:
    """Return what *body* says in JSON, or the text that it is."""
    text = _trimmed(body)
    if not text:
        raise _problem("the answer is empty", "Look at what the backend does when it has no token")
    if text.startswith("<"):
        raise _problem("the answer is an HTML or XML page", "Check the URL: login pages answer 200, too")
    document = _parsed(text)
    # A long number is an opaque token that happens to have digits only.
    if is_number(document) and len(text) >= _NUMBER_LENGTH:
        return _RawText(text)
    if not isinstance(document, _NotJson):
        return document
    if text.startswith(("{", "[", '"')):
        raise _problem(
            f"the answer starts like JSON, but {document.reason}",
            "Check whether the backend or a proxy cut it",
        )
    return _RawText(text)


def _parsed(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except _RepeatedName:
        return _NotJson("one of its names stands twice with different values")
    except RecursionError:
        return _NotJson("it is nested too deeply")
    except ValueError:
        # Its text and its `doc` are the body: it must not become anybody's context.
        return _NotJson("it cannot be parsed")


def _unique(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    members: dict[str, object] = {}
    for name, value in pairs:
        if name in _UNIQUE_NAMES and members.get(name, value) != value:
            raise _RepeatedName
        members[name] = value
    return members


def _raw_text(text: str, token_path: str | None) -> str:
    if token_path is not None:
        raise _problem(
            "the answer is not JSON, so token_path finds nothing", "Leave it out, or check the URL"
        )
    if _FORM.match(text):
        raise _problem("the answer is form-encoded", "Let the backend answer in JSON")
    return text


def _at_path(document: object, path: str) -> str:
    value = _searched(document, path)
    if isinstance(value, str):
        return value
    if value is None:
        raise _problem(f"token_path {path!r} finds nothing; {described(document)}", "Correct token_path")
    raise _problem(f"token_path {path!r} finds {shape_of(value)}, not a string", "Correct token_path")


def _searched(document: object, path: str) -> object:
    from jmespath import search  # noqa: PLC0415 - Only who gives a path pays for it.

    # Its errors quote what they met: the token. So they end here, as if nothing was found.
    with suppress(Exception):
        return search(path, document)
    return None


def _by_name(document: object) -> tuple[str, str]:
    if isinstance(document, str):
        return document, "@"
    if not isinstance(document, Mapping):
        raise _problem(f"the answer is {shape_of(document)}", "Set token_path to where the token stands")
    if document.get("error"):
        raise _problem(described(document), "Look up that error in the backend's documentation")
    places = dict(_places(document))
    candidates = {path: value for path, value in places.items() if isinstance(value, str) and value}
    if not candidates:
        unusable = [f"{path} is {shape_of(value)}" for path, value in places.items()]
        found = unusable[0] if unusable else described(document)
        raise _problem(f"no token: {found}", "Set token_path to where the token stands")
    if len(set(candidates.values())) > 1:
        paths = " and ".join(candidates)
        raise _problem(f"the answer holds different tokens at {paths}", "Set token_path to the right one")
    path, value = next(iter(candidates.items()))
    return value, path


def _places(document: Mapping[object, object]) -> Iterator[tuple[str, object]]:
    """Yield where a token may stand, and what stands there."""
    yield from _members(document, "")
    if _is_oauth_answer(document):
        return
    for name in SCOPE_NAMES:
        scope = document.get(name)
        if isinstance(scope, Mapping):
            yield from _members(scope, f"{name}.")


def _members(scope: Mapping[object, object], prefix: str) -> Iterator[tuple[str, object]]:
    for name in ("access_token",) if _is_oauth_answer(scope) else TOKEN_NAMES:
        if name in scope:
            yield f"{prefix}{name}", scope[name]


def _is_oauth_answer(scope: Mapping[object, object]) -> bool:
    return isinstance(scope.get("token_type"), str) and bool(scope.get("access_token"))


def _check(value: str, path: str) -> None:
    """Refuse what is certainly not a token. Whether the rest is one, inspection says."""
    place = f"what stands at {path}" if path not in {"", "@"} else "the answer"
    if not value:
        raise _problem(f"{place} is an empty string", "Look at what the backend does when it has no token")
    if value.lstrip().startswith(("{", "[")):
        raise _problem(
            f"{place} is a JSON document in a string", "Let the backend answer with the token itself"
        )
    if value.lstrip().startswith("<"):
        raise _problem(f"{place} is an HTML or XML page", "Check the URL")
    if any(letter.isspace() or not letter.isprintable() for letter in value):
        raise _problem(
            f"{place} holds blanks or control characters",
            "A token has none: check the URL and token_path, and that the backend adds no prefix",
        )
    if value.lower() in _WORDS:
        raise _problem(f"{place} is a word, not a token", "Check the URL and token_path")


def _expiry(document: object, path: str, expires_path: str | None) -> tuple[float | None, float | None]:
    """Return `expires_in` and `expires_at`, each if it was said."""
    if expires_path is not None:
        return _at_expires_path(document, expires_path)
    return stated_beside(document, path)


def _at_expires_path(document: object, path: str) -> tuple[float | None, float | None]:
    value = None if isinstance(document, _RawText) else _searched(document, path)
    expires_at, expires_in = moment(value), duration(value)
    if expires_at is not None:
        return None, expires_at
    if expires_in is not None:
        return expires_in, None
    raise _problem(f"expires_path finds {shape_of(value)}, not a lifetime or a time", "Correct expires_path")


def _problem(found: str, remedy: str) -> ResponseError:
    return ResponseError(f"{found}; a valid token stays. {remedy}")
