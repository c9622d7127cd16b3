"""Sources of every type in the configuration: what is refused, and what is read when."""

from __future__ import annotations

import asyncio

import jwt
import pytest
from authorization_server import CLIENT_ID, CLIENT_SECRET, AuthorizationServer, Client
from configuring import CANARY, SOURCE, loaded, problems, warnings, written
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from token_keeper import FetchError, RefusedError, TransientFetchError
from token_keeper.sidecar.config import load
from token_keeper.testing import FakeBackend

TABLE = "[tokens.chat.source]\n"
OAUTH2 = f'{TABLE}type = "oauth2"\ntoken_url = "https://login.example/token"\n'
WORKER = f'{OAUTH2}client_id = "worker"\nclient_secret = "s"\n'
REFRESH = f'{OAUTH2}client_id = "worker"\ngrant = "refresh_token"\nrefresh_token = "r"\n'
COMMAND = f'{TABLE}type = "command"\n'
FILE = f'{TABLE}type = "file"\n'
CHAIN = f'{TABLE}type = "chain"\n'


@pytest.fixture(autouse=True)
def private(tmp_path):
    tmp_path.chmod(0o700)


@pytest.fixture(scope="module")
def key():
    return ec.generate_private_key(ec.SECP256R1())


def pem(key):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def store_at(directory):
    return f'[store]\ndirectory = "{directory}/store"\n'


def outcome_of(source):
    async def run():
        try:
            return (await source.fetch(tries=1)).secret.reveal()
        except FetchError as error:
            return error
        finally:
            await source.aclose()

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        (f'{TABLE}type = "oauth2"\nclient_id = "w"\nclient_secret = "s"', "token_url",
         "is required, or issuer"),
        (f'{WORKER}scop = "x"', "scop", "did you mean scope?"),
        (f"{WORKER}scope = []", "scope", "a list of such strings"),
        (f'{WORKER}auth_method = "bsic"', "auth_method", "did you mean basic?"),
        (f"{WORKER}resource = [5]", "resource", "a list of such strings"),
        (f'{WORKER}keep = "yes"', "keep", "must be true or false"),
        (f"{WORKER}extra = {{ a = {{}} }}", "extra.a", "must be a string, a number"),
        (f'{WORKER}extra = {{ scope = "{CANARY}" }}', "extra.scope", "is set by us"),
        (f'{WORKER}refresh_token = "{CANARY}"', "refresh_token", "does not belong to grant"),
        (f'{WORKER}revoke = "refresh_token"', "revoke", "grant client_credentials has none"),
        (f'{WORKER}timeout = "31s"', "timeout", 'at most 30; it is "31s"'),
        (f'{WORKER}token_path = "[[{CANARY}"', "token_path", "not a JMESPath expression"),
        (f'{WORKER}ca_file = "/none.pem"', "ca_file", "cannot be read"),
        (f'{OAUTH2}client_id = "w"\nprivate_key = "{CANARY}"', "private_key", "must be in PEM"),
        (f'{OAUTH2}client_id = "w"', "client_secret", "is required for grant client_credentials"),
        (f'{OAUTH2}grant = "jwt_bearer"\nassertion = 5', "assertion", "or a table of claims"),
        (f'{OAUTH2}grant = "jwt_bearer"\nassertion.iss = "x"', "private_key", "is required to sign"),
        (f'{OAUTH2}grant = "refresh"', "grant", "did you mean refresh_token?"),
        (f"{WORKER}store = {{}}", "store", "is no key here"),
        (f'{WORKER}client_cert = "${{env:NO}}"', "client_cert", "not set: ${env:NO}"),
        (COMMAND, "run", 'is required, such as ["/usr/bin/print-token"]'),
        (f'{COMMAND}run = "{CANARY}"', "run", "must be a list, not a string"),
        (f"{COMMAND}run = []", "run", "must hold a command"),
        (f'{COMMAND}run = ["true", 5]', "run[1]", "must be a string"),
        (f'{COMMAND}run = ["true", "${{env:HOME}}"]', "run[1]", "Use env"),
        (f'{COMMAND}run = ["true", "${{HOME}}"]', "run[1]", "nothing is looked up here"),
        (f'{COMMAND}run = ["true", "a\\u0000b"]', "run[1]", "zero byte"),
        (f'{COMMAND}run = ["a", "b"]\nshell = true', "run", "one string with shell = true"),
        (f'{COMMAND}run = ["echo ${{file:/k}}"]\nshell = true', "run[0]", "Use env"),
        (f'{COMMAND}run = ["true"]\nformat = "yaml"', "format", '"credential_process", not "yaml"'),
        (f'{COMMAND}run = ["true"]\nformat = "raw"\ntoken_path = "a"', "format", "leave out token_path"),
        (f'{COMMAND}run = ["true"]\ntimeout = "29s"', "timeout", 'at most 28; it is "29s"'),
        (f'{COMMAND}run = ["true"]\ncwd = "here"', "cwd", "absolute path"),
        (f'{COMMAND}run = ["true"]\nenv = {{ A = 5 }}', "env.A", "must be a string"),
        (f'{COMMAND}run = ["true"]\nenv = {{ "A=B" = "" }}', 'env."A=B"', "name of a variable"),
        (f'{COMMAND}run = ["true"]\nenv = {{ A = "${{file:/none}}" }}', "env.A", "cannot be read"),
        (FILE, "path", "is required, such as"),
        (f'{FILE}path = "token"', "path", "absolute path"),
        (f'{FILE}path = "${{env:NO}}/token"', "path", "not set: ${env:NO}"),
        (f'{FILE}path = "/a"\ndefault_lifetime = 0', "default_lifetime", "positive number of seconds"),
        (CHAIN, "sources", 'is required, such as { agent = { type = "file", path = "/run/app/token" } }'),
        (f"{CHAIN}sources = {{}}", "sources", "must hold a source"),
        (f'{CHAIN}sources.a = {{ type = "chain" }}', "sources.a.type", '"command" or "file", not "chain"'),
        (f'{CHAIN}sources."a b" = {{ type = "file", path = "/a" }}', 'sources."a b"', "cannot be a name"),
        (f'{CHAIN}sources.a = {{ type = "http", url = "x" }}', "sources.a.url", 'it is "x"'),
        (f"{SOURCE}bearer_jwt.claims = {{}}", "bearer_jwt.private_key", "is required"),
        (f'{SOURCE}bearer_jwt = {{ private_key = "{CANARY}", claims = {{}} }}', "bearer_jwt.private_key",
         "must be in PEM"),
        (f'{SOURCE}bearer_jwt = {{ private_key = "${{file:/none}}", claims = {{}} }}',
         "bearer_jwt.private_key", "cannot be read"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_source_of_any_type_is_named(tmp_path, text, key, words):
    found = problems(tmp_path, f"{text}\n")

    assert list(found) == [f"tokens.chat.source.{key}"]
    assert words in found[f"tokens.chat.source.{key}"]
    assert CANARY not in str(found)


def test_every_mistake_of_a_source_is_reported_at_once(tmp_path):
    found = problems(
        tmp_path,
        f"""
        [tokens.a.source]
        type = "oauth2"
        issuer = 5
        client_id = 5
        client_secret = "${{env:NO}}"
        timeout = "99s"
        proxy = "nonsense"
        [tokens.b.source]
        type = "chain"
        sources.file = {{ type = "file", path = "a" }}
        sources.url = {{ type = "http", url = "{CANARY}", timeout = 0 }}
        sources.command = {{ type = "command", run = [""] }}
        [tokens.c.source]
        type = "http"
        url = "https://backend.example"
        headers = {{ authorization = "x" }}
        [tokens.c.source.bearer_jwt]
        private_key = "x"
        claims = {{ iss = "${{env:NO}}" }}
        lifetime = "2d"
        headers.alg = "x"
        """,
    )

    assert list(found) == [
        *(f"tokens.a.source.{key}" for key in ("issuer", "client_id", "client_secret", "timeout", "proxy")),
        *(f"tokens.b.source.sources.{key}" for key in ("file.path", "url.url", "url.timeout", "command.run")),
        *(
            f"tokens.c.source.bearer_jwt.{key}"
            for key in ("private_key", "claims.iss", "lifetime", "headers.alg")
        ),
    ]
    assert CANARY not in str(found)


def test_a_jwt_and_an_authorization_of_ones_own_do_not_go_together(tmp_path, key):
    (tmp_path / "key").write_text(pem(key))
    text = (
        f'{SOURCE}headers = {{ authorization = "x" }}\n'
        f'bearer_jwt = {{ private_key = "${{file:{tmp_path}/key}}", claims = {{}} }}\n'
    )

    assert "cannot be combined" in problems(tmp_path, text)["tokens.chat.source.bearer_jwt"]


def test_a_jwt_is_signed_for_each_request_with_the_key_that_is_in_the_file_then(tmp_path, key):
    file, other = tmp_path / "key", ec.generate_private_key(ec.SECP256R1())
    file.write_text(pem(key))
    with FakeBackend() as backend:
        text = (
            f'{TABLE}type = "http"\nurl = "{backend.url}"\nheaders = {{ X-Api = "1" }}\n'
            f'[tokens.chat.source.bearer_jwt]\nprivate_key = "${{file:{file}}}"\n'
            'claims = { iss = "${env:APP}" }\nlifetime = "2m"\nkey_id = "k1"\n'
        )
        source = loaded(tmp_path, text, {"APP": "12345"}).parts[0].source
        first = outcome_of(source)
        file.write_text(pem(other))
        second = outcome_of(source)
        sent = [request.headers["authorization"].removeprefix("Bearer ") for request in backend.requests]

    assert [first, second] == list(backend.issued)
    for token, signer in zip(sent, (key, other), strict=True):
        claims = jwt.decode(token, signer.public_key(), algorithms=["ES256"])
        assert claims["iss"] == "12345"
    assert jwt.get_unverified_header(sent[0])["kid"] == "k1"
    assert backend.requests[0].headers["x-api"] == "1"


def test_secrets_of_oauth2_are_read_at_each_fetch_by_the_same_source(tmp_path):
    secret, extra = tmp_path / "secret", tmp_path / "extra"
    secret.write_text(f"{CLIENT_SECRET}\n")
    extra.write_text("one")
    with AuthorizationServer() as server:
        text = (
            f'{TABLE}type = "oauth2"\ntoken_url = "{server.endpoint()}"\nclient_id = "{CLIENT_ID}"\n'
            f'client_secret = "${{file:{secret}}}"\nscope = ["read", "write"]\n'
            f'extra = {{ a = "${{file:{extra}}}", b = "$$1" }}\n'
        )
        source = loaded(tmp_path, text).parts[0].source
        first = outcome_of(source)
        extra.write_text("two")
        second = outcome_of(source)
        secret.unlink()
        missing = outcome_of(source)
        secret.write_text(CANARY)
        refused = outcome_of(source)
        posted = server.posted()

    assert [token.access_token for token in server.tokens] == [first, second]
    assert [(asked["a"], asked["b"], asked["scope"]) for asked in posted[:2]] == [
        ("one", "$1", "read write"),
        ("two", "$1", "read write"),
    ]
    assert isinstance(missing, TransientFetchError)
    assert str(missing).startswith("tokens.chat.source.client_secret: it refers to a file")
    assert isinstance(refused, RefusedError)
    assert CANARY not in str(refused)


def test_a_table_of_claims_is_signed_with_the_key_and_the_claims_of_now(tmp_path, key):
    (tmp_path / "key").write_text(pem(key))
    (tmp_path / "subject").write_text("bob")
    client = Client(public_key=key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with AuthorizationServer(clients=[client]) as server:
        text = (
            f'{TABLE}type = "oauth2"\ntoken_url = "{server.endpoint()}"\ngrant = "jwt_bearer"\n'
            f'client_id = "{CLIENT_ID}"\nclient_secret = "{CLIENT_SECRET}"\n'
            f'private_key = "${{file:{tmp_path}/key}}"\n'
            f'assertion = {{ iss = "{CLIENT_ID}", sub = "${{file:{tmp_path}/subject}}" }}\n'
        )
        source = loaded(tmp_path, text).parts[0].source
        refused = outcome_of(source)
        (tmp_path / "subject").write_text("alice")
        token = outcome_of(source)

        assert isinstance(refused, FetchError)
        assert server.is_active(token)


def test_a_command_gets_what_stands_in_files_at_each_run_in_its_environment(tmp_path):
    file = tmp_path / "secret"
    file.write_text("first-token\n")
    text = (
        f'{COMMAND}run = ["sh", "-c", "echo $SECRET$SUFFIX; pwd >&2"]\nformat = "raw"\ncwd = "{tmp_path}"\n'
        f'env = {{ SECRET = "${{file:{file}}}", SUFFIX = "${{env:S}}" }}\ndefault_lifetime = "1h"\n'
    )
    source = loaded(tmp_path, text, {"S": "-x"}).parts[0].source
    first = outcome_of(source)
    file.write_text("second-token")

    assert (first, outcome_of(source)) == ("first-token-x", "second-token-x")


def test_the_shell_runs_one_string_and_its_own_variables_are_its_affair(tmp_path):
    text = f'{COMMAND}shell = true\nrun = ["T=a-token; echo ${{T}} | head -n 1"]\ndefault_lifetime = "1h"\n'

    assert outcome_of(loaded(tmp_path, text).parts[0].source) == "a-token"


def test_a_chain_asks_in_the_order_of_the_file_and_offers_its_links(tmp_path):
    (tmp_path / "token").write_text("opaque-of-the-file")
    text = (
        f'{CHAIN}[tokens.chat.source.sources.zeta]\ntype = "file"\npath = "{tmp_path}/missing"\n'
        f'[tokens.chat.source.sources.alpha]\ntype = "file"\npath = "{tmp_path}/token"\n'
    )
    (parts,) = loaded(tmp_path, text).parts
    issued = asyncio.run(parts.source.fetch(tries=1))

    assert list(parts.links) == ["zeta", "alpha"]
    assert (issued.source, issued.secret.reveal()) == ("alpha", "opaque-of-the-file")


def test_another_order_of_a_chain_is_another_configuration(tmp_path):
    one, other = (f'sources.{name} = {{ type = "file", path = "/{name}" }}\n' for name in ("a", "b"))
    first = loaded(tmp_path, CHAIN + one + other)
    second = loaded(tmp_path, CHAIN + other + one)

    assert first.config != second.config
    assert first.config == loaded(tmp_path, f"# Again.\n{CHAIN}{one}{other}").config


@pytest.mark.parametrize("value", ["2", "true", '"1"', "[1]", '{ a = "1" }'])
def test_another_value_in_any_source_is_another_configuration(tmp_path, value):
    def claims(written):
        return (
            f'{OAUTH2}grant = "jwt_bearer"\nprivate_key = "${{env:KEY}}"\n'
            f'assertion = {{ iss = "x", n = {written} }}\n'
        )

    environ = {"KEY": pem(ec.generate_private_key(ec.SECP256R1()))}
    one = loaded(tmp_path, claims("1"), environ)

    assert one.config != loaded(tmp_path, claims(value), environ).config
    assert one.config == loaded(tmp_path, claims("1"), environ).config


def test_no_source_shows_what_is_in_it(tmp_path, key):
    (tmp_path / "pem").write_text(pem(key))
    jwt_table = f'{{ private_key = "${{file:{tmp_path}/pem}}", claims = {{ iss = "{CANARY}" }} }}'
    tables = [
        f'type = "oauth2"\ntoken_url = "https://x.example/"\nclient_id = "w"\nclient_secret = "{CANARY}"',
        f'{REFRESH.removeprefix(TABLE)}extra = {{ password = "{CANARY}" }}',
        f'type = "command"\nrun = ["true", "{CANARY}"]\nenv = {{ A = "{CANARY}" }}',
        f'type = "http"\nurl = "https://x.example"\nbearer_jwt = {jwt_table}',
        f'type = "chain"\nsources.a = {{ type = "command", run = ["true", "{CANARY}"] }}',
    ]
    text = "".join(f"[tokens.t{place}.source]\n{table}\n" for place, table in enumerate(tables))
    checked = loaded(tmp_path, f"{store_at(tmp_path)}{text}")

    assert CANARY not in repr(checked)
    assert "EC PRIVATE" not in repr(checked)
    assert all(CANARY not in repr(parts.source) for parts in checked.parts)


def test_secrets_in_a_file_that_everybody_reads_are_warned_of_in_every_type(tmp_path):
    text = (
        f'[tokens.a.source]\ntype = "oauth2"\ntoken_url = "https://x.example/"\nclient_id = "w"\n'
        f'client_secret = "{CANARY}"\nextra = {{ password = "{CANARY}", tenant = "t" }}\n'
        f'[tokens.b.source]\ntype = "command"\nrun = ["true"]\nenv = {{ API_KEY = "{CANARY}", B = "b" }}\n'
    )
    path = written(tmp_path, text)
    path.chmod(0o644)
    found = {one.key: one.problem for one in load(path).warnings}

    assert list(found) == [
        "tokens.a.source.client_secret",
        "tokens.a.source.extra.password",
        "tokens.b.source.env.API_KEY",
    ]
    assert CANARY not in str(found)


def test_a_program_or_a_directory_that_is_not_there_is_a_warning(tmp_path):
    found = warnings(tmp_path, f'{COMMAND}run = ["/no/such/program"]\ncwd = "/no/such/directory"\n')

    assert list(found) == ["tokens.chat.source.run[0]", "tokens.chat.source.cwd"]


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("path", f'{FILE}path = "${{file:DIR/value}}"'),
        ("token_url", f"{WORKER.replace('https://login.example/token', '${file:DIR/value}')}"),
    ],
)
def test_a_file_that_says_whom_to_ask_is_read_at_a_load_and_makes_another_token_then(tmp_path, key, text):
    value = tmp_path / "value"
    values = {"path": ("/a", "/b"), "token_url": ("https://a.example/", "https://b.example/")}[key]
    found = []
    for written_value in (values[0], values[0], values[1]):
        value.write_text(written_value)
        found += loaded(tmp_path, text.replace("DIR", str(tmp_path))).parts
    first, same, other = found

    assert first.is_like(same)
    assert not first.is_like(other)
    assert first.config == other.config


def test_a_secret_that_was_rotated_is_no_change_of_the_token(tmp_path):
    value = tmp_path / "value"
    found = []
    for secret in ("one", "two"):
        value.write_text(secret)
        found += loaded(tmp_path, WORKER.replace('"s"', f'"${{file:{value}}}"')).parts

    assert found[0].is_like(found[1])
