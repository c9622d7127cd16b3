"""A worker that calls an API for days: through outages, denied tokens and renewals, without a restart.

    TOKEN_URL=https://backend.example/token API_URL=https://api.example/things python worker.py

It starts although the backend is down. A token that the API denies is reported, and the call is made
once more with another one. SIGTERM or Ctrl-C ends the worker between two calls.
"""

import logging
import os
import signal
import threading

import httpx

from token_keeper import HttpSource, TokenKeeper, TokenUnavailable, Verdict

API_URL = os.environ["API_URL"]
PAUSE_S = float(os.environ.get("PAUSE_S", "10"))
WAIT_S = float(os.environ.get("WAIT_S", "5"))
"""How long a call waits for a token: also how long SIGTERM may have to wait for the call."""
TRY_AGAIN = {Verdict.DENIED, Verdict.SUPERSEDED}
"""The verdicts after which there is, or will be, another token."""


def call_api(keeper: TokenKeeper, client: httpx.Client) -> httpx.Response:
    """Call the API; if it denies the token, once more with another one."""
    for is_last in (False, True):
        token = keeper.get(timeout=WAIT_S)
        response = client.get(API_URL, headers={"Authorization": f"Bearer {token}"})
        if response.is_success:
            keeper.report_accepted(token)
        if response.status_code != httpx.codes.UNAUTHORIZED:
            break
        verdict = keeper.report_denied(token, code=401, reason=response.headers.get("www-authenticate"))
        if is_last or verdict not in TRY_AGAIN:
            break
    return response


def work(keeper: TokenKeeper, client: httpx.Client, stop: threading.Event) -> None:
    """Call the API until *stop* is set."""
    while not stop.is_set():
        try:
            print("the API answered", call_api(keeper, client).status_code, flush=True)
        except (TokenUnavailable, httpx.TransportError) as error:
            # The keeper goes on trying, and so does the next round.
            print("this round failed:", error, flush=True)
        stop.wait(PAUSE_S)


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # It would log every call.
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    source = HttpSource(os.environ["TOKEN_URL"])
    # With `start_timeout=0` an outage delays the first call, not the start.
    with TokenKeeper(source, name="worker", start_timeout=0) as keeper, httpx.Client(timeout=5) as client:
        work(keeper, client, stop)
    print("stopped")


if __name__ == "__main__":
    main()
