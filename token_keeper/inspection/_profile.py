"""A profile: the rules by which a kind of token is inspected, and the codes of who refuses it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from token_keeper._finding import DenialClass, Finding, Severity
from token_keeper._secret import Secret
from token_keeper.inspection._expect import Expectations
from token_keeper.inspection._findings import MAX_SHOWN, error, has_token, looks_secret, number
from token_keeper.inspection._reading import Reading, looks_like_jwt, read

if TYPE_CHECKING:
    from token_keeper.inspection._entries import Entry

Key: TypeAlias = Secret | Mapping[str, object]
"""What signatures are checked with: a shared secret, a public key in PEM, or a JWK or JWKS."""


LEAST_SECRET = 8
"""Shortest secret that is looked for in claims. A shorter one is in many words by chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a rule may look at.

    Args:
        reading: The value, taken apart.
        header: First segment of the JWT; empty if the value is none.
        claims: Second segment of the JWT; empty if the value is none.
        now: Unix seconds.
        leeway_s: Tolerance for `nbf`, in seconds.
        exp_leeway_s: Tolerance for `exp`, in seconds.
        expect: What the user expects of the token.
        key: What to check the signature with, or None.
    """

    reading: Reading
    header: Mapping[str, object]
    claims: Mapping[str, object]
    now: float
    leeway_s: float = 0.0
    exp_leeway_s: float = 0.0
    expect: Expectations = field(default_factory=Expectations)
    key: Key | None = field(default=None, repr=False)

    @property
    def is_jwt(self) -> bool:
        """Whether there are a header and claims to look at."""
        return self.reading.claims is not None


Rule: TypeAlias = Callable[[Context], Iterable[Finding]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What inspection has to say of a value. Holds neither the value nor its signature.

    Args:
        profile: The name of the profile whose rules were applied.
        fingerprint: First 8 hex digits of the SHA-256 of the value as given.
        header: The header of the JWT, or None if it is none.
        claims: The claims of the JWT, or None if it is none.
        expires_at: `exp`, Unix seconds, if it is a number.
        issued_at: `iat`, Unix seconds, if it is a number.
        not_before: `nbf`, Unix seconds, if it is a number.
        findings: What was found, in the order of the rules.
        wrapped: Whether something was around the value that does not belong to it.
        has_vendor_rules: Whether more was looked at than what holds for any kind of token.
        checked: What was compared beyond the token itself: names of
            expectations, and ``secret``.
    """

    profile: str
    fingerprint: str
    header: Mapping[str, object] | None = field(default=None, repr=False)
    claims: Mapping[str, object] | None = field(default=None, repr=False)
    expires_at: float | None = None
    issued_at: float | None = None
    not_before: float | None = None
    findings: tuple[Finding, ...] = ()
    wrapped: bool = False
    has_vendor_rules: bool = False
    checked: frozenset[str] = frozenset()

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings for which the token will be refused."""
        return tuple(finding for finding in self.findings if finding.severity is Severity.ERROR)

    @property
    def valid(self) -> bool:
        """Whether no finding is an error."""
        return not self.errors

    @property
    def codes(self) -> frozenset[str]:
        """The codes of all findings."""
        return frozenset(finding.code for finding in self.findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The rules for one kind of token. Write your own from the rules of another.

        jwt = profile_named("jwt")
        ours = replace(jwt, name="ours", rules=(*jwt.rules, my_rule))

    Args:
        name: How it is called in configurations and messages.
        rules: Functions that yield findings, in the order in which they are said.
        expects: The expectations that the rules can check.
        products: The names that the expectation `grants` may have.
        alone: Codes of findings after which nothing else is said.
        same: Claims that stay the same for the whole life of a session, such as ``grants.identity``.
        catalogue: Returns what the codes mean with which servers refuse such
            a token. Called when it is needed: most inspections need no codes.
        choose: Picks another profile by the look of the value, for a
            profile that has no rules of its own.
    """

    name: str
    rules: tuple[Rule, ...] = ()
    expects: frozenset[str] = frozenset()
    products: tuple[str, ...] = ()
    alone: frozenset[str] = frozenset()
    same: tuple[str, ...] = ()
    catalogue: Callable[[], Mapping[int | str, Entry]] = field(default=dict, repr=False)
    choose: Callable[[Reading], Profile] | None = field(default=None, repr=False)

    def inspect(  # noqa: PLR0913 # All but the first are keywords.
        self,
        raw: str | Secret,
        *,
        now: float,
        expectations: Expectations | Mapping[str, object] | None = None,
        secret: str | Key | None = None,
        leeway: float = 0.0,
        exp_leeway: float | None = None,
    ) -> Inspection:
        """Say what *raw* is, and whether it can work. No value makes it raise.

        Args:
            raw: The value, as somebody would hand it to an SDK.
            now: Unix seconds.
            expectations: What the token must be good for.
            secret: What to check the signature with: a shared secret, a
                public key in PEM, or a JWK or JWKS.
            leeway: Tolerance for clocks that differ, in seconds, 0 or more.
            exp_leeway: The same for `exp` alone; by default *leeway*.

        Raises:
            ConfigError: If the *expectations* cannot be checked.
        """
        # From here on the value is in no local variable, so that no traceback can show it.
        given, raw = (raw if isinstance(raw, Secret) else Secret(raw)), ""
        key, secret = (Secret(secret) if isinstance(secret, str) else secret), None
        reading = read(given)
        profile = self.choose(reading) if self.choose else self
        context = Context(
            reading=reading,
            header=reading.header or {},
            claims=reading.claims or {},
            now=now,
            leeway_s=leeway,
            exp_leeway_s=leeway if exp_leeway is None else exp_leeway,
            expect=profile.expectations(expectations),
            key=key,
        )
        return apply(profile, context)

    def changes(self, before: Secret, after: Secret) -> tuple[Finding, ...]:
        """Say which claims of *after* would make it the token of another session than that of *before*."""
        was, becomes = read(before), read(after)
        profile = self.choose(was) if self.choose else self
        changed = (
            path
            for path in profile.same
            if (old := _claim(was.claims, path)) is not None and old != _claim(becomes.claims, path)
        )
        return tuple(_changed(path) for path in changed)

    def expectations(self, raw: Expectations | Mapping[str, object] | None) -> Expectations:
        """Check that *raw* can be expected of a token of this kind.

        Raises:
            ConfigError: If not, naming ``expect.KEY``.
        """
        if isinstance(raw, Expectations):
            stated = {name: getattr(raw, name) for name in raw.names}
        else:
            stated = dict(raw or {})
        return Expectations.from_mapping(stated, known=self.expects, products=self.products)

    def classify(self, code: int | str | None, inspection: Inspection | None = None) -> DenialClass:
        """Say what it means that a server refused a token with *code*.

        Args:
            code: The server's code; unknown ones count as denied.
            inspection: Of the refused token. It decides for the few codes
                that a malformed token turns into a fault of the backend.
        """
        entry = self.entry(code)
        if entry is None:
            return DenialClass.DENIED
        if inspection is not None and entry.config_on & inspection.codes:
            return DenialClass.CONFIG
        return entry.denial_class

    def diagnose(
        self,
        inspection: Inspection | None,
        code: int | str | None = None,
        reason: str | None = None,
    ) -> tuple[str, ...]:
        """Say why a token was refused: what it shows itself, then what is left to check.

        Args:
            inspection: Of the refused token, or None if there is none.
            code: The server's code.
            reason: The server's words. They are not repeated, only looked up if there is no known *code*.
        """
        from token_keeper.inspection._judge import diagnosis  # noqa: PLC0415 # As the catalogue.

        return diagnosis(self.entry(code) or self.entry(reason), inspection)

    def knows(self, code: int | str | None) -> bool:
        """Whether *code* has an entry. No code at all is nothing unknown."""
        return code is None or self.entry(code) is not None

    def entry(self, code: int | str | None) -> Entry | None:
        """Return what is known of *code*, or None."""
        known = _normalized(code)
        return None if known is None else self.catalogue().get(known)


def apply(profile: Profile, context: Context) -> Inspection:
    """Return what the rules of *profile* say in *context*."""
    reading = context.reading
    secrets = _secrets_in(context)
    findings = tuple(_scrubbed(secrets, finding) for rule in profile.rules for finding in rule(context))
    alone = tuple(finding for finding in findings if finding.code in profile.alone)
    return Inspection(
        profile=profile.name,
        fingerprint=reading.given.fingerprint,
        header=_without(secrets, reading.header),
        claims=_without(secrets, reading.claims),
        expires_at=number(context.claims, "exp"),
        issued_at=number(context.claims, "iat"),
        not_before=number(context.claims, "nbf"),
        findings=alone[:1] or findings,
        wrapped=bool(reading.wrappings),
        has_vendor_rules=bool(profile.expects),
        checked=context.expect.names | ({"secret"} if context.key and context.is_jwt else set()),
    )


def _claim(claims: Mapping[str, object] | None, path: str) -> object:
    found: object = claims
    for key in path.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _changed(path: str) -> Finding:
    return error(
        "other-session",
        f"{path} is not what it was in the session's token",
        "Make the backend issue tokens for the same identity and service, or start a new session.",
    )


def _normalized(code: object) -> int | str | None:
    """Return *code* as catalogues spell it: digits as a number, words in lower case."""
    if isinstance(code, int) and not isinstance(code, bool):
        return code
    if not isinstance(code, str):
        return None
    word = code.strip().lower()
    # Python refuses to convert strings of more than 4300 digits; no code has ten.
    return int(word) if word.isascii() and word.isdigit() and len(word) < 10 else word


def _secrets_in(context: Context) -> frozenset[str]:
    """Return what must not be shown of the claims.

    Whoever mixes up the arguments of a minting helper puts the signing
    secret into `iss` or `sub`, from where it gets into `jti` too.
    """
    named = (context.claims.get(name) for name in ("iss", "sub"))
    secrets = {value for value in named if isinstance(value, str) and looks_secret(value)}
    if isinstance(context.key, Secret) and len(context.key.reveal()) >= LEAST_SECRET:
        secrets.add(context.key.reveal())
    return frozenset(secrets)


def _scrubbed(secrets: frozenset[str], finding: Finding) -> Finding:
    """Return *finding* without the *secrets* in its sentences, which may quote a claim around one."""
    message, hint = finding.message, finding.hint
    for secret in secrets:
        message, hint = _struck(secret, message), _struck(secret, hint)
    same = message == finding.message and hint == finding.hint
    return finding if same else replace(finding, message=message, hint=hint)


def _struck(secret: str, text: str) -> str:
    for spelling in (secret, ascii(secret)[1:-1]):
        text = text.replace(spelling, "<secret>")
        # Where a long claim was cut off, the beginning of a secret may be left.
        for length in range(min(len(spelling), MAX_SHOWN), LEAST_SECRET - 1, -1):
            text = text.replace(f"{spelling[:length]}'...", "<secret>'...")
    return text


def _without(secrets: frozenset[str], node: Any) -> Any:
    """Return *node* without the *secrets*, nor any token that was put into a claim."""
    if isinstance(node, str):
        if looks_like_jwt(node) or has_token(node):
            return "<token>"
        for secret in secrets:
            node = node.replace(secret, "<secret>")
        return node
    if isinstance(node, dict):
        return {_without(secrets, key): _without(secrets, child) for key, child in node.items()}
    if isinstance(node, list):
        return [_without(secrets, child) for child in node]
    return node
