"""The dashboard in a real Chromium, told by a server what there is to see."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import CHROMEDRIVER, CHROMIUM, Browser, Telling, a_browser, a_row

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and CHROMEDRIVER), reason="chromium and chromedriver are needed"
)
CONTRAST = (Path(__file__).parent / "js" / "contrast.js").read_text()
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> \u202egnp.exe\u202c \x1b[31m" + "W" * 3_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with a_browser() as browser:
        yield browser


def opened(browser: Browser, server: Telling, **look: object) -> None:
    """Open the page with a good code, and wait until it shows something."""
    browser.open(server.url, **look)
    browser.until(lambda: browser.text("#verdict-title"), what="a verdict")


def row_of(name: str) -> str:
    return f'.row[data-name="{name}"]'


def in_trouble(name: str = "push") -> dict:
    """A row of a token whose backend is down."""
    now = time.time()
    failing = {"failures": 4, "last_error": "HTTP 503", "attempts_left": 5, "next_attempt_at": now + 30}
    times = {"expires_at": now + 750, "usable_for": 750.0, "refresh_at": now - 60, "issued_at": now - 3_000}
    return a_row(name, status="stale", phase="backing_off", **failing, **times)


def test_it_opens_by_code_and_shows_each_token(browser):
    with Telling([a_row("chat", generation=12), a_row("mail", source="backup")]) as server:
        opened(browser, server)
        assert browser.text("#verdict-title") == "Ready"
        row = browser.text(row_of("chat"))
        assert "jwt, from backup" in browser.text(row_of("mail"))
    assert all(part in row for part in ("Fresh", "jwt", "Usable for 49 min; 7 attempts fit", "12 3fa9c1d2"))


def test_the_code_leaves_the_address_and_the_history_before_anything_is_asked(browser):
    with Telling([a_row("chat")]) as server:
        opened(browser, server)
        assert browser.driver.current_url == server.address
        assert not [url for url in browser.history() if "the-code" in url]
        assert not [url for url in browser.requested() if "the-code" in url]


def test_nothing_is_stored_and_the_key_is_nowhere_in_the_page(browser):
    with Telling([a_row("chat")]) as server:
        opened(browser, server)
        stored = browser.run("return [localStorage.length, sessionStorage.length, document.cookie]")
        page = browser.run("return document.documentElement.outerHTML + Object.keys(window).join()")
    assert stored == [0, 0, ""]
    assert browser.driver.get_cookies() == []
    assert "the-key" not in page
    assert "the-code" not in page


def test_without_a_code_it_says_which_command_opens_it(browser):
    with Telling([a_row("chat")]) as server:
        browser.open(server.address)
        browser.wait_for("Open it from the terminal")
        assert "token-keeper dashboard" in browser.text("#gate")
        assert not browser.text("#board")


def test_a_used_code_is_told_as_such(browser):
    with Telling([a_row("chat")]) as server:
        browser.open(f"{server.address}#another")
        browser.wait_for("This code is used or too old")
        assert browser.driver.current_url == server.address


def test_a_reload_forgets_the_key_and_says_so(browser):
    with Telling([a_row("chat")]) as server:
        opened(browser, server)
        browser.driver.refresh()
        browser.wait_for("it was reloaded")


def test_another_code_in_the_address_of_an_open_page_is_taken_too(browser):
    with Telling([a_row("chat")]) as server:
        browser.open(server.address)
        browser.wait_for("Open it from the terminal")
        browser.driver.get(server.url)
        browser.wait_for("Ready")
        assert browser.driver.current_url == server.address


def test_an_event_is_seen_at_once_and_the_rest_is_asked_for(browser):
    with Telling([a_row("chat")]) as server:
        opened(browser, server)
        server.rows[0] = in_trouble("chat")
        server.tell("refreshFailed", "chat", failures=4, error="HTTP 503")
        browser.wait_for("Usable for 12 min; 5 attempts fit", row_of("chat"), within_s=5)
    row = browser.text(row_of("chat"))
    assert "Last error: HTTP 503" in row
    assert "backing off" in row


def test_trouble_comes_first_and_is_told_in_words(browser):
    rows = [
        a_row("alpha"),
        in_trouble(),
        a_row("zeta", status="denied", usable_for=0.0, denied_by=["", "eu"]),
    ]
    with Telling(rows) as server:
        server.document["ready"] = False
        opened(browser, server)
        names = browser.values(".row", "data-name")
        verdict = browser.text("#verdict")
    assert names == ["zeta", "push", "alpha"]
    assert "Not ready" in verdict
    assert "push could not be refreshed (4 tries); usable for 12 min." in verdict
    assert "zeta was denied by a server and is withheld." in verdict
    assert "Denied to the usual readers, eu" in browser.text(row_of("zeta"))


def test_a_refused_token_that_still_serves_is_trouble_ahead(browser):
    with Telling([{**in_trouble(), "phase": "refused"}]) as server:
        opened(browser, server)
        assert browser.text("#verdict-title") == "Ready, with trouble ahead"
        assert "push is refused by its backend; usable for 12 min." in browser.text("#verdict")


def test_a_name_in_the_verdict_leads_to_its_token(browser):
    with Telling([in_trouble(), *(a_row(f"sound-{i}") for i in range(30))]) as server:
        opened(browser, server, height=500)
        browser.all("#verdict .to")[0].click()
        assert browser.run("return document.activeElement.dataset.name") == "push"


def test_a_sink_that_cannot_be_written_is_shown_with_its_reason(browser):
    sinks = [{"path": "/run/app/token", "generation": 2, "error": "No space left on device"}]
    with Telling([a_row("chat", generation=3, sinks=sinks)]) as server:
        opened(browser, server)
        row = browser.text(row_of("chat"))
    assert "/run/app/token" in row
    assert "holds generation 2; No space left on device" in row


def test_a_token_without_a_known_end_is_usable_without_one(browser):
    unknown = {"expires_at": None, "expires_in": None, "usable_for": None, "attempts_left": None}
    with Telling([a_row("chat", issued_at=None, **unknown)]) as server:
        opened(browser, server)
        assert browser.text("#verdict-title") == "Ready"
        assert "when it expires is not known" in browser.text(row_of("chat"))


def test_no_token_configured_is_a_page_that_says_what_to_do(browser):
    with Telling([]) as server:
        server.document["ready"] = False
        opened(browser, server)
        assert "Not ready" in browser.text("#verdict")
        assert "[tokens.chat.source]" in browser.text("#empty")
        assert not browser.text("#past")


def test_a_scheduler_that_stands_still_is_not_ready_whatever_the_tokens_say(browser):
    with Telling([a_row("chat")]) as server:
        server.document["live"] = False
        opened(browser, server)
        assert "The scheduler does not tick" in browser.text("#verdict")


def test_the_picture_has_a_shape_for_each_event_and_the_list_the_words(browser):
    kinds = {
        "tokenUpdated": "published",
        "tokenAboutToExpire": "about to expire",
        "tokenExpired": "expired",
        "tokenDenied": "a server denied",
        "recovered": "is accepted",
        "refreshFailed": "a fetch failed",
        "refreshRefused": "refuses",
        "recoveryFailed": "recovery failed",
        "clockJumped": "a clock jumped",
    }
    with Telling([a_row("chat")]) as server:
        for i, kind in enumerate(kinds):
            server.tell(kind, "chat", at=time.time() - 3_000 + 300 * i, diagnosis=["look here"])
        opened(browser, server)
        browser.until(lambda: len(browser.all("#picture .event")) == len(kinds), what="all marks")
        shapes = set(browser.values("#picture .event", "data-kind"))
        browser.all("#log summary")[0].click()
        browser.wait_for("a clock jumped", "#events")
        told = browser.text("#events")
    assert shapes == set(kinds)
    assert all(words in told for words in kinds.values())
    assert "look here" in told
    outlines = browser.run(
        "return [...document.querySelectorAll('#legend .event')].map(e => e.lastElementChild.outerHTML)"
    )
    assert len(set(outlines)) == len(kinds)


def test_many_events_of_one_kind_become_one_mark_that_counts_them(browser):
    with Telling([a_row("chat")]) as server:
        for i in range(40):
            server.tell(
                "refreshFailed", "chat", at=time.time() - 600 + i / 10, failures=i + 1, error="HTTP 503"
            )
        opened(browser, server)
        browser.until(lambda: len(browser.all("#picture .event")) == 1, what="one mark")
        assert "40 times" in browser.values("#picture .event", "data-tip")[0]


def test_a_lost_sidecar_is_told_and_the_stream_resumes_where_it_was(browser):
    with Telling([a_row("chat")]) as server:
        server.tell("tokenUpdated", "chat", generation=1)
        opened(browser, server)
        browser.until(lambda: browser.all("#picture .event"), what="the event")
        server.is_down = True
        browser.wait_for("Reconnecting since", "#link")
        browser.wait_for("Not known", "#verdict")
        server.is_down = False
        browser.wait_for("Live", "#link")
        browser.wait_for("Ready", "#verdict")
        browser.until(lambda: len(server.resumed) > 1)
    assert server.resumed[:2] == [None, "0a1b2c3d-1"]


def test_a_restart_is_told_as_such_with_the_command_that_helps(browser):
    with Telling([a_row("chat")]) as server:
        opened(browser, server)
        server.is_down = True
        browser.wait_for("Reconnecting since", "#link")
        server.keys.clear()
        server.is_down = False
        browser.wait_for("The sidecar was restarted")
        assert "token-keeper dashboard" in browser.text("#gate")
        assert not browser.text("#board")


def test_a_key_that_is_good_no_longer_is_told_as_such(browser):
    with Telling([a_row("chat")]) as server:
        opened(browser, server)
        server.keys.clear()
        server.tell("tokenUpdated", "chat")
        browser.wait_for("key is no longer valid")


def test_hostile_texts_stay_texts(browser):
    with Telling([{**in_trouble(), "last_error": HOSTILE, "profile": HOSTILE[:60]}]) as server:
        server.rows[0]["sinks"] = [{"path": HOSTILE, "generation": 1, "error": HOSTILE}]
        server.rows[0]["denied_by"] = [HOSTILE]
        server.tell("recoveryFailed", "push", error=HOSTILE, diagnosis=[HOSTILE])
        server.tell("refreshFailed", HOSTILE, error=HOSTILE)
        opened(browser, server, width=400, height=800)
        browser.all("#log summary")[0].click()
        browser.wait_for("recovery failed", "#events")
        assert browser.run("return document.querySelectorAll('main script, main img').length") == 0
        assert "<script>alert(1)</script>" in browser.text(row_of("push"))
        assert "\\u202egnp.exe" in browser.text(row_of("push"))
        assert browser.run("return document.documentElement.scrollWidth") == 400
        assert browser.complaints() == []


@pytest.mark.parametrize("width", [320, 400, 700, 901, 1280])
def test_nothing_is_wider_than_the_window(browser, width):
    sinks = [{"path": f"/run/{'long-' * 40}token", "generation": 1, "error": None}]
    with Telling([a_row("n" * 64, sinks=sinks, source="s" * 64), in_trouble()]) as server:
        server.tell("refreshFailed", "push", failures=3, error="HTTP 503")
        opened(browser, server, width=width, height=800)
        browser.until(lambda: browser.all("#picture svg"))
        assert browser.run("return document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("is_lost", [False, True])
def test_every_text_stands_out_from_its_ground(browser, dark, is_lost):
    sinks = [
        {"path": "/run/a", "generation": 1, "error": None},
        {"path": "/run/b", "generation": 0, "error": "no"},
    ]
    rows = [
        *(a_row("chat", sinks=sinks), in_trouble(), a_row("gone", status="expired", usable_for=0.0)),
        *(a_row(f"sound-{i}") for i in range(8)),
    ]
    with Telling(rows) as server:
        server.tell("refreshFailed", "push", failures=3, error="HTTP 503")
        opened(browser, server, dark=dark)
        browser.all("#log summary")[0].click()
        browser.wait_for("a fetch failed", "#events")
        if is_lost:
            server.is_down = True
            browser.wait_for("Reconnecting since", "#link")
        found = browser.run(CONTRAST)
    assert found["count"] > 50
    assert found["weak"] == []


def test_it_asks_nobody_but_its_own_server_and_breaks_no_policy(browser):
    with Telling([a_row("chat"), in_trouble()]) as server:
        server.tell("tokenUpdated", "chat")
        opened(browser, server)
        browser.until(lambda: browser.all("#picture .event"))
        asked = [url for url in browser.requested() if not url.startswith(("data:", "about:"))]
        assert browser.complaints() == []
    assert asked
    assert all(url.startswith(server.address) for url in asked)


def test_the_browsers_clock_does_not_matter(browser):
    ahead = time.time() + 7_200
    times = {"issued_at": ahead - 600, "expires_at": ahead + 3_000, "refresh_at": ahead + 2_000}
    with Telling([a_row("chat", **times)]) as server:
        opened(browser, server)
        assert "Usable for 49 min" in browser.text(row_of("chat"))
        assert "in 33 min" in browser.text(row_of("chat"))


def test_an_expiry_is_seen_without_any_answer_of_the_server(browser):
    with Telling([a_row("chat", expires_at=time.time() + 1.5, usable_for=1.5)]) as server:
        opened(browser, server)
        browser.wait_for("Expired", row_of("chat"), within_s=5)
        assert browser.text("#verdict-title") == "Not ready"


# Ten thousand rows are 4 MB that the server writes and the browser reads: it takes a few seconds.
def test_ten_thousand_tokens_stay_usable(browser):
    rows = [a_row(f"service-{i:05}") for i in range(10_000)]
    rows[7_777] |= {**in_trouble(), "name": "service-07777"}
    with Telling(rows) as server:
        opened(browser, server)
        browser.wait_for("10,000 tokens, 1 in trouble", "#present")
        assert browser.run("return document.querySelectorAll('.row').length") == 101
        assert browser.values(".row", "data-name")[0] == "service-07777"
        browser.all("#search")[0].send_keys("09999")
        browser.until(lambda: len(browser.all(".row")) == 1, what="the row that was searched for")
        assert "1 of 10,000 tokens" in browser.text("#present")


def test_screen_readers_find_landmarks_a_meter_and_a_polite_voice(browser):
    with Telling([a_row("chat")]) as server:
        opened(browser, server)
        assert browser.values("[role=meter]", "aria-valuetext") == ["49 min"]
        assert browser.run("return document.querySelectorAll('main, header').length") == 2
        assert browser.run("return document.querySelector('[aria-live=polite]').textContent") == "Ready."
        server.rows[0] = {**in_trouble("chat")}
        server.tell("refreshFailed", "chat", failures=1, error="HTTP 503")
        told = "return document.querySelector('[aria-live=polite]').textContent"
        browser.until(lambda: "1 token is in trouble" in browser.run(told), what="the announcement")


PARSE = """
const { EventParser } = await import('/static/stream.js');
const [text, size] = arguments;
const heard = [];
const parser = new EventParser((event) => heard.push(event));
for (let i = 0; i < text.length; i += size) parser.push(text.slice(i, i + size));
return heard;
"""
STREAM = (
    ": a comment\n\nevent: one\nid: s-1\ndata: first\ndata: second\n\n"
    "event: two\r\nid: s-2\r\ndata:no space\r\n\r\n"
    "id: s-3\rdata:  two spaces\r\revent: never\n\nretry: 10\ndata\n\ndata: unfinished"
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1_000])
def test_a_stream_is_understood_wherever_its_pieces_end(browser, size):
    with Telling([]) as server:
        browser.open(server.address)
        heard = browser.run(PARSE, STREAM, size)
    assert [(event["kind"], event["id"], event["data"]) for event in heard] == [
        ("one", "s-1", "first\nsecond"),
        ("two", "s-2", "no space"),
        ("message", "s-3", " two spaces"),
        ("message", "s-3", ""),
    ], json.dumps(heard)
