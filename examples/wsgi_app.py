"""A WSGI application with a keeper in each worker of gunicorn: gunicorn_conf.py starts and ends it.

    TOKEN_URL=https://backend.example/token API_URL=https://api.example/things \\
        gunicorn --config gunicorn_conf.py wsgi_app:app

It works alike for Flask and Django: whatever calls the API uses `client`.
"""

import os
from collections.abc import Callable, Iterable

import httpx

from token_keeper import HttpSource, TokenKeeper, TokenUnavailable
from token_keeper.adapters.httpx import KeeperAuth

# Neither has a thread or a connection yet, so both may be made before the fork, with `preload_app`.
keeper = TokenKeeper(HttpSource(os.environ["TOKEN_URL"]), start_timeout=0)
client = httpx.Client(auth=KeeperAuth(keeper, timeout=float(os.environ.get("WAIT_S", "10"))))


def app(_: dict[str, object], start_response: Callable[..., object]) -> Iterable[bytes]:
    try:
        answer = client.get(os.environ["API_URL"])
    except TokenUnavailable as error:
        start_response("503 Service Unavailable", [("Content-Type", "text/plain"), ("Retry-After", "5")])
        return [str(error).encode()]
    start_response(f"{answer.status_code} {answer.reason_phrase}", [("Content-Type", "application/json")])
    return [answer.content]
