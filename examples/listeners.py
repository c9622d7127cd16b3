"""Be told what happens to the token.

Run it: TOKEN_URL=https://backend.example/token python listeners.py
"""

import os
import time

from token_keeper import HttpSource, TokenEvent, TokenKeeper

keeper = TokenKeeper(HttpSource(os.environ["TOKEN_URL"]), name="chat")


@keeper.on("tokenUpdated")
def use(event: TokenEvent) -> None:
    # The event holds no token. `keeper.token` is the newest one, whichever event this is.
    print(f"generation {event.generation} ({event.fingerprint}): hand keeper.token to your session")


@keeper.on("tokenAboutToExpire")
def note(event: TokenEvent) -> None:
    print(f"generation {event.generation} is about to expire; the keeper fetches the next one now")


@keeper.on("tokenExpired", "refreshRefused", "recoveryFailed")
def page_somebody(event: TokenEvent) -> None:
    print(f"{event.name}: {event.kind}: {event.error or 'there is no valid token'}")


@keeper.on("refreshFailed")
async def count(event: TokenEvent) -> None:
    # Async listeners run in the keeper's event loop: they must not block it.
    print(f"failed {event.failures} times in a row: {event.error}")


with keeper:
    time.sleep(float(os.environ.get("SECONDS", "3600")))
