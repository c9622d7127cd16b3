"""Many clients, slow and deaf ones, many reloads, few descriptors: nobody else notices. The real process."""

from __future__ import annotations

import resource
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from sidecar import a_config, a_directory, a_request, a_token_table, eventually, running

from token_keeper.testing import FakeBackend

QUICK = 'policy = { min_interval = "100ms", splay = false }'
TOKEN = "/v1/tokens/chat"


def rss_kib(sidecar) -> int:
    return int(Path(f"/proc/{sidecar.process.pid}/status").read_text().partition("VmRSS:")[2].split()[0])


def spent_s(sidecar) -> float:
    fields = Path(f"/proc/{sidecar.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


class Reading:
    """Reads a file at full speed in a thread, and keeps what is wrong with it."""

    def __init__(self, path: Path) -> None:
        self.reads = 0
        self.seen: list[str] = []
        self.missing = 0
        self._path = path
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ends.set()
        self._thread.join()

    def _read(self) -> None:
        last = ""
        while not self._ends.is_set():
            try:
                found = self._path.read_text()
            except FileNotFoundError:
                self.missing += 1
                continue
            self.reads += 1
            if found != last:
                self.seen.append(found)
                last = found


def test_a_reader_at_full_speed_over_50_renewals_finds_a_whole_token_each_time():
    # Five tokens with ten renewals each: a token is renewed ten times a second at most.
    names = [f"t{number}" for number in range(5)]
    with FakeBackend() as backend, a_directory() as directory, ExitStack() as stack:
        tables = "".join(
            a_token_table(name, backend.url, QUICK)
            + f'[[tokens.{name}.sinks]]\ntype = "file"\npath = "{directory}/{name}.token"\n'
            for name in names
        )
        sidecar = stack.enter_context(running(tables, directory=directory))
        for name in names:
            eventually((directory / f"{name}.token").exists, what="the file is written")
        readers = [stack.enter_context(Reading(directory / f"{name}.token")) for name in names]
        with ThreadPoolExecutor(5) as pool:

            def renews(name: str) -> None:
                for _ in range(10):
                    assert sidecar.ask("POST", f"/v1/tokens/{name}/refresh?wait=5").status == 200

            list(pool.map(renews, names))
        for name, reader in zip(names, readers, strict=True):
            token = sidecar.until_token(name).json["token"]
            eventually(
                lambda reader=reader, token=token: reader.seen[-1] == token, what="the last token is there"
            )
        issued = set(backend.issued)
        assert sum(len(reader.seen) for reader in readers) > 50
        assert sum(reader.missing for reader in readers) == 0
        assert all(found in issued for reader in readers for found in reader.seen)
        assert all(reader.reads > 100 for reader in readers)


def test_100_reloads_are_seen_by_no_reader():
    with FakeBackend() as backend, running(a_config(backend.url)) as sidecar:
        sidecar.until_token()
        good = a_config(backend.url)
        ends = threading.Event()
        wrong: list[object] = []
        asked = [0] * 3

        def reads(number: int) -> None:
            talk = sidecar.connect()
            while not ends.is_set():
                if number == 0:
                    talk.close()
                    talk = sidecar.connect()
                answer = talk.ask("GET", TOKEN if number < 2 else f"{TOKEN}?by=reader")
                asked[number] += 1
                if answer.status != 200:
                    wrong.append(answer)
            talk.close()

        threads = [threading.Thread(target=reads, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        try:
            for number in range(100):
                kind = number % 5
                config = {
                    0: good + a_token_table(f"more-{number}", backend.url),
                    1: a_config(backend.url, extra=f'policy = {{ lead = "{20 + number % 10}%" }}'),
                    2: good + "[tokens.broken]\nprofile = 7\n",
                    3: "[tokens.chat",
                    4: good,
                }[kind]
                sidecar.config_path.write_text(config)
                answer = sidecar.ask("POST", "/v1/reload", json_body={})
                assert answer.status == (422 if kind in {2, 3} else 200), answer
                assert sidecar.ask("GET", TOKEN).status == 200
        finally:
            ends.set()
            for thread in threads:
                thread.join()
        assert not wrong, wrong[0]
        assert min(asked) > 100
        assert {row["name"] for row in sidecar.ask("GET", "/v1/tokens").json["tokens"]} == {"chat"}


def test_64_slow_and_deaf_clients_keep_nobody_waiting():
    with FakeBackend() as backend, running(a_config(backend.url)) as sidecar, ExitStack() as stack:
        sidecar.until_token()
        slow = [stack.enter_context(sidecar.connect()) for _ in range(64)]
        for number, talk in enumerate(slow):
            if number % 2:
                talk.send(b"GET /v1/tokens/chat HTTP/1.1\r\nHost: loc")
            else:
                talk.send(
                    a_request("GET", "/v1/events") if number % 4 else a_request("GET", "/openapi.json") * 20
                )
        took = []
        with sidecar.connect() as normal:
            for number in range(400):
                if number % 4 == 0:
                    slow[1 + 2 * (number % 32)].send(b"a")
                begun = time.monotonic()
                assert normal.ask("GET", TOKEN).status == 200
                took.append(time.monotonic() - begun)
        assert sorted(took)[395] < 0.1


def test_a_sidecar_that_is_busy_keeps_500_callers_in_its_queue():
    with FakeBackend() as backend, running(a_config(backend.url)) as sidecar, ExitStack() as stack:
        sidecar.until_token()
        sidecar.signal(signal.SIGSTOP)
        talks = [stack.enter_context(sidecar.connect()) for _ in range(500)]
        talks[0].send(a_request("GET", TOKEN))
        sidecar.signal(signal.SIGCONT)
        assert talks[0].answer().status == 200
        for talk in talks:
            talk.close()
        eventually(lambda: recovered(sidecar), what="it answers whoever comes next")


def test_few_descriptors_cost_some_connections_for_a_while_and_nothing_else():
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80))

    with FakeBackend() as backend, a_directory() as directory:
        path = directory / "token"
        sink = f'[[tokens.chat.sinks]]\ntype = "file"\npath = "{path}"\n'
        config = a_config(backend.url, extra=QUICK) + sink
        with running(config, directory=directory, preexec_fn=few) as sidecar, ExitStack() as stack:
            eventually(lambda: recovered(sidecar), what="it is ready")
            first = stack.enter_context(sidecar.connect())
            assert first.ask("GET", "/v1/tokens").status == 200
            # As many connections as there may be: half of the files are left for everything else.
            idle = [stack.enter_context(sidecar.connect()) for _ in range(45)]
            for _ in range(3):
                assert first.ask("POST", f"{TOKEN}/refresh?wait=5").status == 200
                token = first.ask("GET", TOKEN).json["token"]
                eventually(lambda token=token: path.read_text() == token, what="it is written")
            # More than there are files at all: fetches and sinks have theirs all the same, and nothing spins.
            idle += [stack.enter_context(sidecar.connect()) for _ in range(100)]
            begun, before, lines = time.monotonic(), spent_s(sidecar), len(sidecar.log)
            assert first.ask("POST", f"{TOKEN}/refresh?wait=5").status == 200
            assert first.ask("GET", TOKEN).status == 200
            eventually(lambda: time.monotonic() - begun > 1.0)
            assert spent_s(sidecar) - before < 0.3
            assert len(sidecar.log) - lines < 10
            assert not sidecar.logged("sinkFailed")
            for talk in (first, *idle):
                talk.close()
            eventually(lambda: recovered(sidecar), what="connections, fetches and files recover")
            assert sidecar.ask("POST", f"{TOKEN}/refresh?wait=5").status == 200
            eventually(lambda: path.read_text() == sidecar.until_token().json["token"], what="it is written")


def recovered(sidecar) -> bool:
    try:
        return sidecar.ask("GET", "/readyz").status == 200
    except (OSError, EOFError):
        return False


def test_memory_stays_what_it_is_over_20_000_requests_and_2_000_events():
    names = [f"t{number}" for number in range(40)]
    with FakeBackend() as backend, ExitStack() as stack:
        sidecar = stack.enter_context(running(a_config(backend.url, *names, extra=QUICK)))
        for name in names:
            sidecar.until_token(name)
        deaf, reader, *talks = [stack.enter_context(sidecar.connect()) for _ in range(2 + len(names))]
        deaf.send(a_request("GET", "/v1/events"))

        def asks(count: int) -> None:
            for number in range(count):
                by = "?by=someone-else" if number % 10 == 9 else ""
                assert reader.ask("GET", f"/v1/tokens/t{number % 40}{by}").status == 200

        def events(rounds: int) -> None:
            for _ in range(rounds):
                for name, talk in zip(names, talks, strict=True):
                    talk.send(a_request("POST", f"/v1/tokens/{name}/refresh?wait=5"))
                assert {talk.answer().status for talk in talks} == {200}

        asks(2_000)
        events(10)
        before = rss_kib(sidecar)
        asks(18_000)
        events(40)
        assert rss_kib(sidecar) - before < 6_000
