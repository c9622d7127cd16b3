"""Run every benchmark, each in a process of its own, and sum up for the README.

    python bench --json figures.json

Trust the ratios: both sides of each were measured in the same minute on the same machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from report import heading, machine, note, table, times

HERE = Path(__file__).parent
PROGRAMS = ("reads", "auth", "imports", "scheduler", "fetches", "oauth2", "commands", "serving")


def run(program: str, directory: Path) -> dict[str, Any]:
    """Run one program, which prints its tables, and return its figures."""
    target = directory / f"{program}.json"
    command = [sys.executable, str(HERE / f"{program}.py"), "--json", str(target)]
    subprocess.run(command, check=True)
    figures: dict[str, Any] = json.loads(target.read_text())
    return figures


def summary(found: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Return what the README tells: a name, our figure, and the other's."""
    one, awaited = found["reads"]["one_thread_ns"], found["reads"]["awaited_ns"]
    together, imported = found["reads"]["threads_per_s"], found["imports"]["import_ms"]
    turns, weight = found["scheduler"]["turns"], found["scheduler"]["bytes"]
    fetched, shell = found["fetches"], found["commands"]["ms"]
    ours, floor = one["TokenKeeper.token"], one["the floor: method, snapshot, clock"]
    authlib, google = one["Authlib ensure_active_token, read"], one["google-auth .valid, read"]
    got = awaited["await AsyncTokenKeeper.get()"]
    authlib_got = awaited["Authlib await ensure_active_token"]
    all_ours, all_authlib = together["TokenKeeper.token"], together["Authlib ensure_active_token, read"]
    own, bare = "the scheduler's own share", "the floor: a bare heap"
    rows = [
        ["read a valid token", f"{ours:.0f} ns", f"{times(ours, floor)} the floor"],
        ["", "", f"{times(authlib, ours)} faster than Authlib, {times(google, ours)} than google-auth"],
        ["awaited", f"{got:.0f} ns", f"{times(authlib_got, got)} faster than Authlib"],
        ["8 threads together", f"{all_ours / 1e6:.1f} M/s", f"{times(all_ours, all_authlib)} Authlib"],
    ]
    for where, name in (("flow", "KeeperAuth, a request"), ("async_flow", "the same, async")):
        extra = {who: figures["over_bare_us"] for who, figures in found["auth"][where].items()}
        ours_us = extra["KeeperAuth, httpx"]
        beside = f"httpx-auth: {extra['httpx-auth']:+.1f} us, Authlib: {extra['Authlib']:+.0f} us"
        rows.append([name, f"{ours_us:+.1f} us", f"over bare httpx; {beside}"])
    rows += [
        [name, f"{imported[name]:.0f} ms", f"{times(imported[name], imported['import httpx'])} import httpx"]
        for name in ("import token_keeper", "from token_keeper import TokenKeeper")
    ]
    for in_flight in ("1 in flight", "8 in flight"):
        source = fetched[f"{in_flight}: HttpSource.fetch"]
        rows.append(
            [f"fetches, {in_flight}", f"{source['per_s']:.0f}/s", f"{times(source['to_httpx'])} bare httpx"]
        )
    for size in ("1000", "100000"):
        extra = turns[f"{own}, {size}"]["cpu_us"] - turns[f"{bare}, {size}"]["cpu_us"]
        rows.append(
            [f"a wake-up, {int(size):,} tokens", f"{extra:.1f} us", "more than a bare heap of timers"]
        )
    rows.append(["memory beside each token", f"{weight[own]:.0f} B", f"bare heap: {weight[bare]:.0f} B"])
    if "token-keeper inspect < token" in shell:
        inspect, empty = shell["token-keeper inspect < token"], shell["python -c pass"]
        rows.append(["token-keeper inspect", f"{inspect:.0f} ms", f"{times(inspect, empty)} an empty python"])
    return rows + served(found["serving"])


def served(found: dict[str, Any]) -> list[list[str]]:
    """Return what the README tells of the sidecar; nothing if it was not measured."""
    if not found:
        return []
    reads, started, weight = found["reads"], found["start_ms"], found["memory_mib"]
    rows = []
    for family, name in (("unix", "the Unix socket"), ("tcp", "TCP")):
        ours, raw = reads[f"token-keeper serve, {family}"], reads[f"uvicorn, raw ASGI, {family}"]
        beside = f"{times(ours['per_cpu_s'], raw['per_cpu_s'])} raw ASGI on uvicorn"
        if (go := reads.get(f"Go net/http, {family}")) is not None:
            beside += f", {times(ours['per_cpu_s'], go['per_cpu_s'])} Go net/http"
        rows.append([f"GET a token, {name}", f"{ours['per_cpu_s']:.0f}/s", beside])
    ours_ms, raw_ms = started["token-keeper serve"], started["uvicorn, raw ASGI"]
    rows.append(["sidecar, cold start", f"{ours_ms:.0f} ms", f"{times(ours_ms, raw_ms)} bare uvicorn"])
    hundred = weight["token-keeper serve, 100 tokens"]
    rows.append(["sidecar, 100 tokens", f"{hundred:.0f} MiB", "resident"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Run every benchmark.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw numbers here")
    chosen = parser.parse_args()
    facts = machine()
    print(
        f"{facts['implementation']} {facts['python']}, {facts['system']}, {facts['cores']} cores, "
        f"load {facts['load']} before we began",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as directory:
        found = {program: run(program, Path(directory)) for program in PROGRAMS}
    heading("For the README")
    table(["", "ours", ""], summary(found), to_left=(0, 2))
    note("Figures are of this machine in this minute; the ratios travel better.")
    if chosen.json is not None:
        chosen.json.write_text(json.dumps({"machine": facts, **found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
