"""How long `token-keeper inspect` takes from the shell, beside an empty Python and `import httpx`."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from report import Figures, heading, interleaved, medians, note, run, table, times

from token_keeper.testing import mint

ROUNDS = 15
COMMAND = Path(sys.executable).with_name("token-keeper")
INSPECT = "token-keeper inspect < token"
INSPECT_JSON = "token-keeper inspect --json < token"
BARE = "python -c pass"
HTTPX = 'python -c "import httpx"'
PROGRAMS = {
    INSPECT: [str(COMMAND), "inspect"],
    INSPECT_JSON: [str(COMMAND), "inspect", "--json"],
    BARE: [sys.executable, "-c", "pass"],
    HTTPX: [sys.executable, "-c", "import httpx"],
}


def a_token() -> bytes:
    now = int(time.time())
    return mint(expires_at=now + 3600, iat=now, nbf=now, iss="https://issuer.example/", sub="me").encode()


def problem(program: list[str], token: bytes) -> str | None:
    """Run *program* once, which also writes its byte code, and say why it cannot be timed."""
    try:
        ended = subprocess.run(program, input=token, capture_output=True, check=False, timeout=30)
    except OSError as error:
        return str(error)
    if ended.stdout or program[0] == sys.executable:
        return None
    return (ended.stderr.decode().strip().splitlines() or ["it said nothing"])[-1]


def timed(program: list[str], token: bytes) -> Callable[[], float]:
    def one_run_ms() -> float:
        begin = perf_counter()
        subprocess.run(program, input=token, capture_output=True, check=False)
        return (perf_counter() - begin) * 1e3

    return one_run_ms


def measure() -> Figures:
    heading("From the shell")
    token = a_token()
    cases = {}
    for name, program in PROGRAMS.items():
        if why := problem(program, token):
            note(f"skipped: {name} ({why})")
        else:
            cases[name] = timed(program, token)
    found = medians(interleaved(cases, ROUNDS))
    table(
        ["", "ms", "to httpx"], [[name, f"{ms:.0f}", times(ms, found[HTTPX])] for name, ms in found.items()]
    )
    note(f"Medians of {ROUNDS} runs each, from the start of the process to its end.")
    return {"ms": found}


if __name__ == "__main__":
    run(measure)
