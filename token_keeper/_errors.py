"""What can go wrong, by what the caller can do about it.

TokenKeeperError
├── TokenUnavailable         wait: no usable token now; chained to the last failure
├── KeeperClosed             start a keeper: this one is closed, not started, or of a parent process
├── ConfigError              fix the code or the file (also a ValueError)
├── InvalidToken             fix the token: it cannot work (also a ValueError)
├── StoreError               fix the store: what it holds stays as it was
└── FetchError               one fetch brought no token; the current one stays
    ├── TransientFetchError  wait: the keeper tries again by itself
    ├── RefusedError         fix the access: the backend will not issue a token
    └── ResponseError        fix the backend or the path: it answered, but not with a token

No message, attribute or repr holds a token, a body or a credential.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from token_keeper._finding import Finding

PERMANENT_REASONS = frozenset({"invalid_grant", "invalid_client", "unauthorized_client", "access_denied"})
"""The `error` codes that asking again does not change (RFC 6749 sections 4.1.2.1 and 5.2)."""
LOGIN_REQUIRED = "login_required"
"""Why a source refuses that needs a person first (a device login, RFC 8628)."""


class TokenKeeperError(Exception):
    """Any error that this package raises on purpose."""


class TokenUnavailable(TokenKeeperError):
    """No usable token now, or none in time. `__cause__` is the last failed fetch, if any."""


class KeeperClosed(TokenKeeperError):
    """The keeper is closed, was not started, or belongs to the parent process."""


class ConfigError(TokenKeeperError, ValueError):
    """A setting cannot work.

    Args:
        key: The setting, as the user wrote it.
        problem: What is wrong with it, and what to write instead.
    """

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(key, problem)
        self.key = key
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.key}: {self.problem}"


class InvalidToken(TokenKeeperError, ValueError):
    """The token cannot work; nothing was changed.

    Args:
        message: What is wrong and what to do.
        findings: Everything that inspection said of the token.
    """

    def __init__(self, message: str, findings: Sequence[Finding] = ()) -> None:
        super().__init__(message, tuple(findings))
        self.message = message
        self.findings = tuple(findings)

    def __str__(self) -> str:
        return self.message


class StoreError(TokenKeeperError):
    """A store cannot be read or written. What it held before, it holds still.

    Args:
        place: The file or directory.
        problem: What is wrong with it, and what to do.
    """

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(place, problem)
        self.place = place
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}"


class FetchError(TokenKeeperError):
    """One fetch brought no token. The current token, if any, is served until it expires.

    Args:
        message: What happened, what still holds, what to do.
        retry_after: Seconds that the backend asked to wait, if it did.
        retry_within: Seconds after which another try is worthwhile at the
            latest, if that is known (a token that becomes valid then).
        timed_out: Whether the backend did not answer in time.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        retry_within: float | None = None,
        timed_out: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        self.retry_within = retry_within
        self.timed_out = timed_out

    def __str__(self) -> str:
        return self.message


class TransientFetchError(FetchError):
    """The backend was not reached, or could not answer now. The keeper tries again."""


class RefusedError(FetchError):
    """The backend answered, and the answer was no.

    Asking again soon cannot help and may lock the account, so the keeper
    probes slowly. The current token, if any, is served until it expires.

    Args:
        reason: The RFC 6749 error code, such as ``invalid_grant``, or
            ``http_401`` or ``http_403`` if the backend gave none; ``login_required``
            if somebody has to log in first.
        retry_after: Seconds that the backend asked to wait, if it did.
        message: What happened and what to do, if more is known than the reason.
    """

    def __init__(self, reason: str, *, retry_after: float | None = None, message: str | None = None) -> None:
        super().__init__(
            message
            or f"the backend refused to issue a token ({reason}); the keeper will probe slowly. "
            "Check the credentials, then call refresh()",
            retry_after=retry_after,
        )
        self.reason = reason

    def __reduce__(self) -> tuple[type[RefusedError], tuple[str], dict[str, object]]:
        # Exception pickles the message as the only argument; ours is built from the reason.
        return type(self), (self.reason,), self.__dict__

    @property
    def is_certain(self) -> bool:
        """Whether one such answer is enough to call it permanent."""
        return self.reason in PERMANENT_REASONS or self.reason == LOGIN_REQUIRED


class ResponseError(FetchError):
    """The backend answered, but not with a token that can work.

    Args:
        message: What was found instead, and what to do.
        findings: What inspection said of the token, if there was one.
        retry_within: Seconds until the token in the answer becomes valid.
    """

    def __init__(
        self,
        message: str,
        *,
        findings: Sequence[Finding] = (),
        retry_within: float | None = None,
    ) -> None:
        super().__init__(message, retry_within=retry_within)
        self.findings = tuple(findings)
