"""The rules that hold for any kind of token: its wrapping, its form, its times."""

from __future__ import annotations

from collections.abc import Iterator

from token_keeper._finding import Finding
from token_keeper.inspection._findings import error, number, seconds, shown, warning
from token_keeper.inspection._profile import Context
from token_keeper.inspection._reading import MAX_LENGTH

LEAST_MILLISECONDS = 5e11
"""As seconds that is the year 17814, as milliseconds 1985."""

YEARS_AHEAD_S = 366 * 86_400.0
"""An expiry further ahead than this is unwise for any token."""


def length(context: Context) -> Iterator[Finding]:
    """Bound the size: nothing longer is read."""
    if context.reading.length > MAX_LENGTH:
        yield error(
            "too-long",
            f"the value has {context.reading.length} characters; tokens have at most {MAX_LENGTH}",
            "Hand over the token alone, not the document that it came in.",
        )


def wrapping(context: Context) -> Iterator[Finding]:
    """Name what is around the token and does not belong to it."""
    for layer in context.reading.wrappings:
        if layer.code == "surrounding-whitespace":
            yield error(
                layer.code,
                "there are blanks or line ends around the token",
                "Strip the value before you pass it on.",
            )
        elif layer.code == "bearer-prefix":
            yield error(
                layer.code,
                "the value starts with the prefix of an Authorization header",
                "Pass the token alone; the prefix belongs into the header only.",
            )
        else:
            yield error(
                "wrapped-json",
                "the value is a JSON document with a token in it, not the token itself",
                _unwrap_hint(layer.path),
            )


def _unwrap_hint(path: str) -> str:
    if not path:
        return "Parse the JSON string first: the token is what is between the quotes."
    return f"Parse the JSON first and pass the string at {path!r}."


def presence(context: Context) -> Iterator[Finding]:
    """Notice that there is nothing."""
    if not context.reading.value.reveal():
        yield error(
            "empty",
            "there is no token: the value is empty",
            "Check that the backend answered, and that its answer was awaited and read.",
        )


def structure(context: Context) -> Iterator[Finding]:
    """Require a JWT: three base64url segments, JSON objects in the first two."""
    reading = context.reading
    if not reading.flaw or reading.length > MAX_LENGTH:
        return
    value = reading.value.reveal()
    if value:
        yield error("not-a-jwt", f"this is not a JWT: {reading.flaw}", _structure_hint(value))


def _structure_hint(value: str) -> str:
    if value in {"undefined", "null", "None", "[object Object]"}:
        return "The client passed a variable that held no token: await the backend's answer, and read it."
    if value.startswith(("b'", 'b"')):
        return "This is how Python prints bytes: decode() them instead of calling str()."
    if value[0] in "'`" and value[-1] in "'`":
        return "Remove the quotes around the value."
    if value.count(".") == 4:
        return "Five segments make an encrypted token (JWE); pass a signed one (JWS)."
    if value[0] in "{[":
        return (
            "This is another answer of the backend, perhaps an error: look at it, and take the token from it."
        )
    if "<" in value[:1]:
        return "This looks like a web page: check the URL of the backend."
    return "Pass the string exactly as the backend's JWT library made it, complete and unchanged."


def characters(context: Context) -> Iterator[Finding]:
    """Require characters that a header can carry."""
    value = context.reading.given.reveal()
    if context.reading.length <= MAX_LENGTH and any(
        not "!" <= character <= "~" or character in "\"'\\" for character in value
    ):
        yield error(
            "bad-characters",
            "the value holds a blank, a quote, a backslash or something that is not printable ASCII",
            "Pass the token alone, without anything around it.",
        )


def expiry(context: Context) -> Iterator[Finding]:
    """Judge `exp`, if there is one."""
    if "exp" not in context.claims:
        return
    expires_at = number(context.claims, "exp")
    if expires_at is None:
        yield error(
            "exp-not-a-number",
            f"exp is not a number but {shown_claim(context, 'exp')}",
            "Set exp to Unix seconds, as a JSON number.",
        )
    elif expires_at >= LEAST_MILLISECONDS:
        yield error(
            "exp-in-milliseconds",
            "exp is in milliseconds: as seconds it lies thousands of years ahead",
            "Divide by 1000: exp is in Unix seconds.",
        )
    elif context.now >= expires_at + context.exp_leeway_s:
        yield error(
            "expired",
            f"the token expired {seconds(context.now - expires_at)} ago (exp)",
            "Get a fresh token, and refresh it before exp.",
        )


def start(context: Context) -> Iterator[Finding]:
    """Judge `nbf`, if there is one."""
    not_before = number(context.claims, "nbf")
    if not_before is not None and not_before > context.now + context.leeway_s:
        yield error(
            "not-yet-valid",
            f"the token becomes valid in {seconds(not_before - context.now)} (nbf)",
            "Compare the clocks of the minting host and this one; set nbf to the present, or leave it out.",
        )


def order(context: Context) -> Iterator[Finding]:
    """Judge `iat` against `exp`."""
    issued_at, expires_at = number(context.claims, "iat"), number(context.claims, "exp")
    if issued_at is not None and expires_at is not None and issued_at >= expires_at:
        yield error(
            "issued-after-expiry",
            f"iat lies {seconds(issued_at - expires_at)} after exp",
            "Set exp to iat plus the lifetime, both in Unix seconds.",
        )


def open_end(context: Context) -> Iterator[Finding]:
    """Warn of a JWT that does not say when it ends, or says years."""
    expires_at = number(context.claims, "exp")
    if context.is_jwt and "exp" not in context.claims:
        yield warning(
            "exp-missing",
            "the token does not say when it expires (exp)",
            "Let the minting side set exp, so that the token can be refreshed in time.",
        )
    elif (
        expires_at is not None
        and expires_at - context.now > YEARS_AHEAD_S
        and expires_at < LEAST_MILLISECONDS
    ):
        yield warning(
            "lifetime-too-long",
            f"the token is valid for {seconds(expires_at - context.now)} more: years",
            "Let the minting side set a short lifetime; a leaked token is then of little use.",
        )


def shown_claim(context: Context, name: str) -> str:
    """Write the claim *name* into a message."""
    value = context.claims.get(name)
    if isinstance(value, float):
        return "NaN or infinite"
    return "null" if value is None else shown(value)
