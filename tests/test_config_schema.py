"""The JSON Schema says what `load` does."""

from __future__ import annotations

import tomllib

import jsonschema_rs
import pytest
from configuring import SOURCE, problems

from token_keeper import RefreshPolicy
from token_keeper.profiles import profile_named
from token_keeper.sidecar.config import schema
from token_keeper.sidecar.config._model import ProfileName

VALIDATOR = jsonschema_rs.Draft202012Validator(schema())

GOOD = """
[server]
listen = "[::1]:8750"
allow_uids = [0, "root"]
[tokens.chat]
profile = "twilio"
expect = { grants = ["chat"], identity = "alice" }
[tokens.chat.source]
type = "http"
url = "https://backend.example/token"
json = { any = ["thing", 1, true] }
timeout = "5s"
[tokens.chat.policy]
lead = "3m"
jitter_ratio = "5%"
min_interval = 2.5
[[tokens.chat.sinks]]
type = "file"
path = "/tmp/chat"
mode = "0600"
[[tokens.chat.hooks]]
on = ["tokenUpdated"]
run = ["true"]
"""


def test_it_is_a_schema_of_the_2020_draft():
    jsonschema_rs.meta.validate(schema())

    assert schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_a_good_file_is_valid(tmp_path):
    assert problems(tmp_path, GOOD) == {}
    VALIDATOR.validate(tomllib.loads(GOOD))


@pytest.mark.parametrize(
    "text",
    [
        "sever = {}",
        "[server]\nmax_connections = 'many'",
        "[server]\nlisten = '0.0.0.0:80'",
        "[server]\nallow_uids = [true]",
        "[server]\nsocket = 'api.sock'",
        "[tokens.chat]",
        "[tokens.'a b'.source]\ntype = 'http'\nurl = 'https://x.example'",
        "[tokens.chat.source]\ntype = 'oauth3'",
        "[tokens.chat.source]\nurl = 'https://x.example'",
        "[tokens.chat.source]\ntype = 'http'",
        f"{SOURCE}headers = {{ A = 1 }}",
        f"{SOURCE}timeout = '5 seconds'",
        f"{SOURCE}timeout = true",
        f"{SOURCE}[tokens.chat.policy]\nlead = 0.2",
        f"{SOURCE}[tokens.chat.policy]\nlead_ratio = 'much'",
        f"{SOURCE}[tokens.chat.policy]\nsplay = 1",
        f"{SOURCE}[[tokens.chat.sinks]]\ntype = 'file'\npath = '/a'\nmode = 600",
        f"{SOURCE}[[tokens.chat.sinks]]\ntype = 'file'\npath = '/a'\nformat = 'yaml'",
        f"{SOURCE}[[tokens.chat.sinks]]\npath = '/a'",
        f"{SOURCE}[[tokens.chat.hooks]]\nrun = 'true'",
        f"{SOURCE}[[tokens.chat.hooks]]\nrun = ['true']\non = ['tokenupdated']",
        f"[tokens.chat]\nprofile = 'none'\n{SOURCE}",
        f"[tokens.chat]\nprofile = 'twilio'\nexpect = {{ identity = 5 }}\n{SOURCE}",
    ],
)
def test_what_load_refuses_by_type_is_not_valid(tmp_path, text):
    assert problems(tmp_path, text)
    assert not VALIDATOR.is_valid(tomllib.loads(text))


def objects(node):
    if isinstance(node, dict):
        if node.get("type") == "object" and "properties" in node:
            yield node
        for child in node.values():
            yield from objects(child)


def test_every_table_and_every_key_is_described():
    for table in objects(schema()):
        assert table["description"]
        for key, document in table["properties"].items():
            assert key == "type" or document.get("description"), key


def test_the_keys_of_a_policy_are_those_of_the_package_with_their_defaults():
    properties = schema()["$defs"]["PolicyTable"]["properties"]

    assert set(properties) == {"lead"} | {
        name.removesuffix("_s") for name in RefreshPolicy.__dataclass_fields__
    }
    assert properties["lead_min"]["default"] == "30s"
    assert properties["lead_max"]["default"] == "6h"
    assert properties["lead_ratio"]["default"] == "20%"
    assert "in seconds" not in str({key: properties[key] for key in properties if key != "lead"})


def test_every_profile_of_the_model_exists():
    assert all(profile_named(name).name == name for name in ProfileName.__args__)
