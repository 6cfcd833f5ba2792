"""The browser client on real pages of another origin, through outages of every kind.

What is compared: the ids that ``estat.track`` gave to a page's events, the events of which
the page was told that they are accepted, and what is in the store.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import Browser, Site, Tab
from tests.support.eventually import eventually
from tests.support.interposed import Interposed
from tests.support.server import Server

SOON_SECONDS = 30
LEFT = "/left"

#: Lets so much time pass that a page that did nothing meanwhile counts as gone.
LATER = "{ const now = Date.now; Date.now = () => now.call(Date) + 600000 }"

#: Notes what the page is told, where it stays when the page goes.
NOTES = """<script>
addEventListener('estat', ({detail}) => {
  const told = JSON.parse(localStorage.told || '[]');
  if (detail.accepted) told.push(...detail.lines.map((line) => JSON.parse(line).event_id));
  localStorage.told = JSON.stringify(told);
});
</script>"""

#: Says whether there is a network, as browsers do; the client tries again when it is back.
NETWORK = """
  Object.defineProperty(navigator, 'onLine', {value: arguments[0], configurable: true});
  dispatchEvent(new Event(arguments[0] ? 'online' : 'offline'));
"""


class Web:
    """Pages with the client, the server behind a proxy, and what is stored."""

    def __init__(self, browser: Browser, site: Site, server: Server, proxy: Interposed) -> None:
        self._browser, self.site, self.server, self.proxy = browser, site, server, proxy
        self.tab = browser.new_tab()  # the one that is used
        self.tabs = [self.tab]
        self.tracked: list[str] = []
        site.pages |= {LEFT: "", "/": self.page()}

    def page(self, attributes: str = "", url: str = "", before: str = "") -> str:
        source = f"{url or self.proxy.url}/estat.js"
        return f"{NOTES}{before}<script src='{source}' {attributes}></script>"

    def new_tab(self) -> Tab:
        """Go on in a new tab, which hides the one before; return that one."""
        before, self.tab = self.tab, self._browser.new_tab()
        self.tabs.append(self.tab)
        return before

    def close(self, tab: Tab) -> None:
        self.tabs.remove(tab)
        tab.close()

    def open(self, path: str = "/") -> None:
        self.tab.open(self.site.url + path)

    def run(self, script: str, *arguments: object) -> Any:
        return self.tab.run(script, *arguments)

    def track(self, count: int = 1, padding: int = 0) -> None:
        """Track events that are like no others."""
        self.tracked += self.run(
            "const [length, padding] = arguments; return Array.from({length}, () =>"
            " estat.track({n: Math.random(), padding: 'x'.repeat(padding)}))",
            count,
            padding,
        )

    def flush(self) -> None:
        """Send what waits, and wait until nothing is under way."""
        self.run("await estat.flush()")

    def stats(self) -> dict[str, int]:
        found: dict[str, int] = self.run("return estat.stats()")
        return found

    def idle(self) -> bool:
        return self.stats()["queued"] == 0

    def waits_for_idle(self) -> None:
        eventually(self.idle, SOON_SECONDS, "nothing waits in the page", last_words=self.stats)

    def kept(self) -> list[str]:
        """Return the names of what is in the page's storage."""
        found: list[str] = self.run("return Object.keys(localStorage)")
        return found

    def told(self) -> list[str]:
        found: list[str] = json.loads(self.run("return localStorage.told || '[]'"))
        return found

    def stored(self) -> list[str]:
        """Return the ids of all stored events."""
        return [line["body"]["event_id"] for line in self.server.stored()]

    def check(self) -> None:
        """All events are stored exactly once, those that the page was told of among them."""
        eventually(
            lambda: set(self.stored()) >= set(self.tracked),
            SOON_SECONDS,
            "all is stored",
            last_words=lambda: (len(self.stored()), len(self.tracked), self.proxy.statuses),
        )
        assert Counter(self.stored()) == Counter(self.tracked)
        assert set(self.told()) <= set(self.tracked)

    def refuse(self, status: int, retry_after: str = "") -> None:
        self.proxy.refuse = lambda _: (status, retry_after)

    def heal(self) -> None:
        self.proxy.refuse = lambda _: None

    def hold_back(self, count: int) -> None:
        """Open the page, and let it track events that the server refuses for a day."""
        self.open()
        self.refuse(503, retry_after="86400")
        self.track(count)
        self.flush()

    def leave_behind(self, count: int) -> None:
        """Let a page end with events that it could not send; then all is well again."""
        self.open()
        self.refuse(503)
        self.track(count)
        self.flush()
        assert self.proxy.statuses == [503]
        self.open(LEFT)
        self.heal()

    def next_turn(self) -> None:
        """Let the client try again at once."""
        self.run(NETWORK, True)

    def check_refused(self, times: int) -> None:
        eventually(
            lambda: len(self.proxy.statuses) - self.proxy.statuses.count(202) >= times,
            SOON_SECONDS,
            "requests were refused",
        )


@pytest.fixture
def settings() -> dict[str, str]:
    return {}


@pytest.fixture
def web(browser: Browser, tmp_path: Path, settings: dict[str, str]) -> Iterator[Web]:
    with (
        Server(tmp_path, {"RAW_BUCKET": "file:data"} | settings) as server,
        Interposed(server.port) as proxy,
        Site() as site,
    ):
        web = Web(browser, site, server, proxy)
        yield web
        for tab in web.tabs:
            tab.close()


# --- the ways out


def test_events_go_in_one_fetch_without_a_preflight_and_the_page_is_told(web: Web) -> None:
    web.open()
    web.track(50)
    web.waits_for_idle()
    web.check()
    assert web.told() == web.tracked
    assert web.stats() == {"accepted": 50, "rejected": 0, "dropped": 0, "queued": 0}
    (request,) = web.proxy.posts
    assert request.headers["Content-Type"].startswith("text/plain")
    assert request.headers["Origin"] == web.site.url
    assert request.headers["Sec-Fetch-Mode"] == "cors"
    assert "OPTIONS" not in {seen.method for seen in web.proxy.seen}


@pytest.mark.parametrize("way", ["closes", "goes elsewhere"])
def test_a_page_that_ends_sends_what_waits_as_a_beacon(way: str, web: Web) -> None:
    web.open(LEFT)
    keeper = web.tab
    if way == "closes":
        web.new_tab()
    web.open()
    web.track(20)
    if way == "closes":
        web.close(web.tab)
        web.tab = keeper
    else:
        web.open(LEFT)
    web.check()
    assert [post.headers["Sec-Fetch-Mode"] for post in web.proxy.posts] == ["no-cors"]
    assert web.kept() == [], "nothing is left behind"


def test_a_hidden_page_sends_at_once_and_hears_the_answer(web: Web) -> None:
    web.open()
    web.track(5)
    web.new_tab()
    web.open(LEFT)
    eventually(lambda: web.told() == web.tracked, SOON_SECONDS, "the hidden page was told")
    web.check()


def test_events_tracked_while_the_page_ends_are_sent(web: Web) -> None:
    late = "<script>addEventListener('pagehide', () => estat.track({event_id: 'late'}))</script>"
    web.site.pages["/"] = web.page() + late
    web.open()
    web.open(LEFT)
    web.tracked.append("late")
    web.check()


def test_calls_made_before_the_client_was_there_are_made_up_for_and_the_page_is_viewed(
    web: Web,
) -> None:
    stub = (
        "<script>window.estat = function () { (estat.q = estat.q || []).push(arguments) };"
        "estat('track', {event_id: 'early'})</script>"
    )
    web.site.pages["/"] = web.page("data-auto", before=stub)
    web.open()
    web.waits_for_idle()
    (post,) = web.proxy.posts
    view, early = map(json.loads, post.body.splitlines())
    assert (view["event"], view["url"], view["title"]) == (
        "page_view",
        f"{web.site.url}/",
        "A page",
    )
    assert early["event_id"] == "early"
    web.tracked += [view["event_id"], "early"]
    web.check()


def test_the_write_key_goes_with_fetch_and_beacon(web: Web) -> None:
    web.site.pages["/"] = web.page("data-key='a&b'")
    web.open()
    web.track()
    web.flush()
    web.track()
    web.open(LEFT)
    web.check()
    assert [post.path for post in web.proxy.posts] == ["/collect?key=a%26b"] * 2


# --- outages


def test_a_page_that_ends_offline_leaves_its_events_to_the_next(web: Web) -> None:
    web.open()
    web.run(NETWORK, False)
    web.track(10)
    web.open(LEFT)
    web.open()
    web.check()
    assert sorted(web.told()) == sorted(web.tracked)


def test_a_server_that_stops_and_starts_again_gets_everything_once(web: Web) -> None:
    web.site.pages["/"] = web.page(url=web.server.url)
    web.open()
    web.track(10)
    web.flush()
    assert web.server.stop() == 0
    web.track(10)
    web.flush()
    assert web.stats()["queued"] == 10
    web.server.start()
    web.waits_for_idle()
    web.check()
    assert web.told() == web.tracked


def test_a_refusal_for_now_is_tried_again_until_it_is_accepted(web: Web) -> None:
    web.open()
    statuses = (408, 429, 500, 502, 503, 504)
    for status in statuses:
        web.refuse(status)
        web.track(5)
        web.flush()
        assert web.stats()["queued"] == 5
        web.heal()
        web.next_turn()
        web.waits_for_idle()
    assert web.proxy.statuses == [each for status in statuses for each in (status, 202)]
    web.check()
    assert web.told() == web.tracked


def test_retry_after_is_waited_for(web: Web) -> None:
    web.hold_back(1)
    web.heal()
    web.run(LATER)  # no backoff is that long
    web.track()
    web.flush()
    assert web.proxy.statuses == [503]
    assert web.stats()["queued"] == 2
    web.next_turn()
    web.waits_for_idle()
    web.check()


def test_what_a_page_could_not_send_is_sent_by_the_next_page(web: Web) -> None:
    web.leave_behind(30)
    assert web.stored() == [], "no beacon was sent into the outage"
    web.open()
    web.check()
    assert sorted(web.told()) == sorted(web.tracked)
    assert web.kept() == ["told"], "nothing is left behind"


def test_what_a_page_has_left_is_sent_by_one_of_several_tabs(web: Web) -> None:
    web.leave_behind(30)
    for _ in range(4):
        web.new_tab()
        web.open(LEFT)
    for tab in web.tabs:
        tab.run("location = '/'")
    web.check()


def test_a_page_gives_way_to_another_that_claims_the_same(web: Web) -> None:
    web.leave_behind(30)
    web.site.pages["/second"] = web.page() + (
        "<script>localStorage[Object.keys(localStorage).find("
        "(key) => key.startsWith('estat claim'))] = 'another'</script>"
    )
    web.open("/second")
    web.track()
    web.waits_for_idle()
    assert web.stats()["accepted"] == 1
    web.open()
    web.check()


def test_a_living_page_keeps_its_events_to_itself(web: Web) -> None:
    web.hold_back(10)
    web.heal()
    first = web.new_tab()
    web.open()
    web.track()
    web.waits_for_idle()
    assert web.proxy.statuses == [503, 202]
    web.tab = first
    web.next_turn()
    web.check()


def test_a_page_that_slept_leaves_its_events_to_the_one_that_took_them(web: Web) -> None:
    web.hold_back(10)
    web.heal()
    web.site.pages["/later"] = f"<script>{LATER}</script>{web.page()}"
    sleeper = web.new_tab()
    web.open("/later")
    eventually(lambda: len(web.told()) == 10, SOON_SECONDS, "the second page has sent them")
    web.tab = sleeper
    web.run(LATER)
    web.track()
    web.next_turn()
    web.waits_for_idle()
    web.check()
    assert web.stats()["accepted"] == 1


class TestBackFromTheHistory:
    """A page that was left, and kept by the browser as it was."""

    @staticmethod
    def leave(web: Web) -> None:
        web.run("window.same = true")
        web.open(LEFT)

    @staticmethod
    def come_back(web: Web) -> None:
        web.tab.back()
        assert web.run("return window.same"), "the browser has loaded the page anew"

    def test_a_page_goes_on_and_keeps_what_it_could_not_send(self, web: Web) -> None:
        web.open()
        web.track(3)
        self.leave(web)
        self.come_back(web)
        web.refuse(503, retry_after="86400")
        web.track(3)
        web.flush()
        self.leave(web)
        self.come_back(web)
        web.heal()
        web.next_turn()
        web.check()
        assert web.proxy.statuses == [202, 503, 202]

    def test_a_page_leaves_what_was_taken_to_the_one_that_took_it(self, web: Web) -> None:
        web.hold_back(3)
        self.leave(web)
        web.heal()
        left = web.new_tab()
        web.open()
        eventually(lambda: len(web.told()) == 3, SOON_SECONDS, "another page has sent it")
        web.tab = left
        self.come_back(web)
        web.track()
        web.next_turn()
        web.waits_for_idle()
        web.check()


def test_of_1000_events_through_outages_each_is_stored_once(web: Web) -> None:
    web.open()
    web.track(200)  # at once
    web.flush()
    web.refuse(503)
    web.track(200)  # into refusals
    web.check_refused(times=2)
    web.run(NETWORK, False)
    assert web.server.stop() == 0
    web.heal()
    web.track(200)  # while the server is not there, nor the network
    web.flush()
    web.run(NETWORK, True)
    web.track(200)  # while only the server is not there
    web.flush()
    assert web.stats()["queued"] == 600
    web.open(LEFT)
    web.server.start()
    web.open()
    eventually(lambda: len(web.told()) == 800, SOON_SECONDS, "the next page was told of all")
    web.track(199)
    web.open(LEFT)  # by beacon
    web.open()
    web.track()
    web.check()
    assert len(web.tracked) == 1000


# --- limits


@pytest.mark.parametrize(
    "settings",
    [{"MAX_BATCH_EVENTS": "10", "MAX_BODY_SIZE": "2000", "ACCEPTED_STATUS": "200"}],
    ids=["limits"],
)
def test_batches_and_events_keep_to_the_limits_of_the_server(web: Web) -> None:
    web.open()
    web.track(25, padding=1000)
    web.flush()
    assert web.told() == web.tracked, "every success is one to the page"
    assert web.run("return estat.track({x: 'x'.repeat(2000)}) === undefined")
    web.track(5)
    web.open(LEFT)
    web.check()
    assert set(web.proxy.statuses) == {200}
    assert [len(post.body.splitlines()) for post in web.proxy.posts] == [10, 10, 5, 5]


def test_a_batch_that_is_too_large_all_the_same_is_split(web: Web) -> None:
    web.open()
    web.proxy.refuse = lambda body: (413, "") if len(body.splitlines()) > 3 else None
    web.track(20)
    web.flush()
    web.check()
    assert web.told() == web.tracked


@pytest.mark.parametrize("settings", [{"ALLOWED_ORIGINS": "https://shop.example"}], ids=["list"])
def test_a_page_of_an_origin_that_is_not_wanted_gives_up(web: Web) -> None:
    web.open()
    web.track(3)
    web.flush()
    assert web.stats() == {"accepted": 0, "rejected": 3, "dropped": 0, "queued": 0}
    assert web.run("return estat.track({late: true}) === undefined")
    web.flush()
    assert web.proxy.statuses == [403]
    web.tracked.clear()
    web.check()


def test_a_refusal_for_good_is_counted_and_not_repeated(web: Web) -> None:
    statuses = (400, 401, 413, 415)
    web.open()
    for status in statuses:
        web.refuse(status)
        web.track()
        web.tracked.pop()
        web.flush()
        web.heal()
        web.track()
        web.flush()
    assert web.proxy.statuses == [each for status in statuses for each in (status, 202)]
    assert web.stats() == {"accepted": 4, "rejected": 4, "dropped": 0, "queued": 0}
    web.check()


def test_what_a_beacon_has_no_room_for_is_sent_by_the_next_page(web: Web) -> None:
    web.open()
    web.track(20, padding=10_000)
    web.open(LEFT)
    web.open()
    web.check()
    assert max(len(post.body) for post in web.proxy.posts) <= 60_000


def test_beyond_what_may_be_kept_the_oldest_are_dropped_and_counted(web: Web) -> None:
    web.hold_back(100)
    web.track(1990)
    web.flush()
    assert web.stats()["dropped"] == 90
    assert web.stats()["queued"] == 2000
    del web.tracked[:90]
    web.heal()
    web.next_turn()
    web.waits_for_idle()
    web.check()


def test_what_is_no_event_is_counted_and_never_an_error(web: Web) -> None:
    web.open()
    for event in ("null", "1", "'a'", "[{}]", "{a: 1n}", "(x = {}, x.x = x)"):
        assert web.run(f"let x; return estat.track({event}) === undefined"), event
    web.flush()
    assert web.stats() == {"accepted": 0, "rejected": 6, "dropped": 0, "queued": 0}
    assert web.proxy.posts == []


def test_a_page_without_storage_sends_its_events(web: Web) -> None:
    forbid = (
        "<script>Object.defineProperty(window, 'localStorage',"
        " {get() { throw new DOMException('no', 'SecurityError') }})</script>"
    )
    web.site.pages["/"] = forbid + web.page()
    web.open()
    web.track(5)
    web.flush()
    assert web.stats()["accepted"] == 5
    web.open(LEFT)
    web.check()


# --- privacy


def test_a_visitors_wish_counts_where_the_page_says_so(web: Web) -> None:
    for name, value in (("doNotTrack", "'1'"), ("globalPrivacyControl", "true")):
        wish = f"<script>Object.defineProperty(navigator, '{name}', {{value: {value}}})</script>"
        for option in ("data-respect-dnt", ""):
            posts = len(web.proxy.posts)
            web.site.pages["/"] = wish + web.page(f"data-auto {option}")
            web.open()
            tracked = web.run("return estat.track({}) !== undefined")
            web.flush()
            wanted = not option
            assert tracked == wanted, name
            assert len(web.proxy.posts) - posts == wanted, name
            assert len(web.kept()) == wanted  # what it was told
            web.run("localStorage.clear()")
