"""Start although the backend is down, and serve as soon as it is back.

Run it: TOKEN_URL=https://backend.example/token python start_in_an_outage.py
"""

import logging
import os
import threading

from token_keeper import HttpSource, TokenEvent, TokenKeeper, TokenUnavailable

logging.basicConfig(level=logging.WARNING)

# With `start_timeout=0` the start neither waits nor fails: the first fetch runs in the background.
keeper = TokenKeeper(HttpSource(os.environ["TOKEN_URL"]), start_timeout=0)
is_ready = threading.Event()


@keeper.on("tokenUpdated")
def ready(_: TokenEvent) -> None:
    is_ready.set()


with keeper:
    try:
        token = keeper.token
        print("ready at once, with a token of", len(token), "characters")
    except TokenUnavailable as error:
        # For example: answer 503, and let the health check say so.
        print("no token yet:", error, flush=True)
    is_ready.wait(60)
    print("ready with generation", keeper.snapshot.generation)
