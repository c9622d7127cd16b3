"""Many tokens in one process: what they cost, and that none expires.

    python bench/fleet.py                  10 000 tokens of 60 s for 3 min, over real HTTP
    python bench/fleet.py --simulate       100 000 tokens of 1 h for 3 h, on a virtual clock

Not part of `make bench`: the first takes over three minutes, the second about as long.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from report import heading, machine, note, table

COMMAND = str(Path(sys.executable).with_name("token-keeper"))
BACKEND = """
import sys
from token_keeper.testing import FakeBackend
with FakeBackend(lifetime=float(sys.argv[1])) as backend:
    print(backend.url, flush=True)
    sys.stdin.read()
"""
HEAD = '[server]\nsocket = "{directory}/api.sock"\nlog_level = "warning"\nlog_format = "json"\n'
TOKEN = '[tokens.t{number}.source]\ntype = "http"\nurl = "{url}"\n'
TICK = os.sysconf("SC_CLK_TCK")


@contextmanager
def backend(lifetime_s: float) -> Iterator[str]:
    """Run the fake backend in a process of its own and give its URL."""
    command = [sys.executable, "-c", BACKEND, str(lifetime_s)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


def rows(socket_path: Path) -> list[dict[str, object]]:
    """Return how the tokens are, or nothing if nobody answers."""
    command = [COMMAND, "status", "--json", "--socket", str(socket_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return json.loads(done.stdout)["tokens"] if done.stdout else []


def usage(pid: int) -> tuple[float, float]:
    """Return the CPU seconds that process *pid* has used, and its memory in MiB."""
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = Path(f"/proc/{pid}/status").read_text()
    return (int(times[11]) + int(times[12])) / TICK, int(status.partition("VmRSS:")[2].split()[0]) / 1024


def serve(tokens: int, lifetime_s: float, seconds: float) -> int:
    """Keep *tokens* for *seconds* once all are there. Returns how many expired."""
    with tempfile.TemporaryDirectory() as made, backend(lifetime_s) as url:
        directory = Path(made)
        directory.chmod(0o700)
        text = HEAD.format(directory=directory)
        text += "".join(TOKEN.format(number=number, url=url) for number in range(tokens))
        (directory / "keeper.toml").write_text(text)
        log = directory / "log"
        command = [COMMAND, "serve", "--config", f"{directory}/keeper.toml"]
        with log.open("w") as stderr, subprocess.Popen(command, stderr=stderr) as process:
            began = time.monotonic()
            while True:
                usable = sum(row["status"] in {"fresh", "stale"} for row in rows(directory / "api.sock"))
                if usable == tokens:
                    break
                if process.poll() is not None:
                    raise RuntimeError(log.read_text()[-2000:])
                time.sleep(1)
            ready_s = time.monotonic() - began
            cpu, _ = usage(process.pid)
            began = time.monotonic()
            seen: Counter[str] = Counter()
            while time.monotonic() < began + seconds:
                time.sleep(5)
                seen.update(str(row["status"]) for row in rows(directory / "api.sock"))
            took = time.monotonic() - began
            cpu_after, memory = usage(process.pid)
            fetched = sum(int(str(row["generation"])) for row in rows(directory / "api.sock"))
            process.terminate()
        expired = log.read_text().count('"tokenExpired"')
    heading(f"{tokens:,} tokens of {lifetime_s:g} s in one process, for {took:.0f} s")
    table(
        ["", ""],
        [
            ["all tokens there after", f"{ready_s:.1f} s"],
            ["tokens fetched in all", f"{fetched:,}"],
            ["CPU", f"{100 * (cpu_after - cpu) / took:.0f} % of a core"],
            ["memory", f"{memory:.0f} MiB"],
            ["seen in all looks", ", ".join(f"{count:,} {status}" for status, count in seen.items())],
            ["tokens that expired", str(expired)],
        ],
    )
    return expired + seen["expired"] + seen["absent"]


def simulate(tokens: int, lifetime_s: float, hours: float) -> int:
    """Keep *tokens* on a virtual clock. Returns how many expired."""
    from simulated import Quiet, opened  # noqa: PLC0415

    from token_keeper._scheduler import Scheduler  # noqa: PLC0415 - only here
    from token_keeper.logs import keeper_logger  # noqa: PLC0415
    from token_keeper.testing import VirtualClock, VirtualLoop  # noqa: PLC0415

    clock = VirtualClock()

    async def main() -> Counter[str]:
        scheduler = Scheduler(clock, keeper_logger(Quiet(), name="fleet"))
        seen: Counter[str] = Counter()
        served = [opened(f"t{number}", lifetime_s, clock, seen) for number in range(tokens)]
        for one in served:
            one.begin(scheduler)
        task = asyncio.create_task(scheduler.run())
        await asyncio.sleep(hours * 3600)
        seen["usable at the end"] = sum(one.snapshot.usable_for > 0 for one in served)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return seen

    began = time.perf_counter()
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        seen = runner.run(main())
    took = time.perf_counter() - began
    _, memory = usage(os.getpid())
    heading(f"{tokens:,} tokens of {lifetime_s:g} s, {hours:g} simulated hours")
    table(["", ""], [[name, f"{count:,}"] for name, count in sorted(seen.items())])
    note(f"{took:.0f} s of CPU, {1e6 * took / max(seen['tokenUpdated'], 1):.0f} us a fetch; {memory:.0f} MiB")
    return seen["tokenExpired"] + tokens - seen["usable at the end"]


def main() -> int:
    parser = argparse.ArgumentParser(description="Keep many tokens, and see that none expires.")
    parser.add_argument("--simulate", action="store_true", help="on a virtual clock, without HTTP")
    parser.add_argument("--tokens", type=int, metavar="N", help="default: 10 000, or 100 000 simulated")
    parser.add_argument("--lifetime", type=float, metavar="SECONDS", help="default: 60, or 3600 simulated")
    parser.add_argument("--for", type=float, dest="seconds", default=180.0, metavar="SECONDS")
    chosen = parser.parse_args()
    print(machine())
    if chosen.simulate:
        expired = simulate(chosen.tokens or 100_000, chosen.lifetime or 3_600.0, 3.0)
    else:
        expired = serve(chosen.tokens or 10_000, chosen.lifetime or 60.0, chosen.seconds)
    return 1 if expired else 0


if __name__ == "__main__":
    sys.exit(main())
