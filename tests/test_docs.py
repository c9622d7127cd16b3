"""Every page of the documentation runs as it stands, and its tables are computed.

A page's programs fetch from https://backend.example/token and call https://api.example: both are
fakes, to which a proxy of ours leads. The pages are told of it only by the
environment, as a company would: `HTTPS_PROXY`, `SSL_CERT_FILE` and, for requests, `REQUESTS_CA_BUNDLE`.
"""

from __future__ import annotations

import ast
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import Field, fields
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from urllib.parse import urlsplit

import pytest
import trustme
from pages import blocks_of, run

from token_keeper import EventKind, RefreshPolicy, Verdict
from token_keeper import _schedule as schedule
from token_keeper.testing import FakeBackend

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("docs/*.md"), ROOT / "README.md"])
MINUTE, HOUR = 60.0, 3_600.0


class Tunnels(ThreadingTCPServer):
    """A proxy that connects each host name to one of our fakes."""

    daemon_threads = True

    def __init__(self, ports: dict[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Tunnel)
        self.ports = ports


class _Tunnel(StreamRequestHandler):
    def handle(self) -> None:
        host = self.rfile.readline().split()[1].partition(b":")[0].decode()
        while self.rfile.readline().strip():
            pass
        assert isinstance(self.server, Tunnels)
        with socket.create_connection(("127.0.0.1", self.server.ports[host])) as target:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=_pump, args=(target, self.connection), daemon=True)
            back.start()
            _pump(self.connection, target)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(65_536):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)
    with suppress(OSError):
        source.shutdown(socket.SHUT_RD)


def _wrapped(token: str) -> object:
    return {"token": token, "data": {"token": token}, "access_token": token, "token_type": "Bearer"}


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Serve backend.example and api.example; return the environment in which they are found."""
    authority = trustme.CA()
    trusted = tmp_path_factory.mktemp("trust") / "authority.pem"
    authority.cert_pem.write_to_path(str(trusted))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("backend.example", "api.example").configure_cert(tls)
    with FakeBackend(wrap=_wrapped, ssl_context=tls) as backend, FakeBackend(ssl_context=tls) as api:
        api.answer(body={"things": []}, times=None)
        ports = {"backend.example": urlsplit(backend.url).port, "api.example": urlsplit(api.url).port}
        with Tunnels({host: port or 0 for host, port in ports.items()}) as proxy:
            serving = threading.Thread(target=proxy.serve_forever, daemon=True)
            serving.start()
            yield {
                "HTTPS_PROXY": f"http://127.0.0.1:{proxy.server_address[1]}",
                "SSL_CERT_FILE": str(trusted),
                "REQUESTS_CA_BUNDLE": str(trusted),
            }
            proxy.shutdown()
            serving.join()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_runs_as_it_stands(page: Path, outside: dict[str, str], tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "tests" / "pages.py"), str(page)],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not _is_proxy(name)} | outside,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


def _is_proxy(name: str) -> bool:
    return name.lower().endswith("_proxy")


def test_a_page_that_shows_other_output_than_it_prints_is_found_out(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n", encoding="utf-8")
    with pytest.raises(AssertionError, match=r"page\.md:3 printed other than the page says:\n2"):
        run(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_block_that_does_not_run_says_why_and_is_python_at_least(page: Path) -> None:
    for block in blocks_of(page.read_text(encoding="utf-8")):
        if block.language == "python" and not block.runs:
            assert block.excuse, f"{page.name}:{block.line}"
            ast.parse(block.code)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_between_pages_lead_somewhere(page: Path) -> None:
    for file, _, anchor in links_of(page):
        target = page.parent / file if file else page
        assert target.exists(), f"{page.name}: {file}"
        assert not anchor or anchor in anchors_of(target), f"{page.name}: {file}#{anchor}"


def links_of(page: Path) -> list[tuple[str, str, str]]:
    ends = [part.partition(")")[0] for part in page.read_text(encoding="utf-8").split("](")[1:]]
    return [end.partition("#") for end in ends if "://" not in end]


def anchors_of(page: Path) -> list[str]:
    lines = page.read_text(encoding="utf-8").splitlines()
    titles = [line.lstrip("#").strip().lower() for line in lines if line.startswith("#")]
    return [re.sub(r"[^\w -]", "", title).replace(" ", "-") for title in titles]


def docs(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def span(low_s: float, high_s: float) -> str:
    return f"{text_of(low_s)} .. {text_of(high_s)}"


def text_of(seconds: float) -> str:
    hours, rest = divmod(round(seconds, 1), HOUR)
    minutes, rest = divmod(rest, MINUTE)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{number:g} {unit}" for number, unit in parts if number) or "0 s"


def attempts(lifetime_s: float, policy: RefreshPolicy) -> list[float]:
    """Return when fetches start if all fail at once: seconds from when the refresh is due to the expiry.

    Without jitter, which only makes the waits shorter: so these are the fewest.
    """
    span_s = lifetime_s - schedule.stale_after_s(lifetime_s, 0.0, policy)
    starts: list[float] = []
    at = 0.0
    while at < span_s:
        starts.append(at)
        at += max(schedule.backoff_s(len(starts), span_s, policy), policy.min_interval_s)
    return starts


def schedule_row(lifetime_s: float) -> str:
    policy = RefreshPolicy()
    lead = schedule.lead_s(lifetime_s, policy)
    early = schedule.stale_after_s(lifetime_s, 1.0, policy)
    late = schedule.stale_after_s(lifetime_s, 0.0, policy)
    cells = [
        text_of(lifetime_s),
        text_of(lead),
        text_of(schedule.jitter_s(lifetime_s, 1.0, policy)),
        span(early, late),
        span(schedule.splay_after_s(lifetime_s, early, 0.0), late),
        text_of(schedule.fetch_timeout_s(lead, policy)),
        str(len(attempts(lifetime_s, policy))),
    ]
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize("lifetime_s", [12.0, 5 * MINUTE, HOUR, 24 * HOUR])
def test_the_table_of_the_schedule_is_computed(lifetime_s: float) -> None:
    assert schedule_row(lifetime_s) in docs("schedule.md")


def test_the_attempts_in_an_outage_are_computed() -> None:
    starts = ", ".join(f"{at:g}" for at in attempts(HOUR, RefreshPolicy()))
    assert f"<!-- computed: attempts -->\n```\n{starts}\n```" in docs("schedule.md")


@pytest.mark.parametrize("field", fields(RefreshPolicy), ids=lambda field: field.name)
def test_the_schedule_names_each_setting_with_its_default(field: Field[float]) -> None:
    default = field.default
    shown = str(default) if isinstance(default, bool) else f"{default:.10g}"
    assert f"| `{field.name}` | {shown} |" in docs("schedule.md")


@pytest.mark.parametrize("kind", EventKind)
def test_each_event_has_its_row(kind: EventKind) -> None:
    assert f"| `{kind}` |" in docs("events.md")


@pytest.mark.parametrize("verdict", Verdict)
def test_each_verdict_has_its_row(verdict: Verdict) -> None:
    assert f"| `{verdict}` |" in docs("embedding.md")
