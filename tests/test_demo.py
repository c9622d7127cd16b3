"""The demo runs in real time here, as it does for people: it is the whole product over real sockets.

A run at the demo's own pace goes on in a process of its own while the other tests run.
"""

import asyncio
import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from token_keeper._model import EventKind, Phase, Snapshot, Status, TokenEvent, fingerprint_of
from token_keeper.cli.demo import _words as words
from token_keeper.cli.demo._backend import Doing, access_token
from token_keeper.cli.demo._command import demo
from token_keeper.cli.demo._lines import JsonLines, PlainLines
from token_keeper.cli.demo._picture import ASCII, UNICODE, bar, draw, glyphs_for, latest, mark
from token_keeper.cli.demo._play import perform
from token_keeper.cli.demo._record import Fault, Happening, Summary, Tally
from token_keeper.cli.demo._server import KEY_SECRET, REVOKED, ChatServer, Refusal
from token_keeper.cli.demo._stage import Picture, Stage
from token_keeper.cli.demo._story import Pace, script
from token_keeper.profiles import profile_named
from token_keeper.testing import mint

NOW = 1_700_000_000.0
COMMAND = (sys.executable, "-c", "import sys; from token_keeper.cli import main; sys.exit(main())", "demo")
FAST = Pace(
    lifetime_s=6, outage_s=3, request_interval_s=0.2, lull_s=0.5, calm_refreshes=1, min_interval_s=0.3
)
OUTAGE_IS_OVER_S = 22
"""At the demo's own pace: two refreshes in 12 s at most, then the outage and a second for the next try."""


def start(*arguments, **environment):
    return subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module", autouse=True)
def real_run():
    process = start("--json", "--for", str(OUTAGE_IS_OVER_S))
    yield process
    process.kill()
    process.communicate()


def in_order(expected, names):
    """Whether *expected* are found in *names* in this order, perhaps with others between them."""
    left = iter(names)
    return all(name in left for name in expected)


# The client's server.


def test_the_server_accepts_what_the_backend_issues():
    assert ChatServer().check(access_token(NOW, 12, 1), now=NOW + 11) is None


def test_the_backend_issues_what_the_keeper_takes_for_an_access_token():
    inspection = profile_named("twilio").inspect(
        access_token(NOW, 12, 1), now=NOW + 1, secret=KEY_SECRET, expectations={"grants": ["chat"]}
    )
    assert inspection.codes == {"lifetime-too-short"}
    assert inspection.valid


def test_tokens_of_one_second_differ():
    assert access_token(NOW, 12, 1) != access_token(NOW, 12, 2)


@pytest.mark.parametrize(
    ("token", "now", "code"),
    [
        (access_token(NOW, 12, 1), NOW + 12, 20104),
        (access_token(NOW, 12, 1), NOW - 1, 20105),
        (access_token(NOW, 12, 1) + "x", NOW, 20107),
        ("not a token", NOW, 20107),
        (mint(key=KEY_SECRET, expires_at=NOW + 9), NOW, 20102),
        (mint(key=KEY_SECRET, headers={"cty": "twilio-fpa;v=1"}, iss="SK", sub="AC"), NOW, 20103),
    ],
)
def test_the_server_refuses_what_a_real_one_would(token, now, code):
    assert ChatServer().check(token, now=now).code == code


def test_the_server_refuses_a_revoked_token_only():
    server = ChatServer()
    revoked, other = access_token(NOW, 12, 1), access_token(NOW, 12, 2)
    server.revoke(fingerprint_of(revoked))
    assert server.check(revoked, now=NOW) == Refusal(REVOKED, "revoked")
    assert server.check(other, now=NOW) is None


# The verdict.


def test_the_refusal_that_tells_of_a_revocation_is_no_failure():
    tally = Tally()
    assert not tally.refuse(Refusal(REVOKED, "revoked"), "12345678")
    assert Summary.of(tally, seconds=1, signal=None).exit_code == 0


def test_the_demo_fails_if_the_client_saw_the_denied_token_again():
    tally = Tally()
    tally.refuse(Refusal(REVOKED, "revoked"), "12345678")
    assert tally.refuse(Refusal(REVOKED, "revoked"), "12345678")
    assert Summary.of(tally, seconds=1, signal=None).exit_code == 1


def test_the_demo_fails_if_the_client_saw_an_expired_token():
    tally = Tally()
    assert tally.refuse(Refusal(20104, "expired"), "12345678")
    summary = Summary.of(tally, seconds=1, signal=None)
    assert summary.exit_code == 1
    assert "defect" in words.conclusion(summary)


def test_an_interrupted_demo_says_so_in_its_exit_code():
    assert Summary.of(Tally(), seconds=1, signal=signal.SIGINT).exit_code == 130


class StubbornKeeper:
    """Hands out the same token whatever is said of it: what the demo must notice."""

    def __init__(self, token):
        self.token = token
        self.denials = []

    def report_denied(self, token, *, code, reason):
        self.denials.append((token, code, reason))


def test_a_keeper_that_hands_out_a_denied_token_again_is_found_out():
    async def two_requests():
        stage = Stage(FAST)
        token = access_token(time.time(), 60, 1)
        stage.keeper = StubbornKeeper(token)
        stage.server.revoke(fingerprint_of(token))
        stage.request()
        stage.request()
        return stage, token

    stage, token = asyncio.run(two_requests())
    assert stage.keeper.denials == [(token, REVOKED, "revoked")] * 2
    assert [news.details["bad"] for news in stage.news()] == [False, True]
    assert stage.tally.bad == 1


def test_a_fault_is_survived_if_it_is_over_before_the_token_is():
    survived, lost, going_on = Fault("a"), Fault("b"), Fault("c")
    tally = Tally(faults=[survived])
    survived.is_over = True
    tally.faults += [lost, going_on]
    tally.run_out()
    lost.is_over = True
    summary = Summary.of(tally, seconds=1, signal=None)
    assert (summary.faults_survived, summary.faults_unfinished) == (1, 1)
    assert dict(words.results(summary))["faults survived"] == "1 of 3, 1 not over yet: a, b, c"


def test_the_summary_adds_up():
    tally = Tally(refreshes=3, failed_fetches=2)
    tally.watch(9.0, valid=True)
    tally.watch(1.0, valid=False)
    tally.accept()
    tally.refuse(Refusal(REVOKED, "revoked"), "12345678")
    tally.do_without()
    summary = Summary.of(tally, seconds=10.04, signal=None)
    assert dict(words.results(summary)) == {
        "time with a valid token": "90.0 %; 1 s without one, after the denial",
        "refreshes": "3, and 2 failed attempts",
        "faults survived": "none was met",
        "requests of the client": "2, 1 refused: so it learnt of the denial",
    }


# The picture.


@pytest.mark.parametrize(
    ("left", "drawn"),
    [(1.0, "████"), (0.5, "██░░"), (0.375, "█▌░░"), (0.0, "░░░░"), (-1.0, "░░░░"), (9.0, "████")],
)
def test_the_bar_is_as_long_as_what_is_left(left, drawn):
    assert bar(left, 4, UNICODE) == drawn


def test_the_bar_can_be_drawn_in_ascii():
    assert bar(0.5, 4, ASCII) == "##.."


def test_the_mark_stands_under_its_place_on_the_bar():
    assert mark(0.5, "due", 21, ASCII) == "          ^ due"
    assert mark(1.0, "due", 21, ASCII) == "                due ^"


def test_a_terminal_gets_the_characters_that_its_encoding_has():
    assert glyphs_for("utf-8") is UNICODE
    assert glyphs_for("latin-1") is ASCII
    assert glyphs_for("no such encoding") is ASCII


def a_picture(**changes):
    snapshot = {
        "status": Status.STALE,
        "phase": Phase.BACKING_OFF,
        "generation": 3,
        "fingerprint": "12345678",
        "expires_at": NOW + 6,
        "issued_at": None,
        "stale_at": NOW - 1,
        "refresh_at": NOW - 1,
        "next_attempt_at": NOW + 0.75,
        "failures": 2,
        "unchanged": 0,
        "last_error": "down",
        "usable_for": 6.0,
        "attempts_left": 5,
        "denied_by": (),
    }
    tally = Tally()
    tally.accept()
    return Picture(
        after_s=75.0,
        now=NOW,
        lifetime_s=12.0,
        headline="Scene 2 of 5: trouble",
        caption=script(Pace())[1].caption,
        backend=Doing("down", "refuses connections", "error"),
        snapshot=Snapshot(**snapshot | changes),
        tally=tally,
        pace=Pace(),
    )


def a_log(count):
    return [
        Happening(after_s=at, who="keeper", event="tokenAboutToExpire", text=f"happening {at} " + "so " * 12)
        for at in range(count)
    ]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (60, 24), (40, 14), (20, 5)])
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
def test_the_picture_fits_any_terminal(width, height, glyphs):
    lines = draw(a_picture(), a_log(50), width=width, height=height, glyphs=glyphs)
    assert 0 < len(lines) <= height
    assert max(line.cell_len for line in lines) <= width


def test_the_picture_says_how_everything_stands():
    text = "\n".join(line.plain for line in draw(a_picture(), [], width=80, height=24, glyphs=UNICODE))
    for said in (
        "Scene 2 of 5: trouble",
        "1:15",
        "down · refuses connections",
        "stale · failed attempts: 2; next in 0.8 s",
        "generation 3 · fingerprint 12345678",
        "6.0 s left",
        "▲ refresh due",
        "■ 1 accepted",
    ):
        assert said in text


def test_a_denied_token_is_shown_as_withheld():
    picture = a_picture(status=Status.DENIED, usable_for=0.0, refresh_at=None)
    text = "\n".join(line.plain for line in draw(picture, [], width=80, height=24, glyphs=UNICODE))
    assert "withheld" in text
    assert "denied · asks for another token in 0.8 s" in text
    assert "refresh due" not in text


def test_of_a_long_log_the_end_is_shown():
    shown = [line.plain for line in latest(a_log(50), width=100, height=3)]
    assert [line.split("happening ")[1].split()[0] for line in shown] == ["47", "48", "49"]


@pytest.mark.parametrize("kind", list(EventKind))
def test_each_event_has_a_meaning_in_a_few_words(kind):
    event = TokenEvent(
        kind=kind, name="demo", at=NOW, generation=2, error="http://127.0.0.1:1 broke; tries again"
    )
    text, _ = words.meaning(event, left_s=3.0, after_denial=False)
    assert text
    assert "127.0.0.1" not in text
    assert len(text) <= 52


# The command.


def play(display_of):
    stream = io.StringIO()
    summary = asyncio.run(perform(display_of(stream), FAST))
    return summary, stream.getvalue()


def test_the_whole_script_is_played_and_survived():
    summary, output = play(JsonLines)
    told = [json.loads(line) for line in output.splitlines()]
    names = [each["event"] for each in told]
    outage = ["backendDown", "tokenAboutToExpire", "backendUp", "tokenUpdated"]
    odd = ["backendBusy", "tokenAboutToExpire", "refreshFailed", "refreshFailed", "tokenUpdated"]
    denial = [
        "tokenRevoked",
        "requestRefused",
        "tokenDenied",
        "sameTokenReturned",
        "tokenUpdated",
        "recovered",
    ]
    story = ["tokenUpdated", "scene", *outage, "scene", *odd, "scene", *denial, "scene", "tokenUpdated"]
    assert in_order(["scene", *story, "summary"], names), names
    assert "tokenExpired" not in names
    assert summary.exit_code == 0
    assert summary.faults_survived == len(summary.faults) == 5
    assert (summary.refused, summary.bad) == (1, 0)
    assert told[-1] == json.loads(json.dumps(summary.as_dict()))


def test_lines_hold_no_escape_codes_even_if_colour_is_forced():
    process = start("--for", "3", FORCE_COLOR="1", TERM="xterm-256color")
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")
    assert output.startswith(words.TITLE)
    assert "tokenUpdated" in output
    assert output.isascii()
    assert "\x1b" not in output


def test_an_interrupt_ends_it_early_with_the_summary():
    process = start("--json")
    first = json.loads(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=20)
    assert first["event"] == "scene"
    assert json.loads(output.splitlines()[-1])["signal"] == signal.SIGINT
    assert (process.returncode, errors) == (130, "")


def test_a_terminal_is_given_back_as_it_was():
    terminal, child = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "--for", "1"],
        stdin=child,
        stdout=child,
        stderr=child,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"},
    )
    os.close(child)
    shown = b""
    try:
        while select.select([terminal], [], [], 20)[0]:
            shown += os.read(terminal, 65_536)
    except OSError:  # The other end is closed: the process has ended.
        pass
    finally:
        os.close(terminal)
    assert process.wait(timeout=20) == 0
    before, _, after = shown.partition(b"\x1b[?1049l")
    assert b"\x1b[?1049h" in before
    assert "█".encode() in before
    assert b"Summary" in after
    assert shown.count(b"\x1b[?25l") == shown.count(b"\x1b[?25h") > 0


def test_lines_for_people_tell_the_scene_with_its_caption():
    stream = io.StringIO()
    scene = Happening(
        after_s=61, who="demo", event="scene", text="Scene 1 of 5: x", details={"caption": "So it is."}
    )
    PlainLines(stream, 12).show([scene], a_picture())
    assert stream.getvalue().endswith("\n\n 1:01  Scene 1 of 5: x. So it is.\n")


@pytest.mark.parametrize("value", ["0", "-1", "soon", "nan"])
def test_it_takes_no_nonsense_for_a_duration(value):
    result = CliRunner().invoke(demo, ["--for", value])
    assert result.exit_code != 0
    assert "tokenUpdated" not in result.output


def test_at_its_own_pace_the_keeper_outlives_the_outage(real_run):
    output, errors = real_run.communicate(timeout=60)
    told = [json.loads(line) for line in output.splitlines()]
    names = [each["event"] for each in told]
    calm = [
        "scene",
        "tokenUpdated",
        "tokenAboutToExpire",
        "tokenUpdated",
        "tokenAboutToExpire",
        "tokenUpdated",
    ]
    outage = ["scene", "backendDown", "tokenAboutToExpire", "refreshFailed", "backendUp", "tokenUpdated"]
    assert in_order([*calm, *outage, "summary"], names), names
    assert "tokenExpired" not in names
    assert (real_run.returncode, errors) == (0, "")
    assert told[-1]["valid_percent"] == 100.0
    assert told[-1]["ok"] is True
