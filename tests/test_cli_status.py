"""`status`, once and live, against the real sidecar."""

from __future__ import annotations

import json
import os
import re
import signal
import time

import pytest
from commanding import InTerminal, command, json_answer, speaking
from sidecar import a_config, a_directory, eventually, running, started

from token_keeper.cli._spans import ASCII, UNICODE, bar, cells, cut, fit, folded, painted
from token_keeper.cli.status._rows import table, token_of
from token_keeper.testing import FakeBackend

NOW = 1_700_000_000.0
REFUSAL = {"status": 400, "body": {"error": "invalid_grant"}, "times": None}
ROW = {
    "name": "chat",
    "status": "fresh",
    "phase": "waiting",
    "generation": 4,
    "failures": 0,
    "issued_at": NOW - 1_800,
    "expires_at": NOW + 1_800,
    "refresh_at": NOW + 1_200,
    "next_attempt_at": None,
    "usable_for": 1_800.0,
    "last_error": None,
    "source": None,
    "sinks": [],
}


@pytest.fixture(scope="module")
def backend():
    with FakeBackend() as backend:
        yield backend


@pytest.fixture(scope="module")
def at(backend):
    with running(a_config(backend.url, "chat", "sync")) as sidecar:
        sidecar.until_token("chat")
        sidecar.until_token("sync")
        yield sidecar.socket_path


@pytest.fixture(scope="module")
def half_ready():
    """A sidecar that has the token ``chat`` and cannot get ``sync``."""
    with FakeBackend() as good, FakeBackend() as bad, a_directory() as directory:
        bad.answer(**REFUSAL)
        config = a_config(good.url) + a_config(bad.url, "sync").replace("[server]", "")
        with running(config, directory=directory) as sidecar:
            sidecar.until_token()
            eventually(lambda: sidecar.ask("GET", "/v1/tokens").json["tokens"][1]["failures"])
            yield sidecar.socket_path


def text_of(*rows, width=80, glyphs=UNICODE):
    blocks = table([token_of(row) for row in rows], now=NOW, width=width, glyphs=glyphs)
    return [painted(line, has_colours=False) for block in blocks for line in block]


def test_the_table_shows_what_matters():
    assert text_of(ROW) == [
        "token  status   time left                            next refresh    gen  fails",
        "chat   fresh    ███████████░░░░░░░░░░░      30 min   in 20 min         4      0",
    ]


def test_trouble_stands_below_its_token():
    sinks = [
        {"path": "/run/a", "generation": 3, "error": "No space left on device"},
        {"path": "/run/b", "generation": 0, "error": None},
    ]
    lines = text_of({**ROW, "last_error": "the backend answered 503", "sinks": sinks}, width=None)

    assert lines[2:] == [
        "  the backend answered 503",
        "  /run/a holds generation 3: No space left on device",
        "  /run/b was not written yet: the current one is being written",
    ]


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"status": "expired", "expires_at": NOW - 200}, "3 min ago"),
        ({"status": "denied"}, "denied"),
        ({"status": "absent", "generation": 0, "expires_at": None}, "none yet"),
        ({"expires_at": None, "usable_for": None}, "no expiry"),
        ({"phase": "fetching"}, "now"),
        ({"next_attempt_at": NOW - 1}, "due"),
        ({"next_attempt_at": None, "refresh_at": None}, " - "),
    ],
)
def test_each_state_has_its_words(changes, shown):
    assert shown in text_of({**ROW, **changes})[1]


@pytest.mark.parametrize("width", [20, 36, 40, 60, 66, 79, 120, 200])
def test_lines_fit_the_terminal(width):
    rows = [ROW, {**ROW, "name": "n" * 64, "last_error": "some words " * 20, "failures": 12_345}]
    rows.append({**ROW, "name": "wide", "last_error": "証明書の有効期限が切れています " * 9})

    assert max(cells(line) for line in text_of(*rows, width=width)) <= max(width, 24)


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"name": None, "status": 7, "generation": "x", "expires_at": "soon", "sinks": 5},
        {**ROW, "expires_at": 1e300, "issued_at": True, "sinks": [None, {"error": []}]},
        {
            **ROW,
            "name": "\x1b[2J",
            "last_error": "\u202e\n",
            "sinks": [{"error": "\x07", "path": "\x1b]0;x"}],
        },
    ],
)
def test_a_strange_document_is_shown_harmlessly(row):
    text = "".join(text_of(row, width=60) + text_of(row, width=None))

    assert all(character.isprintable() for character in text)


def test_the_link_of_a_chain_that_a_token_came_from_is_said():
    assert [line.rstrip() for line in text_of({**ROW, "source": "backup"})[2:]] == ["  from backup"]


@pytest.mark.parametrize(("left", "share"), [(1_800, 1.0), (600, 1.0), (300, 0.5), (0, 0.0)])
def test_the_bar_of_an_opaque_token_is_full_until_its_refresh_is_due(left, share):
    ends = NOW + left
    row = {**ROW, "issued_at": None, "expires_at": ends, "stale_at": ends - 600}
    drawn = re.search(f"[{UNICODE.bar}]+", text_of(row)[1])[0]

    assert drawn == bar(share, len(drawn), UNICODE)


@pytest.mark.parametrize("share", [-1.0, 0.0, 0.3, 0.999, 1.0, 7.0])
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
def test_a_bar_is_as_wide_as_it_should_be(share, glyphs):
    assert len(bar(share, 13, glyphs)) == 13


def test_lines_are_cut_and_folded_by_columns_not_by_characters():
    line = folded("証明書の有効", None, 0)[0]

    assert painted(cut(line, 5), has_colours=False) == "証明"
    assert fit("証明書", 5) == "証.. "
    assert max(cells(span.text) for each in folded("証明書の有効" * 9, 30, 2) for span in each) <= 30


def test_status_is_a_table_for_people_and_says_ready(at):
    done = command("status", at=at)

    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert lines[0].startswith("ready: 2 tokens; sidecar ")
    assert [line.split()[:2] for line in lines[3:]] == [["chat", "fresh"], ["sync", "fresh"]]
    assert "\x1b" not in done.stdout


def test_status_of_chosen_tokens_shows_these(at):
    lines = command("status", "sync", at=at).stdout.splitlines()

    assert [line.split()[0] for line in lines[3:]] == ["sync"]


def test_status_as_json_is_what_the_api_answers(at):
    document = json.loads(command("status", "--json", at=at).stdout)

    assert (document["ready"], [row["name"] for row in document["tokens"]]) == (True, ["chat", "sync"])


def test_a_token_that_is_missing_makes_it_not_ready(half_ready):
    done = command("status", at=half_ready)

    assert done.returncode == 1
    assert done.stdout.startswith("not ready: 2 tokens")
    assert "invalid_grant" in done.stdout


@pytest.mark.parametrize(("name", "code"), [("chat", 0), ("sync", 1)])
def test_the_status_of_one_token_does_not_depend_on_others(half_ready, name, code):
    assert command("status", name, "--quiet", at=half_ready).returncode == code


def test_a_name_that_is_not_kept_exits_65(at):
    done = command("status", "chat", "nope", at=at)

    assert (done.returncode, done.stdout) == (os.EX_DATAERR, "")
    assert "it keeps chat, sync" in done.stderr


@pytest.mark.parametrize(("args", "code"), [((), 0), (("--live",), 0), (("chat",), 0), (("nope",), 65)])
def test_quiet_writes_nothing_whatever_it_finds(at, args, code):
    done = command("status", "--quiet", *args, at=at)

    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


@pytest.mark.parametrize("args", [(), ("--live",)])
def test_quiet_writes_nothing_without_a_sidecar(args):
    done = command("status", "--quiet", *args, at="/nowhere/api.sock")

    assert (done.returncode, done.stdout, done.stderr) == (os.EX_UNAVAILABLE, "", "")


def test_live_asks_nothing_about_tokens(half_ready):
    done = command("status", "--live", at=half_ready)

    assert (done.returncode, done.stdout) == (0, "alive\n")


def test_a_sidecar_that_hangs_is_not_alive():
    with a_directory() as directory, speaking(directory / "s", json_answer("{}", 503)):
        done = command("status", "--live", "--json", at=directory / "s")

    assert (done.returncode, json.loads(done.stdout)) == (1, {"live": False})


@pytest.mark.parametrize(
    "args",
    [("--watch",), ("--watch", "--json"), ("--live", "chat"), ("--watch", "--live"), ("--watch", "--quiet")],
)
def test_options_that_do_not_go_together_are_a_usage_error(at, args):
    assert command("status", *args, at=at).returncode == os.EX_USAGE


def test_a_terminal_gets_colours_and_others_need_not(at):
    with InTerminal("status", at=at) as shown, InTerminal("status", at=at, NO_COLOR="1") as plain:
        assert (shown.ended(), plain.ended()) == (0, 0)
        assert "\x1b[1;32mfresh" in shown.raw
        assert "\x1b" not in plain.raw


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (120, 40), (40, 24), (20, 5), (200, 3)])
def test_the_live_view_fits_the_terminal(at, columns, lines):
    with InTerminal("status", "--watch", at=at, columns=columns, lines=lines) as shown:
        shown.until("\x1b[J")
        screen = shown.last_screen()
        shown.type("q")

        assert shown.ended() == 0
    assert len(screen) <= lines
    assert max(cells(line) for line in screen) < columns


def test_the_live_view_gives_the_terminal_back(at):
    with InTerminal("status", "--watch", at=at) as shown:
        before = shown.mode
        shown.until("chat")
        inside = shown.mode
        shown.type("q")

        assert shown.ended() == 0
        assert shown.raw.endswith("\x1b[?25h\x1b[?1049l")
        assert (shown.mode == before, inside == before) == (True, False)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_the_live_view_and_gives_the_terminal_back(at, number, code):
    with InTerminal("status", "--watch", at=at) as shown:
        shown.until("chat")
        shown.process.send_signal(number)

        assert shown.ended() == code
        assert shown.raw.endswith("\x1b[?25h\x1b[?1049l")
        assert "Traceback" not in shown.raw


def test_the_live_view_follows_the_terminals_size(at):
    with InTerminal("status", "--watch", at=at, columns=100) as shown:
        place = shown.until("events ───")
        shown.resize(40, 20)
        shown.process.send_signal(signal.SIGWINCH)
        place = shown.until("refresh in", after=place)
        shown.until("\x1b[J", after=place)

        assert max(cells(line) for line in shown.last_screen()) < 40


def test_the_live_view_shows_bars_that_shrink_and_events_as_they_come():
    with FakeBackend(lifetime=4) as backend, running(a_config(backend.url)) as sidecar:
        sidecar.until_token()
        with InTerminal("status", "--watch", at=sidecar.socket_path) as shown:
            shown.until("tokenAboutToExpire")
            shown.until("tokenUpdated")
            bars = re.findall(r"[█▏▎▍▌▋▊▉]*░+", shown.raw)

    assert len(set(bars)) > 2


def test_the_live_view_survives_a_restart_of_the_sidecar(backend):
    with a_directory() as directory:
        with running(a_config(backend.url), directory=directory) as sidecar:
            sidecar.until_token()
            shown = InTerminal("status", "--watch", at=sidecar.socket_path)
            shown.until("chat")
        with shown:
            place = shown.until("chat", after=shown.until("no connection since"))
            with started(directory, a_config(backend.url)):
                place = shown.until("sidecarStarted", after=place)
                shown.until("\x1b[1;32mready", after=place)
                shown.type("q")

                assert shown.ended() == 0


def test_a_live_view_that_was_stopped_goes_on(at):
    with InTerminal("status", "--watch", at=at, in_shell=True) as shown:
        place = shown.until("chat")
        shown.type("\x1a")
        place = shown.until("STOPPED", after=place)
        shown.until("chat", after=place)
        shown.type("q")

        assert shown.ended() == 0
        assert shown.raw.rindex("\x1b[?1049l", 0, place) < place


@pytest.mark.parametrize("count", [0, 300])
def test_the_live_view_shows_what_it_can_of_many_tokens(count):
    row = {**ROW, "expires_at": time.time() + 1_000}
    rows = [{**row, "name": f"token-{index}"} for index in range(count)]
    if rows:
        rows[-1] = {**row, "name": "broken", "status": "expired", "expires_at": NOW}
    document = json.dumps({"start": "a", "ready": False, "tokens": rows})
    with (
        a_directory() as directory,
        speaking(directory / "s", json_answer(document)),
        InTerminal("status", "--watch", at=directory / "s") as shown,
    ):
        shown.until("\x1b[J")
        screen = "\n".join(shown.last_screen())
        shown.type("q")
        shown.ended()

    assert ("broken" in screen, "more: " in screen) == (bool(count), bool(count))
