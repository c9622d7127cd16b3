"""Whatever stands in a file: a configuration or its problems, and no secret shown."""

from __future__ import annotations

import copy
import datetime as dt
import json
import tempfile
from pathlib import Path
from typing import Any

from configuring import CANARY, written
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from token_keeper.sidecar.config import BadConfig, load

# With the canary in its comment, so that the rest of it can be looked for, too.
PEM = (
    ec.generate_private_key(ec.SECP256R1())
    .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    .decode()
    .replace("-----BEGIN", f"{CANARY}\n-----BEGIN", 1)
)
GOOD: dict[str, Any] = {
    "store": {"directory": "/tmp/store-of-a-test"},
    "server": {"listen": "127.0.0.1:8750", "hosts": ["a.example"], "allow_uids": [0], "max_connections": 64},
    "tokens": {
        "chat": {
            "profile": "twilio",
            "expect": {"grants": ["chat"], "identity": "alice"},
            "source": {
                "type": "http",
                "url": f"https://x.example/token?key={CANARY}",
                "headers": {"Authorization": f"Bearer {CANARY}", "X-File": "${env:KEY}"},
                "params": {"key": CANARY},
                "json": {"secret": CANARY, "list": [CANARY, {"deep": CANARY}]},
                "timeout": "5s",
                "token_path": "data.token",
            },
            "policy": {"lead": "20%", "backoff_max": "2m", "splay": False},
            "sinks": [{"type": "file", "path": "/tmp/chat-of-a-test", "mode": "0600"}],
            "hooks": [{"on": ["tokenUpdated"], "run": ["true", CANARY], "timeout": 5}],
        },
        "sync": {"source": {"type": "http", "url": "https://y.example/", "data": {"secret": CANARY}}},
        "user": {
            "source": {
                "type": "oauth2",
                "issuer": "https://login.example",
                "grant": "refresh_token",
                "client_id": "app",
                "client_secret": CANARY,
                "refresh_token": "${env:KEY}",
                "scope": ["read"],
                "extra": {"field": CANARY},
                "replay_window": "20s",
            }
        },
        "either": {
            "source": {
                "type": "chain",
                "sources": {
                    "agent": {"type": "file", "path": "/run/agent", "default_lifetime": "1h"},
                    "program": {"type": "command", "run": ["true", CANARY], "env": {"SECRET": CANARY}},
                    "signed": {
                        "type": "oauth2",
                        "token_url": "https://login.example/token",
                        "grant": "jwt_bearer",
                        "assertion": {"iss": "app", "secret": CANARY},
                        "private_key": PEM,
                    },
                    "app": {
                        "type": "http",
                        "url": "https://x.example/",
                        "bearer_jwt": {"private_key": PEM, "claims": {"iss": CANARY}, "lifetime": "5m"},
                    },
                },
            }
        },
    },
}


def places(node: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return where something stands in *node*."""
    members = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [place for key, child in members for place in [(*at, key), *places(child, (*at, key))]]


def toml(value: Any) -> str:
    """Write *value* as TOML, tables inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, float):
        return str(value)
    return json.dumps(value, ensure_ascii=False)


def changed(node: Any, place: tuple[Any, ...], value: Any, *, key: str | None) -> Any:
    """Return *node* with *value* at *place*, or with an unknown *key* beside it."""
    node = copy.deepcopy(node)
    table = node
    for step in place[:-1]:
        table = table[step]
    if key is not None and isinstance(table, dict):
        table[key] = value
    elif value is None:
        del table[place[-1]]
    else:
        table[place[-1]] = value
    return node


def outcome(path: Path, environ: dict[str, str]) -> str:
    """Return all that loading *path* says."""
    try:
        return f"warnings: {load(path, environ=environ).warnings}"
    except BadConfig as bad:
        return str(bad)


SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.dates(dt.date(1, 1, 1)),
    st.text(st.characters(codec="utf-8", exclude_characters="\x7f"), max_size=40),
    st.sampled_from(
        [CANARY, f"${{env:{CANARY}}}", "${env:KEY}", "${", "3m", "20%", "0600", "/", "", "https://[", "\0"]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abct.-", max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
DEEP = st.integers(1, 60).map(lambda depth: json.loads("[" * depth + "]" * depth))
KEYS = st.none() | st.sampled_from(
    ["tokens", "pth", "lead_min", "headers", "typ", "adopt", "stdin", "signal"]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(places(GOOD)), VALUES | DEEP | st.none(), KEYS), max_size=3))
def test_any_change_to_a_file_gives_a_configuration_or_problems_without_a_secret(changes):
    document = GOOD
    for place, value, key in changes:
        try:
            document = changed(document, place, value, key=key)
        except (KeyError, IndexError, TypeError):
            continue  # An earlier change took its place away.
    text = "".join(f"{json.dumps(key)} = {toml(value)}\n" for key, value in document.items())
    with tempfile.TemporaryDirectory() as directory:
        path = written(Path(directory), text)
        shown = outcome(path, {"KEY": f"{CANARY}-of-the-environment"})

    # Where a name must be, a name is shown: who writes a secret there is told which variable is missing.
    assert CANARY not in shown.replace(f"${{env:{CANARY}}}", "")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.text("[]{}=.'\"\\ab1#\n", max_size=60).map(str.encode))
def test_any_bytes_give_a_configuration_or_problems(raw):
    with tempfile.TemporaryDirectory() as directory:
        path = written(Path(directory), "")
        path.write_bytes(raw)
        assert outcome(path, {})
