"""Learns when the sidecar has another token, by long polling. Never blocks but to connect."""

from __future__ import annotations

import time

from token_keeper._secret import Secret
from token_keeper.cli._answers import document_of
from token_keeper.cli._asking import secret_in
from token_keeper.cli._client import TIMEOUT_S, Sidecar
from token_keeper.cli._group import Failure
from token_keeper.cli._polled import Polled
from token_keeper.cli._printing import say
from token_keeper.cli._wire import Answer

WAIT_S = 60
"""Seconds that the sidecar lets one question wait."""
ASK_MIN_S = 1.0
"""Seconds between two questions, whatever the sidecar answers."""
PAUSE_MAX_S = 30.0
"""Most seconds between two questions that fail."""


class Watch(Polled):
    """Waits for the successors of a token.

    Args:
        sidecar: Whom to ask.
        name: Of the token.
        generation: Of the one that is there already.
        fingerprint: Of the same.
    """

    def __init__(self, sidecar: Sidecar, name: str, *, generation: int, fingerprint: str) -> None:
        super().__init__(sidecar)
        self._name = name
        self._generation = generation
        self._fingerprint = fingerprint
        self._asked_at = 0.0
        self._failures = 0
        self._has_said = False

    def advance(self, *, is_readable: bool) -> Secret | None:
        """Read what came, or do what is due; return a token that was not there before."""
        try:
            if self._exchange is None:
                if not self.timeout_s():
                    self._ask()
                return None
            answer = self._whole_answer(self._exchange, is_readable=is_readable)
            return None if answer is None else self._read(answer)
        except Failure as failure:
            self._fail(failure)
            return None

    def _ask(self) -> None:
        self._asked_at = time.monotonic()
        self._due_at = self._asked_at + ASK_MIN_S
        # After a failure it may be another sidecar, which counts its generations anew: what has it now?
        after = "" if self._failures else f"?after_generation={self._generation}&wait={WAIT_S}"
        self._exchange = self._sidecar.begin("GET", f"/v1/tokens/{self._name}{after}")
        self._due_at = self._asked_at + WAIT_S + TIMEOUT_S

    def _read(self, answer: Answer) -> Secret | None:
        if answer.status != 304:
            document = document_of(answer, self._sidecar.path, 200)
            token = secret_in(document, self._sidecar.path)
            generation = document.get("generation")
            self._generation = generation if isinstance(generation, int) else 0
        else:
            token = None
        self._due_at = self._asked_at + ASK_MIN_S
        if self._has_said:
            say("the sidecar gives tokens again")
        self._failures, self._has_said = 0, False
        if token is None or token.fingerprint == self._fingerprint:
            return None
        self._fingerprint = token.fingerprint
        return token

    def _fail(self, failure: Failure) -> None:
        self.close()
        self._failures += 1
        # A sidecar that restarts, or has no token for a moment, is not worth a word.
        if self._failures == 3:
            say(f"no newer token can be had: {failure.message}; the program keeps the one that it has")
            self._has_said = True
        pause_s = min(ASK_MIN_S * 2 ** min(self._failures - 1, 8), PAUSE_MAX_S)
        self._due_at = time.monotonic() + pause_s
