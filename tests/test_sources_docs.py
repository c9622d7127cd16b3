"""The pages on sources cannot rot: one sidecar runs all their examples against what providers ask for.

The host names lead to `provider_shapes` by a proxy and an authority of ours, of which the
sidecar is told by its environment, as in a company. Only the files of the examples are elsewhere.
"""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import pytest
import trustme
from commanding import command
from configuring import problems
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pages import blocks_of
from programs import EXAMPLES as PROGRAMS_TO_COPY
from programs import shown_to
from provider_files import PROGRAMS, SECRETS, write_files
from provider_server import ProviderServer
from provider_shapes import HOSTS, OKTA, REALM, Providers, thumbprint_of
from sidecar import Sidecar, a_directory, eventually, running
from test_docs import Tunnels

from token_keeper import DirectoryStore, OAuth2Source
from token_keeper.store import Record
from token_keeper.testing import FakeBackend

DOCS = Path(__file__).parent.parent / "docs"
PAGES = ("sources", "oauth2", "store")
EXAMPLES = {
    f"{name}.md:{block.line}": block
    for name in PAGES
    for block in blocks_of((DOCS / f"{name}.md").read_text(encoding="utf-8"))
    if block.language == "toml"
}
NAMES = [name for block in EXAMPLES.values() for name in tomllib.loads(block.code).get("tokens", {})]
LOGGED_IN = "okta-user"
"""The one that needs a user."""


@dataclass(frozen=True, slots=True)
class Place:
    """What the examples find: their files, and the way to the providers."""

    root: Path
    providers: Providers
    environ: Mapping[str, str]

    def here(self, text: str) -> str:
        """Return an example with its files below our root."""
        return re.sub(r"(?<=[\":])/(?=(?:etc|run|usr|var)/)", f"{self.root}/", text)


@contextmanager
def the_world() -> Iterator[Place]:
    providers, authority = Providers(), trustme.CA()
    with a_directory() as root, ProviderServer(authority, tuple(HOSTS), providers.answer) as server:
        write_files(root, providers.private_key)
        trusted = root / "authority.pem"
        authority.cert_pem.write_to_path(str(trusted))
        with Tunnels(dict.fromkeys(HOSTS, server.port)) as proxy:
            serving = Thread(target=proxy.serve_forever, args=(0.05,), daemon=True)
            serving.start()
            ours = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
            own = {
                "HTTPS_PROXY": f"http://127.0.0.1:{proxy.server_address[1]}",
                "SSL_CERT_FILE": str(trusted),
                "PATH": f"{root}/usr/local/bin:{ours['PATH']}",
                "STATE_DIRECTORY": str(root / "var/lib/token-keeper"),
            }
            yield Place(root, providers, ours | own)
            proxy.shutdown()
            serving.join()


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with the_world() as place:
        yield place


@pytest.fixture(scope="module")
def sidecar(place: Place) -> Iterator[Sidecar]:
    """The real sidecar with the examples of all pages; one that does not load fails its own test."""
    texts = (place.here(block.code) for block in EXAMPLES.values())
    config = "\n".join(text for text in texts if not problems(place.root, text, place.environ))
    with running(config, directory=place.root, env=place.environ) as sidecar:
        yield sidecar


@pytest.mark.parametrize("place_of_block", EXAMPLES)
def test_an_example_is_what_check_wants(place: Place, place_of_block: str) -> None:
    assert problems(place.root, place.here(EXAMPLES[place_of_block].code), place.environ) == {}


@pytest.mark.parametrize("name", [name for name in NAMES if name != LOGGED_IN])
def test_the_sidecar_gets_the_token_of_an_example(place: Place, sidecar: Sidecar, name: str) -> None:
    try:
        token = sidecar.until_token(name).json["token"]
    except AssertionError:
        trouble = [line for line in sidecar.log if line.get("keeper") == name]
        raise AssertionError(f"{place.providers.complaints}\n{trouble}") from None
    assert token == issued_for(place, name)


def issued_for(place: Place, name: str) -> str:
    if name in place.providers.issued:
        return place.providers.issued[name][-1]
    return PROGRAMS[name].token if name in PROGRAMS else SECRETS["/var/run/secrets/tokens/app"]


def refreshed(sidecar: Sidecar, name: str) -> None:
    before = sidecar.until_token(name).json["token"]
    sidecar.ask("POST", f"/v1/tokens/{name}/refresh", json_body={})
    eventually(lambda: sidecar.until_token(name).json["token"] != before, what=f"another token of {name}")


@pytest.mark.parametrize("name", ["keycloak-user", "auth0-user", "mail"])
def test_a_refresh_token_that_rotates_is_never_sent_twice(place: Place, sidecar: Sidecar, name: str) -> None:
    sidecar.until_token(name)
    refreshed(sidecar, name)
    refreshed(sidecar, name)
    assert place.providers.refresh[name].endswith(f"-{len(place.providers.issued[name]) + 1}")
    assert not [one for one in place.providers.complaints if "refresh token" in one]


# The person approves after the first of two questions, a second apart, and a keeper keeps its pauses.
def test_a_user_logs_in_once_and_the_sidecar_goes_on(place: Place, sidecar: Sidecar) -> None:
    options = ("--config", str(sidecar.config_path), "--no-browser")
    ended = command("login", LOGGED_IN, *options, env=dict(sidecar.environ))
    assert ended.returncode == 0, ended.stderr
    assert "GDLMZQCT" in ended.stderr
    sidecar.until_token(LOGGED_IN)
    refreshed(sidecar, LOGGED_IN)
    assert sidecar.until_token(LOGGED_IN).json["token"] == place.providers.issued[LOGGED_IN][-1]


def test_a_chain_says_which_link_the_token_came_from(sidecar: Sidecar) -> None:
    sidecar.until_token("chat")
    rows = {row["name"]: row for row in sidecar.ask("GET", "/v1/tokens").json["tokens"]}
    assert rows["chat"]["source"] == "backend"


def test_no_provider_has_a_complaint(place: Place, sidecar: Sidecar) -> None:
    for name in NAMES:
        if name != LOGGED_IN:
            sidecar.until_token(name)
    assert place.providers.complaints == []


WRONG = re.compile(
    r"^\| (?P<who>[\w ]+?)(?:, [^|]*)? \| (?P<answer>[^|]+) \| (?P<verdict>[^|]+) \|$", re.MULTILINE
)
REJECTED = {
    "Vault": "vault",
    "Keycloak": "keycloak",
    "Auth0": "auth0",
    "Okta": "okta",
    "Entra ID": "entra",
    "Google": "google",
    "GitHub": "github",
}


def rows_on_wrong_credentials() -> dict[str, re.Match[str]]:
    text = (DOCS / "sources.md").read_text(encoding="utf-8")
    table = text.partition("<!-- tested: wrong credentials -->")[2].partition("<!-- end -->")[0]
    return {row["who"]: row for row in list(WRONG.finditer(table))[1:]}


def test_the_table_on_wrong_credentials_has_a_row_for_each_provider() -> None:
    assert rows_on_wrong_credentials().keys() == REJECTED.keys()


# The second answer of GitHub, which makes the refusal certain, is asked for 5 s after the first.
@pytest.mark.parametrize("who", REJECTED)
def test_wrong_credentials_are_answered_and_understood_as_the_page_says(
    place: Place, sidecar: Sidecar, who: str
) -> None:
    row, name = rows_on_wrong_credentials()[who], REJECTED[who]
    sidecar.until_token(name)
    place.providers.rejecting.add(name)
    sidecar.ask("POST", f"/v1/tokens/{name}/refresh", json_body={})
    event = "refreshRefused" if row["verdict"].startswith("refused") else "refreshFailed"
    told = eventually(
        lambda: [line for line in sidecar.logged(event) if line["keeper"] == name], what=f"{event} of {name}"
    )
    status, answer = place.providers.rejected[name]
    assert row["answer"].startswith(f"{status}, `{answer}")
    assert told


def test_the_thumbprint_for_entra_is_what_the_command_prints(tmp_path: Path) -> None:
    (block,) = (
        block
        for block in blocks_of((DOCS / "sources.md").read_text(encoding="utf-8"))
        if block.language == "sh"
    )
    certificate = trustme.CA().issue_cert("entra.example").cert_chain_pems[0]
    certificate.write_to_path(str(tmp_path / "entra.crt"))
    ended = subprocess.run(
        ["/bin/sh", "-c", block.code], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=20
    )
    der = x509.load_pem_x509_certificate(certificate.bytes()).public_bytes(Encoding.DER)
    assert ended.stdout.strip() == thumbprint_of(der)


def test_the_key_that_the_command_on_the_page_makes_seals_a_store(tmp_path: Path) -> None:
    text = (DOCS / "store.md").read_text(encoding="utf-8")
    (block,) = (block for block in blocks_of(text) if block.language == "sh")
    subprocess.run(["/bin/sh", "-c", block.code], cwd=tmp_path, check=True, timeout=20)
    store = DirectoryStore(tmp_path / "grants", key_file=tmp_path / "store.key")
    lease = store.slot("mail").try_lease()
    assert lease is not None
    with lease:
        lease.write(Record(owner="https://sso.example/realms/app worker"))
    assert "sso.example" not in (tmp_path / "grants" / "mail.grant").read_text()


def rows_of(page: str, heading: str) -> list[list[str]]:
    """Return the cells of the table below *heading*."""
    text = (DOCS / page).read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in rows][1:]


def test_every_word_of_the_oauth2_source_has_a_row_with_its_default() -> None:
    defaults = {
        name: row[1] for row in rows_of("oauth2.md", "Words") for name in re.findall(r"`(\w+)`", row[0])
    }
    words = inspect.signature(OAuth2Source).parameters
    assert defaults.keys() == words.keys()
    for name, word in words.items():
        if isinstance(word.default, str):
            assert defaults[name] == f'`"{word.default}"`', name
        elif isinstance(word.default, float | int) and word.default is not False:
            assert defaults[name].removesuffix(" s") == f"{word.default:g}", name


def test_the_messages_on_the_page_about_the_store_are_those_of_the_code() -> None:
    package = DOCS.parent / "token_keeper"
    files = [*package.glob("store/*.py"), *package.glob("sources/oauth2/*.py")]
    code = re.sub(r'"\s+f?"', "", "".join(file.read_text(encoding="utf-8") for file in files))
    shown = [
        phrase
        for row in rows_of("store.md", "What the messages mean")
        for phrase in re.findall(r"\*([^*]+)\*", row[0])
    ]
    pieces = [piece.strip(" ,.") for phrase in shown for piece in re.split(r"\b[ABN]\b|\.\.\.|, but", phrase)]
    assert len(shown) > 10
    assert [piece for piece in pieces if " " in piece and piece not in code] == []


# Programs to copy.


def ran(place: Place, name: str, **environ: str) -> list[str]:
    ended = subprocess.run(
        [sys.executable, "-W", "error", str(PROGRAMS_TO_COPY / "sources" / name)],
        cwd=place.root,
        env={**place.environ, **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 0, f"{ended.stderr}\n{place.providers.complaints}"
    return ended.stdout.splitlines()


@pytest.fixture
def own_place() -> Iterator[Place]:
    with the_world() as place:
        yield place


def test_the_configuration_to_copy_is_what_check_wants(own_place: Place) -> None:
    text = (PROGRAMS_TO_COPY / "sources" / "keeper.toml").read_text(encoding="utf-8")
    assert problems(own_place.root, own_place.here(text), own_place.environ) == {}


def test_the_program_with_a_refresh_token_goes_on_where_its_last_run_ended(own_place: Place) -> None:
    with FakeBackend() as api:
        api.answer(body={"things": []}, times=None)
        environ = {
            "ISSUER": REALM,
            "CLIENT_ID": "worker",
            "REFRESH_TOKEN_FILE": str(own_place.root / "etc/token-keeper/mail-refresh-token"),
            "API_URL": api.url,
        }
        assert ran(own_place, "refresh_token.py", **environ) == ["200"]
        assert ran(own_place, "refresh_token.py", **environ) == ["200"]
        assert set(shown_to(api)) == set(own_place.providers.issued["mail"])
    assert own_place.providers.complaints == []


# The person approves after the first of two questions, a second apart.
def test_the_program_with_a_device_login_asks_its_user_only_once(own_place: Place) -> None:
    environ = {"ISSUER": f"{OKTA}/oauth2/default", "CLIENT_ID": "0oa8f2"}
    first = ran(own_place, "device_login.py", **environ)
    assert first[0] == f"Open {OKTA}/activate and enter GDLMZQCT"
    assert ran(own_place, "device_login.py", **environ) == first[1:]
    assert len(first) == 2
    assert own_place.providers.complaints == []


def test_the_program_with_a_chain_says_where_the_token_came_from(tmp_path: Path, own_place: Place) -> None:
    with FakeBackend() as backend:
        environ = {"TOKEN_FILE": str(tmp_path / "chat.token"), "TOKEN_URL": backend.url}
        assert ran(own_place, "chain.py", **environ) == ["fresh, from backend"]
        (tmp_path / "chat.token").write_text("the-token-of-the-file\n")
        assert ran(own_place, "chain.py", **environ) == ["fresh, from file"]
