"""What an operator copies from `examples/deploy`: units, image, manifests, alerts and the dashboard."""

from __future__ import annotations

import base64
import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from sidecar import a_config, a_directory, running
from test_docs import anchors_of

from token_keeper.sidecar._served import OUTCOMES
from token_keeper.sidecar.config import load
from token_keeper.testing import FakeBackend

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "examples" / "deploy"
SYSTEMD, DOCKER = DEPLOY / "systemd", DEPLOY / "docker"
RULES = DEPLOY / "prometheus" / "token-keeper.rules.yaml"
RULE_TESTS = DEPLOY / "prometheus" / "token-keeper.tests.yaml"
DASHBOARD = DEPLOY / "grafana" / "token-keeper.json"
OPERATIONS = ROOT / "docs" / "operations.md"

METRICS = {
    f"token_keeper_{name}"
    for name in (
        "expires_at_seconds",
        "last_success_seconds",
        "generation",
        "fetches_total",
        "fetch_seconds_sum",
        "fetch_seconds_count",
        "denials_total",
        "waiters",
        "attempts_left",
        "usable_seconds",
        "clock_jumps_total",
        "listener_failures_total",
        "hook_failures_total",
        "sink_generation",
        "ready",
    )
}
"""Those that the sidecar promises to have."""


def needs(tool: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed")


def said_by(*command: str, cwd: Path | None = None) -> str:
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=60)
    said = ended.stdout + ended.stderr
    assert ended.returncode == 0, said
    return said


# Alerts and the dashboard.


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    return json.loads(DASHBOARD.read_text())


def expressions() -> list[str]:
    panels = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    variables = [one["definition"] for one in dashboard()["templating"]["list"] if one["type"] == "query"]
    return [rule["expr"] for rule in alerts()] + panels + variables


def metrics_in(text: str) -> set[str]:
    return set(re.findall(r"\btoken_keeper_\w+", text))


@needs("promtool")
def test_promtool_finds_the_rules_right() -> None:
    said_by("promtool", "check", "rules", str(RULES))


@needs("promtool")
def test_each_alert_fires_when_it_should_and_only_then() -> None:
    said_by("promtool", "test", "rules", RULE_TESTS.name, cwd=RULE_TESTS.parent)


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_what_is_wrong_and_what_to_read(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert anchor == rule["alert"].lower()
    assert anchor in anchors_of(ROOT / page)


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_is_tested_both_ways(rule: dict[str, Any]) -> None:
    tests = yaml.safe_load(RULE_TESTS.read_text())["tests"]
    checks = [check for test in tests for check in test["alert_rule_test"]]
    fires = {bool(check.get("exp_alerts")) for check in checks if check["alertname"] == rule["alert"]}
    assert fires == {True, False}


def test_alerts_and_dashboard_use_no_metric_that_is_not_promised() -> None:
    used = set().union(*map(metrics_in, expressions()))
    assert used - METRICS == set()


def test_every_promised_metric_is_seen_by_somebody() -> None:
    used = set().union(*map(metrics_in, expressions()))
    assert METRICS - used == set()


def test_the_sidecar_has_every_promised_metric_with_the_labels_that_the_alerts_use() -> None:
    with a_directory() as directory, FakeBackend() as backend:
        sink = f'[[tokens.chat.sinks]]\ntype = "file"\npath = "{directory}/chat"\n'
        with running(a_config(backend.url) + sink, directory=directory) as sidecar:
            sidecar.until_token()
            scraped = sidecar.ask("GET", "/metrics").body.decode()
    samples = {line.split(" ")[0] for line in scraped.splitlines() if not line.startswith("#")}
    assert METRICS - {sample.partition("{")[0] for sample in samples} == set()
    assert {f'token_keeper_fetches_total{{name="chat",outcome="{one}"}}' for one in OUTCOMES} <= samples
    assert 'token_keeper_denials_total{name="chat",verdict="gave_up"}' in samples
    assert f'token_keeper_sink_generation{{name="chat",path="{directory}/chat"}}' in samples


def test_the_dashboard_can_be_imported_and_has_a_place_for_each_panel() -> None:
    board = dashboard()
    assert board["uid"] == "token-keeper"
    assert board["id"] is None
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = [cell for panel in panels for cell in cells_of(panel["gridPos"])]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < 24


def cells_of(place: dict[str, int]) -> Iterator[tuple[int, int]]:
    for x in range(place["x"], place["x"] + place["w"]):
        for y in range(place["y"], place["y"] + place["h"]):
            yield x, y


def test_each_panel_asks_the_chosen_data_source_for_the_chosen_tokens() -> None:
    variables = {one["name"] for one in dashboard()["templating"]["list"]}
    assert variables == {"datasource", "job", "name"}
    for panel in dashboard()["panels"]:
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["description"], panel["title"]
        for target in panel["targets"]:
            assert 'job="$job"' in target["expr"], panel["title"]
            of_one = metrics_in(target["expr"]) - {"token_keeper_ready", "token_keeper_clock_jumps_total"}
            assert not of_one or 'name=~"$name"' in target["expr"], panel["title"]


@needs("promtool")
def test_prometheus_understands_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    # A query is checked as a rule: promtool has no other way without a server.
    rules = [
        {"record": f"panel:{number}", "expr": target["expr"].replace("$__rate_interval", "1m")}
        for number, panel in enumerate(dashboard()["panels"])
        for target in panel["targets"]
    ]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    said_by("promtool", "check", "rules", "--lint=none", str(file))


@needs("promtool")
def test_prometheus_takes_the_scrape_configuration(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("x")
    text = (RULES.parent / "scrape.yaml").read_text()
    (tmp_path / "prometheus.yml").write_text(text.replace("/etc/prometheus/token-keeper.key", "key"))
    shutil.copy(RULES, tmp_path)
    said_by("promtool", "check", "config", "prometheus.yml", cwd=tmp_path)


# systemd.


def unit(name: str) -> configparser.ConfigParser:
    read = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes=("#",))
    read.optionxform = str  # type: ignore[assignment, method-assign]
    read.read(SYSTEMD / name)
    return read


def values_of(name: str, key: str) -> list[str]:
    """Return all values of a key that may stand more than once."""
    lines = (SYSTEMD / name).read_text().splitlines()
    return [line.partition("=")[2] for line in lines if line.startswith(f"{key}=")]


@needs("systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    # Only the programs are not where they will be.
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for file in SYSTEMD.glob("*.*"):
        if file.suffix in {".service", ".socket", ".path"}:
            text = re.sub(r"/opt/[\w-]+/bin/[\w-]+", str(program), file.read_text())
            (tmp_path / file.name).write_text(text)
        elif file.suffix == ".d":
            shutil.copytree(file, tmp_path / file.name)
    units = sorted(str(file) for file in tmp_path.iterdir() if file.is_file() and file != program)
    said = said_by("systemd-analyze", "verify", "--recursive-errors=no", "--man=no", *units)
    assert [line for line in said.splitlines() if "/tmp" in line or "token-keeper" in line] == []


@needs("systemd-analyze")
def test_the_service_is_hardly_exposed() -> None:
    service = str(SYSTEMD / "token-keeper.service")
    said = said_by("systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", service)
    assert "Overall exposure level for token-keeper.service: 1.5" in said


def test_the_service_leaves_no_core_takes_its_key_as_a_credential_and_is_told_to_reload() -> None:
    service = unit("token-keeper.service")["Service"]
    assert service["Type"] == "notify"
    assert service["LimitCORE"] == "0"
    assert service["LoadCredential"].startswith("backend-key:")
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert "${credential:backend-key}" in (SYSTEMD / "keeper.toml").read_text()


def test_the_service_is_not_restarted_when_that_would_not_help() -> None:
    codes = set(map(int, unit("token-keeper.service")["Service"]["RestartPreventExitStatus"].split()))
    assert codes == {os.EX_USAGE, os.EX_NOINPUT, os.EX_CANTCREAT, os.EX_NOPERM, os.EX_CONFIG}


def test_the_socket_outlives_a_restart_of_the_service() -> None:
    service, sock = unit("token-keeper.service")["Service"], unit("token-keeper.socket")["Socket"]
    assert sock["ListenStream"] == f"/run/{service['RuntimeDirectory']}/api.sock"
    assert service["RuntimeDirectoryPreserve"] == "yes"


def test_peers_are_told_apart_so_other_users_are_not_all_nobody() -> None:
    assert unit("token-keeper.service")["Service"]["PrivateUsers"] == "no"


def test_socket_and_directory_are_opened_together_or_not_at_all() -> None:
    service, sock = unit("token-keeper.service")["Service"], unit("token-keeper.socket")["Socket"]
    assert (service["RuntimeDirectoryMode"], sock["DirectoryMode"], sock["SocketMode"]) == (
        "0700",
        "0700",
        "0600",
    )
    service = unit("token-keeper.service.d/clients.conf")["Service"]
    sock = unit("token-keeper.socket.d/clients.conf")["Socket"]
    assert (service["RuntimeDirectoryMode"], sock["DirectoryMode"], sock["SocketMode"]) == (
        "0711",
        "0711",
        "0666",
    )


# The image.


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", "", (DOCKER / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def all_of(word: str) -> list[str]:
    return [rest for one, rest in instructions() if one == word]


def test_the_image_is_not_root_by_number() -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", all_of("USER")[-1])


def test_the_image_needs_no_shell_in_any_step() -> None:
    for word in ("RUN", "CMD", "ENTRYPOINT"):
        assert all(isinstance(json.loads(rest), list) for rest in all_of(word)), word
    assert json.loads(all_of("HEALTHCHECK")[0].partition("CMD ")[2])[:3] == [
        "token-keeper",
        "status",
        "--live",
    ]


def test_the_image_has_a_named_version_of_a_slim_python() -> None:
    assert re.fullmatch(r"PYTHON=python:3\.\d+-slim", all_of("ARG")[0])
    assert [rest.split()[0] for rest in all_of("FROM")] == ["${PYTHON}", "${PYTHON}"]


def test_the_image_is_built_from_what_the_package_needs_and_nothing_else() -> None:
    copied = {path for rest in all_of("COPY") if not rest.startswith("--from") for path in rest.split()[:-1]}
    ignore = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    kept = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    assert "*" in ignore
    assert copied == kept
    assert all((ROOT / path).exists() for path in copied)
    assert not all_of("ADD")


def test_no_layer_holds_a_secret() -> None:
    said = " ".join(rest for word, rest in instructions() if word in {"ENV", "ARG", "LABEL"})
    assert not re.search(r"secret|password|token=|api.?key", said, re.IGNORECASE)


def test_both_containers_of_the_composition_are_confined_and_only_one_can_write() -> None:
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    for service in services.values():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    assert "tokens:/run/token-keeper:ro" in services["app"]["volumes"]
    assert (
        services["app"]["user"].partition(":")[0]
        in config_of((DOCKER / "keeper.toml").read_text())["server"]["allow_uids"]
    )


def test_the_volume_of_the_composition_is_in_memory_and_the_sidecars_own() -> None:
    composition = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    options = composition["volumes"]["tokens"]["driver_opts"]
    assert options["type"] == "tmpfs"
    user, group = all_of("USER")[-1].split(":")
    assert {f"uid={user}", f"gid={group}", "mode=0711"} <= set(options["o"].split(","))


# Kubernetes.


def manifests() -> dict[str, dict[str, Any]]:
    documents = yaml.safe_load_all((DEPLOY / "kubernetes" / "token-keeper.yaml").read_text())
    return {document["kind"]: document for document in documents}


def pod() -> dict[str, Any]:
    return manifests()["Deployment"]["spec"]["template"]["spec"]


def sidecar_container() -> dict[str, Any]:
    return pod()["initContainers"][0]


def config_of(text: str) -> dict[str, Any]:
    config = tomllib.loads(text)
    for key in ("allow_uids", "allow_gids"):
        config["server"][key] = [str(number) for number in config["server"].get(key, ())]
    return config


def kubernetes_config() -> str:
    return manifests()["ConfigMap"]["data"]["keeper.toml"]


def test_the_pod_has_a_native_sidecar() -> None:
    assert sidecar_container()["restartPolicy"] == "Always"
    deployment = manifests()["Deployment"]
    assert (
        deployment["spec"]["selector"]["matchLabels"] == deployment["spec"]["template"]["metadata"]["labels"]
    )


def test_the_probes_ask_for_ready_and_only_the_liveness_probe_for_alive() -> None:
    asked = {
        kind: sidecar_container()[kind]["exec"]["command"] for kind in sidecar_container() if "Probe" in kind
    }
    assert asked == {
        "startupProbe": ["token-keeper", "status", "--quiet"],
        "readinessProbe": ["token-keeper", "status", "--quiet"],
        "livenessProbe": ["token-keeper", "status", "--live", "--quiet"],
    }


def test_an_outage_of_an_hour_does_not_restart_a_pod_that_starts() -> None:
    probe = sidecar_container()["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 3_600


def test_every_container_is_confined_and_bounded() -> None:
    assert pod()["securityContext"]["runAsNonRoot"]
    assert pod()["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod()["automountServiceAccountToken"] is False
    for container in [*pod()["initContainers"], *pod()["containers"]]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["allowPrivilegeEscalation"] is False
        assert context["runAsUser"] > 0
        assert container["resources"]["limits"].keys() == {"memory"}


def test_the_app_is_another_user_that_the_group_lets_in_and_can_replace_nothing() -> None:
    app = pod()["containers"][0]
    assert app["securityContext"]["runAsUser"] != sidecar_container()["securityContext"]["runAsUser"]
    config = config_of(kubernetes_config())
    group = pod()["securityContext"]["fsGroup"]
    assert config["server"]["allow_gids"] == [str(group)]
    assert config["tokens"]["chat"]["sinks"][0]["group"] == group
    mounts = {mount["name"]: mount for mount in app["volumeMounts"]}
    assert mounts.keys() == {"tokens"}
    assert mounts["tokens"]["readOnly"]


def test_all_volumes_exist_and_the_tokens_are_in_memory() -> None:
    volumes = {volume["name"]: volume for volume in pod()["volumes"]}
    used = {
        mount["name"]
        for container in [*pod()["initContainers"], *pod()["containers"]]
        for mount in container["volumeMounts"]
    }
    assert used == volumes.keys()
    assert volumes["tokens"]["emptyDir"]["medium"] == "Memory"
    assert volumes["configuration"]["configMap"]["name"] == manifests()["ConfigMap"]["metadata"]["name"]
    assert volumes["backend-key"]["secret"]["secretName"] == manifests()["Secret"]["metadata"]["name"]


def test_the_socket_is_where_app_and_probes_look_and_below_the_volume() -> None:
    path = config_of(kubernetes_config())["server"]["socket"]
    for container in (sidecar_container(), pod()["containers"][0]):
        assert {"name": "TOKEN_KEEPER_SOCKET", "value": path} in container["env"]
    # Everybody can write to the volume's own directory: the sidecar listens one deeper.
    assert Path(path).parent.parent == Path("/run/tokens")


# The configurations.


CONFIGURATIONS = {
    "systemd": (SYSTEMD / "keeper.toml").read_text(),
    "docker": (DOCKER / "keeper.toml").read_text(),
    "kubernetes": kubernetes_config(),
    "sidecar": (ROOT / "examples" / "sidecar" / "keeper.toml").read_text(),
}


@pytest.mark.parametrize("text", CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())
def test_a_configuration_works_as_it_stands_once_its_files_are_there(text: str, tmp_path: Path) -> None:
    for directory in re.findall(r'path = "(/.*)/', text):
        (tmp_path / directory[1:]).mkdir(parents=True, exist_ok=True)
    (tmp_path / "backend-key").write_text("s3cret\n")
    text = re.sub(r'(path|pid_file|socket) = "/', rf'\1 = "{tmp_path}/', text)
    text = re.sub(r"\$\{file:[^}]*\}", f"${{file:{tmp_path}/backend-key}}", text)
    text = text.replace('group = "app"', f"group = {os.getegid()}").replace(
        "/usr/local/bin/page-somebody", sys.executable
    )
    file = tmp_path / "keeper.toml"
    file.write_text(text)
    checked = load(file, environ={"CREDENTIALS_DIRECTORY": str(tmp_path), "BACKEND_KEY": "s3cret"})
    assert checked.parts
    assert [str(warning) for warning in checked.warnings] == []


def test_every_commented_setting_of_the_service_configuration_works_too(tmp_path: Path) -> None:
    text = re.sub(r"^# (?=\w+ = |\[)", "", (SYSTEMD / "keeper.toml").read_text(), flags=re.MULTILINE)
    assert "listen" in tomllib.loads(text)["server"]
    (tmp_path / "backend-key").write_text("s3cret\n")
    (tmp_path / "store-key").write_text(base64.b64encode(bytes(32)).decode())
    file = tmp_path / "keeper.toml"
    file.write_text(text.replace("/var/lib/token-keeper", str(tmp_path)))
    directories = {"CREDENTIALS_DIRECTORY": str(tmp_path), "STATE_DIRECTORY": str(tmp_path)}
    config = load(file, environ=directories).config
    assert config.server.allow_gids == (870,)
    assert config.store.key_credential == "store-key"
