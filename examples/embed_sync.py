"""Keep one token fresh in a program that blocks.

Run it: TOKEN_URL=https://backend.example/token API_URL=https://api.example/things python embed_sync.py
"""

import os

import httpx

from token_keeper import HttpSource, TokenKeeper

with TokenKeeper(HttpSource(os.environ["TOKEN_URL"])) as keeper, httpx.Client() as client:
    for _ in range(3):
        # Read it for each call: what `keeper.token` returns is renewed behind it.
        headers = {"Authorization": f"Bearer {keeper.token}"}
        print(client.get(os.environ["API_URL"], headers=headers).status_code)
