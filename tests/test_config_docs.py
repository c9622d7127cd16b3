"""The page on the configuration says every key with its default; its examples load, and the README's."""

from __future__ import annotations

import base64
import re
import tomllib
from pathlib import Path

import jsonschema_rs
import pytest
import trustme
from configuring import SOURCE, problems
from pages import blocks_of

from token_keeper.sidecar.config import schema

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "configuration.md").read_text()
TEXTS = (PAGE, (ROOT / "README.md").read_text())
EXAMPLES = [block for text in TEXTS for block in blocks_of(text) if block.language == "toml"]
TABLES = {
    "[server]": "ServerConfig",
    "[tokens.NAME]": "TokenConfig",
    "[store]": "StoreConfig",
    'type = "http"': "HttpSourceConfig",
    "[tokens.NAME.source.bearer_jwt]": "BearerJwtConfig",
    'type = "oauth2"': "OAuth2SourceConfig",
    'type = "command"': "CommandSourceConfig",
    'type = "file"': "FileSourceConfig",
    'type = "chain"': "ChainSourceConfig",
    "[tokens.NAME.policy]": "PolicyTable",
    "[[tokens.NAME.sinks]]": "FileSinkConfig",
    "[[tokens.NAME.hooks]]": "HookConfig",
}


def here(text: str, directory: Path) -> str:
    """Return an example with the directories of this test instead of the system's."""
    text = text.replace('"/var/lib/token-keeper"', f'"{directory}/store"')
    return re.sub(r"/(run|etc)/(app|secrets|token-keeper)/", f"{directory}/", text)


@pytest.fixture
def environ(tmp_path):
    """Put everything in place that the examples refer to."""
    tmp_path.chmod(0o700)
    for name in ("backend-key", "client-secret", "refresh-token", "subject"):
        (tmp_path / name).write_text("s3cret\n")
    for name in ("store.key", "store-key"):
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_text(base64.b64encode(bytes(32)).decode())
    authority = trustme.CA()
    certificate = authority.issue_cert("client.example")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "client.pem"))
    certificate.private_key_pem.write_to_path(str(tmp_path / "client.key"))
    return {
        "TENANT": "t",
        "BACKEND_KEY": "k",
        "ACTOR": "a",
        "CREDENTIALS_DIRECTORY": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path),
    }


@pytest.mark.parametrize("block", EXAMPLES, ids=lambda block: f"line {block.line}")
def test_an_example_loads_and_is_valid(tmp_path, environ, block):
    text = here(block.code, tmp_path)
    text = text if re.search("source|server|store", text) else SOURCE + text

    assert problems(tmp_path, text, environ) == {}
    jsonschema_rs.validate(schema(), tomllib.loads(text))


@pytest.mark.parametrize(("heading", "definition"), TABLES.items())
def test_every_key_has_a_row_with_its_default_and_an_example(heading, definition):
    part = PAGE.partition(f"\n## `{heading}`\n")[2].partition("\n## ")[0]
    rows = {
        name: cells[1].strip()
        for line in part.splitlines()
        if line.startswith("| `")
        for cells in [line.strip("|").split("|")]
        for name in re.findall(r"`(\w+)`", cells[0])
    }
    properties = schema()["$defs"][definition]["properties"]

    assert set(rows) == set(properties)
    for name, document in properties.items():
        default = document.get("default")
        if isinstance(default, str | bool | int):
            shown = str(default).lower() if isinstance(default, bool) else default
            assert rows[name] in {f'`"{shown}"`', f"`{shown}`", f"{shown}"}, name
        assert re.search(rf"\b{name} = |\.{name}[.\]]", "".join(block.code for block in EXAMPLES)), name
