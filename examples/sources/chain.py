"""Take the token from a file that somebody else writes, and from the backend if there is none.

TOKEN_FILE=/run/issuer/chat.token TOKEN_URL=https://backend.example/token python chain.py
"""

import os

from token_keeper import ChainSource, FileSource, HttpSource, TokenKeeper

source = ChainSource(
    {
        "file": FileSource(os.environ["TOKEN_FILE"], default_lifetime=3600),
        "backend": HttpSource(os.environ["TOKEN_URL"]),
    }
)

with TokenKeeper(source) as keeper:
    print(f"{keeper.snapshot.status}, from {keeper.snapshot.source}")
