"""A keeper without a source: it watches the token that you hand in.

    TOKEN_URL=https://backend.example/token python no_source.py

The events of Twilio's AccessManager: 3 min before the expiry (or half of the
lifetime, if that is shorter) comes `tokenAboutToExpire`; you bring the next token.
"""

import os
import time

import httpx

from token_keeper import TokenEvent, TokenKeeper


def new_token() -> str:
    """Get a token your own way: here from a backend, by hand."""
    answer = httpx.post(os.environ["TOKEN_URL"], json={"identity": "alice"}, timeout=5)
    token: str = answer.raise_for_status().json()["token"]
    return token


keeper = TokenKeeper(name="alice")


@keeper.on("tokenAboutToExpire", "tokenExpired")
def bring_another(event: TokenEvent) -> None:
    print(f"{event.kind}, generation {event.generation}")
    keeper.update(new_token())


@keeper.on("tokenUpdated")
def use(event: TokenEvent) -> None:
    print(f"client.updateToken(keeper.token)  # generation {event.generation}")


keeper.update(new_token())
with keeper:
    time.sleep(float(os.environ.get("SECONDS", "3600")))
