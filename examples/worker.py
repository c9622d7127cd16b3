"""A worker that calls an API, for days: a 401 costs it one more call and no restart.

What the API says of a token is reported. A denied token is withheld, another
one is fetched, and the call is made once more. SIGTERM or Ctrl-C ends the worker.
"""

import logging
import os
import signal
import threading

import httpx

from token_keeper import HttpSource, TokenKeeper, TokenUnavailable, Verdict

API_URL = os.environ["API_URL"]
PAUSE_S = float(os.environ.get("PAUSE_S", "10"))
TRY_AGAIN = {Verdict.DENIED, Verdict.SUPERSEDED}
"""The verdicts after which there is, or will be, another token."""


def call_api(keeper: TokenKeeper, client: httpx.Client) -> httpx.Response:
    """Call the API; if it denies the token, once more with another one."""
    for is_last in (False, True):
        token = keeper.get(timeout=20)
        response = client.get(API_URL, headers={"Authorization": f"Bearer {token}"})
        if response.is_success:
            keeper.report_accepted(token)
        if response.status_code != httpx.codes.UNAUTHORIZED:
            break
        verdict = keeper.report_denied(token, code=401, reason=response.headers.get("www-authenticate"))
        if is_last or verdict not in TRY_AGAIN:
            break
    return response


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with TokenKeeper(HttpSource(os.environ["TOKEN_URL"]), name="worker") as keeper, httpx.Client() as client:
        while not stop.is_set():
            try:
                print("the API answered", call_api(keeper, client).status_code, flush=True)
            except (TokenUnavailable, httpx.TransportError) as error:
                # The keeper goes on trying, and so does the next round.
                print("this round failed:", error, flush=True)
            stop.wait(PAUSE_S)
    print("stopped")


main()
