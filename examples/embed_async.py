"""Keep one token fresh in a program with an event loop.

Run it: TOKEN_URL=https://backend.example/token API_URL=https://api.example/things python embed_async.py
"""

import asyncio
import os

import httpx

from token_keeper import AsyncTokenKeeper, HttpSource


async def main() -> None:
    source = HttpSource(os.environ["TOKEN_URL"])
    async with AsyncTokenKeeper(source) as keeper, httpx.AsyncClient() as client:
        for _ in range(3):
            # `get` can wait, if there is no token that lives for 10 s more. `keeper.token` never waits.
            token = await keeper.get(min_validity=10, timeout=20)
            response = await client.get(os.environ["API_URL"], headers={"Authorization": f"Bearer {token}"})
            print(response.status_code)


asyncio.run(main())
