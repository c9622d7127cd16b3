"""Keep a user's token fresh with a refresh token that rotates, and lose it to no crash.

    ISSUER=https://sso.example/realms/app CLIENT_ID=worker REFRESH_TOKEN_FILE=refresh-token \
        STATE_DIRECTORY=/var/lib/worker API_URL=https://api.example/things python refresh_token.py

The file holds the first refresh token, which the user's login left behind. Its successors are in the
directory, and only there. Start it twice: the two take turns, and share what they fetch.
"""

import os
from pathlib import Path

import httpx

from token_keeper import DirectoryStore, OAuth2Source, TokenKeeper

source = OAuth2Source(
    issuer=os.environ["ISSUER"],
    grant="refresh_token",
    client_id=os.environ["CLIENT_ID"],
    refresh_token=lambda: Path(os.environ["REFRESH_TOKEN_FILE"]).read_text().strip(),
    store=DirectoryStore(os.environ["STATE_DIRECTORY"]),
    stored_as="worker",
)

with TokenKeeper(source) as keeper, httpx.Client() as client:
    headers = {"Authorization": f"Bearer {keeper.token}"}
    print(client.get(os.environ["API_URL"], headers=headers).status_code)
