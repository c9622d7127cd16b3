"""An OAuth 2.0 token by `OAuth2Source`, beside Authlib's client and three lines of httpx."""

from __future__ import annotations

import asyncio
import statistics
from time import perf_counter, process_time

import httpx
from authlib.integrations.httpx_client import AsyncOAuth2Client
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fetches import Fetch, backend
from imports import timed
from joserfc.jwk import ECKey
from report import Figures, heading, interleaved, median_ratio, medians, note, run, table, times

from token_keeper.sources import OAuth2Source

ROUNDS = 7
FETCHES = 150
STARTS = 9
ID, SECRET = "robot", "secret"
AUTHLIB, OURS, BARE = "Authlib fetch_token", "OAuth2Source.fetch", "httpx.post and json()"
BASIC, SIGNED = "client_secret_basic", "private_key_jwt, ES256"
PEM = (
    ec.generate_private_key(ec.SECP256R1())
    .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    .decode()
)
AUTHLIB_START = """
import asyncio
from authlib.integrations.httpx_client import AsyncOAuth2Client
async def main():
    async with AsyncOAuth2Client({id!r}, {secret!r}) as client:
        await client.fetch_token({url!r}, grant_type="client_credentials")
"""
OUR_START = """
import asyncio
from token_keeper.sources import OAuth2Source
async def main():
    source = OAuth2Source({url!r}, client_id={id!r}, client_secret={secret!r})
    await source.fetch()
    await source.aclose()
"""


async def cost(fetch: Fetch) -> tuple[float, float]:
    """Return the microseconds of one fetch, by the wall clock and by our own CPU."""
    begin, cpu = perf_counter(), process_time()
    for _ in range(FETCHES):
        await fetch()
    return (perf_counter() - begin) * 1e6 / FETCHES, (process_time() - cpu) * 1e6 / FETCHES


async def compare(url: str) -> dict[str, dict[str, list[tuple[float, float]]]]:
    ours = {
        BASIC: OAuth2Source(url, client_id=ID, client_secret=SECRET),
        SIGNED: OAuth2Source(url, client_id=ID, private_key=PEM),
    }
    theirs = {
        BASIC: AsyncOAuth2Client(ID, SECRET),
        SIGNED: AsyncOAuth2Client(ID, ECKey.import_key(PEM), token_endpoint_auth_method="private_key_jwt"),
    }
    theirs[SIGNED].register_client_auth_method(PrivateKeyJWT(url, alg="ES256"))
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    async with httpx.AsyncClient() as client:

        async def bare() -> object:
            answer = await client.post(url, data={"grant_type": "client_credentials"}, auth=(ID, SECRET))
            return answer.raise_for_status().json()["token"]

        for way in (BASIC, SIGNED):
            authlib = theirs[way]

            async def by_authlib(authlib: AsyncOAuth2Client = authlib) -> object:
                return await authlib.fetch_token(url, grant_type="client_credentials")

            cases: dict[str, Fetch] = {AUTHLIB: by_authlib, OURS: ours[way].fetch, BARE: bare}
            found[way] = {name: [] for name in cases}
            for fetch in cases.values():
                await fetch()  # The connections are open now.
            for _ in range(ROUNDS):
                for name, fetch in cases.items():
                    found[way][name].append(await cost(fetch))
    for way in (BASIC, SIGNED):
        await theirs[way].aclose()
        await ours[way].aclose()
    return found


def starts(url: str) -> dict[str, float]:
    """Return the milliseconds from the start of a process to its first token."""
    words = {"url": url, "id": ID, "secret": SECRET}
    run_it = "asyncio.run(main())"
    cases = {
        AUTHLIB: timed(AUTHLIB_START.format(**words) + run_it),
        f"{AUTHLIB}, import only": timed("from authlib.integrations.httpx_client import AsyncOAuth2Client"),
        OURS: timed(OUR_START.format(**words) + run_it),
        f"{OURS}, import only": timed("from token_keeper.sources import OAuth2Source"),
    }
    for case in cases.values():
        case()  # So that the byte code is on disk.
    return medians(interleaved(cases, STARTS))


def measure() -> Figures:
    with backend() as url:
        measured = asyncio.run(compare(url))
        started = starts(url)
    heading("An OAuth 2.0 token from a server on loopback")
    found: dict[str, dict[str, float]] = {}
    rows = []
    for way, cases in measured.items():
        authlib = cases[AUTHLIB]
        for name, each in cases.items():
            wall, cpu = (statistics.median(one) for one in zip(*each, strict=True))
            ratio = median_ratio([one for _, one in each], [one for _, one in authlib])
            found[f"{way}: {name}"] = {"us": wall, "cpu_us": cpu, "cpu_to_authlib": ratio}
            rows.append([way, name, f"{wall:.0f}", f"{cpu:.0f}", times(ratio)])
    table(["", "", "us", "CPU us", "CPU to Authlib"], rows, to_left=(0, 1))
    note(f"Medians of {ROUNDS} rounds of {FETCHES}. httpx alone signs nothing and bounds nothing.")
    heading("From the start of a process to its first OAuth 2.0 token")
    table(
        ["", "ms", "to Authlib"],
        [[name, f"{ms:.0f}", times(ms, started[AUTHLIB])] for name, ms in started.items()],
    )
    note(f"Medians of {STARTS} fresh processes each.")
    return {"fetch": found, "start_ms": started}


if __name__ == "__main__":
    run(measure)
