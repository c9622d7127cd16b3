"""Let a user log in on another device, once; keep the token fresh from then on.

    ISSUER=https://example.okta.com/oauth2/default CLIENT_ID=0oa8f2 \
        STATE_DIRECTORY=/var/lib/worker python device_login.py

The second run asks nobody: the grant is in the directory.
"""

import asyncio
import os

from token_keeper import AsyncTokenKeeper, DeviceCode, DirectoryStore, OAuth2Source, TokenUnavailable

source = OAuth2Source(
    issuer=os.environ["ISSUER"],
    grant="device_code",
    client_id=os.environ["CLIENT_ID"],
    scope="openid offline_access",
    store=DirectoryStore(os.environ["STATE_DIRECTORY"]),
    stored_as="user",
)


def show(code: DeviceCode) -> None:
    print(f"Open {code.verification_uri} and enter {code.user_code}", flush=True)


async def work() -> None:
    async with AsyncTokenKeeper(source) as keeper:
        print(f"a token of {len(keeper.token)} characters")


async def main() -> None:
    try:
        await work()
    except TokenUnavailable:
        # Without a grant the keeper does not start.
        await source.login(show)
        await work()


asyncio.run(main())
