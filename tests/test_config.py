"""The configuration: what is refused, at which key, in which words."""

from __future__ import annotations

import os
import time

import pytest
from configuring import CANARY, SOURCE, loaded, problems, warnings, written

from token_keeper import RefreshPolicy
from token_keeper.sidecar.config import BadConfig, load
from token_keeper.sidecar.config._model import FileSinkConfig, HookConfig

SINK = '[[tokens.chat.sinks]]\ntype = "file"\n'
HOOK = "[[tokens.chat.hooks]]\n"
POLICY = "[tokens.chat.policy]\n"


@pytest.fixture(autouse=True)
def private(tmp_path):
    tmp_path.chmod(0o700)


def test_a_whole_file_becomes_parts(tmp_path):
    checked = loaded(
        tmp_path,
        f"""
        [server]
        socket = "/run/token-keeper/api.sock"
        listen = "127.0.0.1:8750"
        allow_uids = [1000, "root"]
        allow_gids = ["root"]
        hosts = ["Token.Internal"]

        [tokens.chat]
        profile = "twilio"
        expect = {{ grants = ["chat"], identity = "alice" }}

        [tokens.chat.source]
        type = "http"
        url = "https://backend.example/token"
        headers = {{ Authorization = "Bearer ${{env:KEY}}" }}
        json = {{ identity = "alice" }}
        timeout = "5s"

        [tokens.chat.policy]
        lead = "25%"
        backoff_max = "2m"

        [[tokens.chat.sinks]]
        type = "file"
        path = "{tmp_path}/chat.json"
        format = "json"
        mode = "0640"
        owner = "root"

        [[tokens.chat.hooks]]
        on = ["tokenUpdated", "tokenExpired"]
        signal = "SIGHUP"
        pid_file = "/run/app.pid"
        """,
        {"KEY": CANARY},
    )
    (parts,) = checked.parts
    server = checked.config.server

    assert (server.allow_uids, server.allow_gids, server.hosts) == ((1000, 0), (0,), ("token.internal",))
    assert (parts.name, parts.profile.name, parts.expect.grants) == ("chat", "twilio", ("chat",))
    assert parts.policy == RefreshPolicy(lead_ratio=0.25, backoff_max_s=120.0)
    assert parts.source.origin == "https://backend.example:443"
    assert parts.config is checked.config.tokens["chat"]
    assert parts.config.source.timeout == 5.0
    assert parts.config.sinks == (
        FileSinkConfig(path=f"{tmp_path}/chat.json", format="json", mode=0o640, owner=0),
    )
    assert parts.config.hooks == (
        HookConfig(on=("tokenUpdated", "tokenExpired"), signal="SIGHUP", pid_file="/run/app.pid"),
    )
    assert CANARY not in repr(checked)


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("sever = 1\n[server]", "sever", "did you mean server?"),
        ("server = 5", "server", "must be a table, not a number"),
        ("tokens = []", "tokens", "must be a table, not a list"),
        ("tokens = 1979-05-27", "tokens", "not a date or time"),
        ("tokens.chat = {}", "tokens.chat.source", "is required"),
        (SOURCE.replace("chat", "'a b'"), 'tokens."a b"', "cannot be a name"),
        (SOURCE.replace("chat", "''"), 'tokens.""', "cannot be a name"),
        ("[server]\nport = 5", "server.port", "is no key here: known are socket, listen"),
        ('[server]\nlisten = "0.0.0.0:1"', "server.listen", 'not "0.0.0.0:1"'),
        ('[server]\nlisten = "127.0.0.1"', "server.listen", "with a port"),
        ('[server]\nlisten = "127.0.0.1:65536"', "server.listen", "with a port"),
        ('[server]\nlisten = "127.0.0.256:1"', "server.listen", "address of this machine"),
        ('[server]\nlisten = "127.0.0.1.evil.example:1"', "server.listen", "address of this machine"),
        ('[server]\nsocket = "api.sock"', "server.socket", "absolute path"),
        (f'[server]\nsocket = "/{"x" * 107}"', "server.socket", "107 bytes"),
        ("[server]\nallow_uids = [1, true]", "server.allow_uids[1]", "user's name, or its number, not true"),
        ('[server]\nallow_uids = ["nobody-has-this"]', "server.allow_uids[0]", "no user of this machine"),
        ("[server]\nallow_gids = [-1]", "server.allow_gids[0]", "group's name, or its number, not -1"),
        ("[server]\nallow_gids = 5", "server.allow_gids", "must be a list"),
        ('[server]\nhosts = ["a:80"]', "server.hosts[0]", "without a port"),
        ("[server]\nmax_connections = 15", "server.max_connections", "from 16 to 65536, not 15"),
        ("[server]\nmax_connections = true", "server.max_connections", "whole number, not true"),
        ('[server]\nlog_level = "warn"', "server.log_level", 'not "warn": did you mean warning?'),
        ('[server]\nsocket = "${env:HOME}/s"', "server.socket", "work in the strings of a token's source"),
        ('[server]\naccess_key_file="/a/k"\nmetrics_key_file="/a/./k"', "server.metrics_key_file",
         "same file as server.access_key_file"),
    ],
)  # fmt: skip
def test_a_mistake_around_tokens_is_named(tmp_path, text, key, words):
    found = problems(tmp_path, text)

    assert list(found) == [key]
    assert words in found[key]


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ('profile = "twillio"', "profile", "did you mean twilio?"),
        ("profile = 5", "profile", '"opaque", not 5'),
        ("polcy = {}", "polcy", "did you mean policy?"),
        ('expect = { identity = "x" }', "expect.identity", 'profile = "twilio" does'),
        ('profile = "twilio"\nexpect = { grants = ["chatt"] }', "expect.grants", "known are chat"),
        ('profile = "twilio"\nexpect = { ident = "x" }', "expect.ident", "known are account_sid"),
        ('profile = "twilio"\nexpect = { identity = "" }', "expect.identity", "not empty"),
        ('profile = "twilio"\nexpect = { identity = "${env:X}" }', "expect.identity", "token's source"),
        ("sinks = {}", "sinks", "must be a list, not a table"),
        ("sinks = [5]", "sinks[0]", "must be a table, not a number"),
        ('policy = "3m"', "policy", "must be a table, not a string"),
    ],
)
def test_a_mistake_in_a_token_is_named(tmp_path, text, key, words):
    found = problems(tmp_path, f"[tokens.chat]\n{text}\n{SOURCE}")

    assert list(found) == [f"tokens.chat.{key}"]
    assert words in found[f"tokens.chat.{key}"]


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("type = 5", "type", '"command", "file" or "chain", not 5'),
        ('type = "htpp"\nurl = "x"', "type", 'not "htpp": did you mean http?'),
        ('url = "https://x.example"', "type", 'is required, such as "http"'),
        ('type = "http"', "url", 'is required, such as "https://backend.example/token"'),
        ('type = "http"\nurl = 5', "url", "must be a string, not 5"),
        ('type = "http"\nurl = "ftp://x.example/a"', "url", 'it is "ftp://x.example/a"'),
        ('type = "http"\nurl = "http://x.example/a"', "url", "allow_http = true"),
        (f'type = "http"\nurl = "https://me:{CANARY}@x.example"', "url", "in headers"),
        (f'type = "http"\nurl = "ftp://x.example/?a={CANARY}#{CANARY}"', "url", '"ftp://x.example/"'),
        (f'type = "http"\nurl = "Bearer {CANARY}"', "url", "visible ASCII"),
    ],
)
def test_a_mistake_in_a_source_is_named(tmp_path, text, key, words):
    found = problems(tmp_path, f"[tokens.chat.source]\n{text}\n")

    assert list(found) == [f"tokens.chat.source.{key}"]
    assert words in found[f"tokens.chat.source.{key}"]
    assert CANARY not in str(found)


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ('methd = "GET"', "methd", "did you mean method?"),
        ('method = "PUT"', "method", 'must be GET or POST; it is "PUT"'),
        (f'headers = "Authorization: {CANARY}"', "headers", "must be a table, not a string"),
        (f'headers = {{ Authorization = ["{CANARY}"] }}', "headers.Authorization", "must be a string"),
        (f'headers = {{ Authorization = "{CANARY}\\n" }}', "headers.Authorization", "visible ASCII"),
        (f'headers = {{ "a b" = "{CANARY}" }}', "headers", "a name that no header can have"),
        (f'header = {{ Authorization = "{CANARY}" }}', "header", "did you mean headers?"),
        (f'params = {{ key = {{ a = "{CANARY}" }} }}', "params.key", "must be a string, a number"),
        (f'data = {{ key = [["{CANARY}"]] }}', "data.key", "must be a string, a number"),
        ("params = { n = nan }", "params.n", "must be a string, a number"),
        (f'data = {{ a = "{CANARY}" }}\njson = {{ a = 1 }}', "data", "cannot be combined with json"),
        ("json = { at = 2020-01-01 }", "json", "write it as a string"),
        ("json = { n = inf }", "json", "JSON does not have"),
        ("json = 0xFFFFFFFFFFFFFFFFFF", "json", "64 bits"),
        (f"json = {'[' * 40}{']' * 40}", "json", "levels deep"),
        ('timeout = "31s"', "timeout", 'at most 30; it is "31s"'),
        ('timeout = "soon"', "timeout", 'such as "90s", "3m"'),
        ("timeout = -1", "timeout", "not -1"),
        ("timeout = nan", "timeout", "must be a duration"),
        ("timeout = 0", "timeout", "positive number of seconds"),
        ('default_lifetime = "0s"', "default_lifetime", "positive number of seconds"),
        (f'token_path = "[[{CANARY}"', "token_path", "not a JMESPath expression"),
        ('token_path = ""', "token_path", "must be a JMESPath expression"),
        ('ca_file = "ca.pem"', "ca_file", "absolute path"),
        ('ca_file = "/does/not/exist.pem"', "ca_file", "cannot be read (No such file"),
        ('ca_file = "/dev/null"', "ca_file", "holds no certificates in PEM"),
        ('client_cert = "/dev/null"', "client_cert", "no certificate in PEM that fits its key"),
        ('client_key = "/dev/null"', "client_key", "needs client_cert"),
        (f'proxy = "me:{CANARY}@proxy"', "proxy", "must be a URL"),
        ('allow_http = "yes"', "allow_http", 'must be true or false, not "yes"'),
    ],
)
def test_a_mistake_in_a_word_of_a_source_is_named(tmp_path, text, key, words):
    found = problems(tmp_path, f"{SOURCE}{text}\n")

    assert list(found) == [f"tokens.chat.source.{key}"]
    assert words in found[f"tokens.chat.source.{key}"]
    assert CANARY not in str(found)


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("", "path", 'is required, such as "/run/app/token"'),
        ('path = "token"', "path", "absolute path"),
        ('path = "/does/not/exist/token"', "path", "has no directory"),
        ('path = "/dev/null/token"', "path", "below what is no directory"),
        ('path = "/etc/"', "path", "must end in the name of a file"),
        ('path = "/etc/.."', "path", "must end in the name of a file"),
        ('path = "DIR/a"\nmode = 600', "mode", 'octal in quotes, such as "0600", not 600'),
        ('path = "DIR/a"\nmode = "4755"', "mode", 'not "4755"'),
        ('path = "DIR/a"\nmode = "0888"', "mode", 'not "0888"'),
        ('path = "DIR/a"\nformat = "yaml"', "format", '"raw", "json", "env" or "template", not "yaml"'),
        ('path = "DIR/a"\nformat = "env"', "variable", 'is required with format = "env"'),
        ('path = "DIR/a"\nformat = "env"\nvariable = "1A"', "variable", "name of a variable"),
        ('path = "DIR/a"\nvariable = "A"', "variable", 'works only with format = "env"'),
        ('path = "DIR/a"\nformat = "template"', "template", 'is required with format = "template"'),
        ('path = "DIR/a"\nformat = "template"\ntemplate = "{{tokn}}"', "template", "known are {{token}}"),
        ('path = "DIR/a"\nformat = "template"\ntemplate = "{{ token }}"', "template", "without blanks"),
        ('path = "DIR/a"\ntemplate = "{{token}}"', "template", 'works only with format = "template"'),
        ('path = "DIR/a"\nadopt = true', "adopt", 'works only with format = "json"'),
        ('path = "DIR/a"\nowner = "nobody-has-this"', "owner", "no user of this machine"),
        ('path = "DIR/a"\ngroup = 4294967295', "group", "not 4294967295"),
        ('path = "DIR/${env:X}"', "path", "does not look up"),
        ('path = "DIR/keeper.toml"', "path", "is this very configuration"),
        ('path = "DIR"', "path", "is a directory"),
    ],
)
def test_a_mistake_in_a_sink_is_named(tmp_path, text, key, words):
    found = problems(tmp_path, f"{SOURCE}{SINK}{text.replace('DIR', str(tmp_path))}\n")

    assert list(found) == [f"tokens.chat.sinks[0].{key}"]
    assert words in found[f"tokens.chat.sinks[0].{key}"]


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("", "run", "is required, or signal and pid_file"),
        ("run = []", "run", "must hold a command"),
        ('run = [""]', "run", "must hold a command"),
        ('run = "reload app"', "run", "must be a list, not a string"),
        ('run = ["true", 5]', "run[1]", "must be a string"),
        ('run = ["true", "${HOME}"]', "run[1]", "nothing is looked up here"),
        ('run = ["true", "${env:HOME}"]', "run[1]", "does not look up"),
        ('run = ["true", "a\\u0000b"]', "run[1]", "zero byte"),
        ('signal = "SIGHUP"', "pid_file", "is required with signal"),
        ('pid_file = "/run/a.pid"', "signal", "is required with pid_file"),
        ('signal = "HUP"\npid_file = "/run/a.pid"', "signal", "did you mean SIGHUP?"),
        ('signal = "SIGHUP"\npid_file = "a.pid"', "pid_file", "absolute path"),
        ('signal = "SIGHUP"\npid_file = "/a.pid"\nstdin = "token"', "stdin", "works only with run"),
        ('run = ["true"]\nsignal = "SIGHUP"', "signal", "cannot be combined with run"),
        ('run = ["true"]\nstdin = "tokens"', "stdin", "did you mean token?"),
        ('run = ["true"]\ntimeout = 0', "timeout", "must be more than 0"),
        ('run = ["true"]\non = []', "on", "must name an event"),
        ('run = ["true"]\non = ["tokenupdated"]', "on[0]", "did you mean tokenUpdated?"),
        ('run = ["true"]\non = "tokenUpdated"', "on", "must be a list"),
    ],
)
def test_a_mistake_in_a_hook_is_named(tmp_path, text, key, words):
    found = problems(tmp_path, f"{SOURCE}{HOOK}{text}\n")

    assert list(found) == [f"tokens.chat.hooks[0].{key}"]
    assert words in found[f"tokens.chat.hooks[0].{key}"]


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("lead = 0.2", "lead", '"20%" or "3m", not 0.2'),
        ('lead = "60%"', "lead", "from 0 to 0.5, which is 50%"),
        ('lead = "20%"\nlead_max = "1h"', "lead_max", "cannot be combined with lead"),
        ('lead_ratio = "80%"', "lead_ratio", "from 0 to 0.5, which is 50%"),
        ('lead_ratio = "much"', "lead_ratio", 'such as "20%" or 0.2, not "much"'),
        ('lead_min = "1h"\nlead_max = "1m"', "lead_min", "must not be more than lead_max, which is 1m"),
        ('lead_max = "5s"', "lead_max", "must not be less than lead_min, which is 30s"),
        ("lead_min_s = 30", "lead_min_s", "did you mean lead_min?"),
        ('backoff_max = "500ms"', "backoff_max", "must not be less than backoff_min"),
        ('backoff_min = "10m"', "backoff_min", "must not be more than backoff_max, which is 5m"),
        ("min_interval = 0", "min_interval", "0.1 or more, in seconds"),
        ('fetch_timeout = "1s"', "fetch_timeout", "2 or more, in seconds"),
        ("denial_bucket = 2.5", "denial_bucket", "must be a whole number, not 2.5"),
        ("denial_bucket = 0", "denial_bucket", "from 1 to 1000"),
        ("splay = 1", "splay", "must be true or false, not 1"),
        ('settle = "1 week"', "settle", 'not "1 week"'),
        ('settle = "99999999999d"', "settle", "no duration that a clock can measure"),
        ("settle = 1e400", "settle", "must be a duration"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_policy_is_named(tmp_path, text, key, words):
    found = problems(tmp_path, f"{SOURCE}{POLICY}{text}\n")

    assert list(found) == [f"tokens.chat.policy.{key}"]
    assert words in found[f"tokens.chat.policy.{key}"]


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ('lead = "3m"', RefreshPolicy(lead_min_s=180, lead_max_s=180)),
        ('lead = "20%"', RefreshPolicy(lead_ratio=0.2)),
        ("lead_ratio = 0.3", RefreshPolicy(lead_ratio=0.3)),
        ('settle = "500ms"', RefreshPolicy(settle_s=0.5)),
        ('max_refresh_interval = "2d"', RefreshPolicy(max_refresh_interval_s=172_800)),
        ("backoff_min = 2", RefreshPolicy(backoff_min_s=2)),
        ('backoff_min = "1.5s"', RefreshPolicy(backoff_min_s=1.5)),
        ("splay = false\ndenial_bucket = 7", RefreshPolicy(splay=False, denial_bucket=7)),
    ],
)
def test_a_policy_is_written_as_durations_and_shares(tmp_path, text, policy):
    assert loaded(tmp_path, f"{SOURCE}{POLICY}{text}\n").parts[0].policy == policy


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("a = ", "line 1, column 5", "is not TOML: Invalid value"),
        ("[server]\nlisten = 127.0.0.1", "line 2, column 15", "is not TOML"),
        ("a = [1,", "line 1, column 8", "is not TOML"),
        ("a = 1\na = 2", "line 2, column 6", "overwrite"),
        (f"a = {'[' * 9000}", "the file", "nested too deeply"),
        (f"a = {'9' * 5000}", "the file", "a number"),
        (f'a = "{CANARY}', "line 1, column 29", "is not TOML"),
        (f'a = {{ b = 1, b = "{CANARY}" }}', "line 1", "is not TOML"),
    ],
)
def test_a_file_that_is_not_toml_is_refused_with_the_place(tmp_path, text, key, words):
    ((found, problem),) = problems(tmp_path, text).items()

    assert found.startswith(key)
    assert words in problem
    assert CANARY not in problem


def test_a_file_of_another_encoding_or_too_large_is_refused(tmp_path):
    path = tmp_path / "keeper.toml"
    path.write_bytes(b"[server]\n# caf\xe9\n")
    with pytest.raises(BadConfig, match="line 2: is not in UTF-8"):
        load(path)
    path.write_bytes(b"#" * (4 * 1_048_576 + 1))
    with pytest.raises(BadConfig, match="larger than 4 MiB"):
        load(path)


def test_a_file_that_cannot_be_read_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "missing.toml")
    with pytest.raises(IsADirectoryError):
        load(tmp_path)


def test_every_problem_is_reported_in_the_order_of_the_file(tmp_path):
    found = problems(
        tmp_path,
        """
        [tokens.b.source]
        type = "http"
        timeout = 99
        url = "nonsense"
        [tokens.b.policy]
        backoff_min = 0
        lead = "90%"
        [[tokens.b.hooks]]
        run = ["true"]
        on = []
        stdin = 5
        [server]
        listen = "here"
        [tokens.a]
        profile = "none"
        [[tokens.a.sinks]]
        type = "file"
        mode = 5
        [tokens."c.d".source]
        type = "http"
        url = "https://x.example"
        headers = { A = "${env:NO}", B = "${env:NONE}", C = 5 }
        """,
    )

    assert list(found) == [
        "tokens.b.source.timeout",
        "tokens.b.source.url",
        "tokens.b.policy.backoff_min",
        "tokens.b.policy.lead",
        "tokens.b.hooks[0].on",
        "tokens.b.hooks[0].stdin",
        "tokens.a.profile",
        "tokens.a.sinks[0].mode",
        "tokens.a.sinks[0].path",
        "tokens.a.source",
        'tokens."c.d".source.headers.A',
        'tokens."c.d".source.headers.B',
        'tokens."c.d".source.headers.C',
        "server.listen",
    ]


def test_two_sinks_with_one_path_are_an_error_at_the_second_however_it_is_spelled(tmp_path):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    spellings = ["real/t", "real/../real/t", "link/t", "real//t"]
    text = "".join(
        f'[tokens.t{number}]\nsource = {{ type = "http", url = "https://x.example" }}\n'
        f'[[tokens.t{number}.sinks]]\ntype = "file"\npath = "{tmp_path}/{spelling}"\n'
        for number, spelling in enumerate(spellings)
    )
    found = problems(tmp_path, text)

    assert list(found) == [f"tokens.t{number}.sinks[0].path" for number in (1, 2, 3)]
    assert set(found.values()) == {"is the same file as tokens.t0.sinks[0].path: each needs its own"}


def test_a_sink_on_the_socket_or_a_key_is_refused(tmp_path):
    found = problems(
        tmp_path,
        f'[server]\nsocket = "{tmp_path}/s"\n{SOURCE}{SINK}path = "{tmp_path}/./s"\n',
    )

    assert found == {"tokens.chat.sinks[0].path": "is the same file as server.socket: each needs its own"}


def test_what_should_be_looked_at_is_a_warning(tmp_path):
    directory = tmp_path / "shared"
    directory.mkdir()
    directory.chmod(0o777)
    found = warnings(
        tmp_path,
        f'{SOURCE}{SINK}path = "{directory}/t"\nmode = "0644"\n{HOOK}run = ["/no/such/program"]\n',
    )

    assert list(found) == [
        "tokens.chat.sinks[0].path",
        "tokens.chat.sinks[0].mode",
        "tokens.chat.hooks[0].run[0]",
    ]
    assert "every user can write" in found["tokens.chat.sinks[0].path"]
    assert warnings(tmp_path, "") == {"tokens": next(iter(warnings(tmp_path, "").values()))}


def test_a_secret_in_a_file_that_everybody_reads_is_a_warning(tmp_path):
    path = written(tmp_path, f'{SOURCE}headers = {{ Authorization = "Bearer {CANARY}" }}\n')
    path.chmod(0o646)
    found = {one.key: one.problem for one in load(path).warnings}

    assert list(found) == ["the file", "tokens.chat.source.headers.Authorization"]
    assert "chmod o-r" in found["tokens.chat.source.headers.Authorization"]
    assert CANARY not in str(found)


def test_the_same_file_in_another_form_is_an_equal_configuration(tmp_path):
    one = loaded(tmp_path, f'{SOURCE}timeout = "9s"\njson = {{ a = 1, b = [true] }}\n')
    other = loaded(
        tmp_path,
        "# Another hand.\ntokens.chat = { source = { json = { b = [ true ], a = 1 }, timeout = 9.0, "
        "url = 'https://backend.example/token', type = 'http' } }",
    )

    assert one.config == other.config


@pytest.mark.parametrize("value", ["2", "1.0", "true", '"1"', "[1]"])
def test_another_value_is_another_configuration(tmp_path, value):
    one = loaded(tmp_path, f"{SOURCE}json = {{ a = 1 }}\n")
    other = loaded(tmp_path, f"{SOURCE}json = {{ a = {value} }}\n")

    assert one.config != other.config


def test_odd_keys_are_quoted_shortened_and_without_secrets(tmp_path):
    text = f'"a\\u001b[31m" = 1\n"{"k" * 300}" = 1\n"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln" = 1\n'
    found = list(problems(tmp_path, text))

    assert found[0] == '"a\\u001b[31m"'
    assert len(found[1]) < 80
    assert found[2] == '"<redacted>"'


def test_a_value_is_shown_shortened_and_escaped_and_not_if_it_looks_like_a_token(tmp_path):
    jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"
    found = problems(
        tmp_path,
        f'[server]\nlog_level = "\\u001b[2J{"x y " * 50}"\nlog_format = "{jwt}"\nlisten = "{CANARY}"\n',
    )

    assert "\x1b" not in str(found)
    assert max(map(len, found.values())) < 200
    assert jwt.rpartition(".")[2] not in str(found)
    assert CANARY not in str(found)


def test_ten_thousand_tokens_load_in_seconds(tmp_path):
    text = "".join(
        f'[tokens.t{number}]\nsource = {{ type = "http", url = "https://x.example/{number}" }}\n'
        f'[[tokens.t{number}.sinks]]\ntype = "file"\npath = "{tmp_path}/t{number}"\n'
        for number in range(10_000)
    )
    path = written(tmp_path, text)
    began = time.process_time()
    count = len(load(path).parts)

    assert count == 10_000
    # Alone on one core 3 s; two thirds of that are the TOML parser and the sources.
    assert time.process_time() - began < 20


def test_ten_thousand_mistakes_are_reported_in_seconds_too(tmp_path):
    path = written(tmp_path, "".join(f"[tokens.t{number}.sourc]\n" for number in range(10_000)))
    began = time.process_time()
    with pytest.raises(BadConfig) as caught:
        load(path)

    assert len(caught.value.problems) == 20_000
    assert time.process_time() - began < 20


def test_users_of_this_machine_may_be_named(tmp_path):
    checked = loaded(tmp_path, f"[server]\nallow_uids = [{os.getuid()}, 'root']\n")

    assert checked.config.server.allow_uids == (os.getuid(), 0)
