"""The browser client on real pages of another origin, through outages of every kind.

What is compared: the ids that ``estat.track`` gave to a page's events, the events of which
the page was told that they are accepted, and what is in the store.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.browser import Browser, Firefox, Site
from tests.support.eventually import eventually
from tests.support.interposed import Interposed
from tests.support.server import Server
from tests.support.web import LATER, LEFT, NETWORK, SOON_SECONDS, STILL, Web


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
        yield Web(browser, site, server, proxy)
        browser.close_tabs()


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


def test_a_page_that_ends_sends_what_waits_as_a_beacon(web: Web) -> None:
    web.site.pages["/"] = web.page(before=STILL)
    web.open()
    web.track(20)
    web.open(LEFT)
    web.check()
    assert [post.headers["Sec-Fetch-Mode"] for post in web.proxy.posts] == ["no-cors"]
    assert web.kept() == [], "nothing is left behind"


def test_what_waits_in_a_tab_that_is_closed_is_sent_then_or_by_the_next_page(
    browser: Browser, web: Web
) -> None:
    web.site.pages["/"] = web.page(before=STILL)
    web.site.pages["/later"] = f"<script>{LATER}</script>{web.page()}"
    web.open(LEFT)
    for _ in range(5):
        before = web.new_tab()
        web.open()
        web.track()
        web.tab.close()
        web.tab = before
    if not isinstance(browser, Firefox):  # which does not always let a page finish
        web.check()
        assert {post.headers["Sec-Fetch-Mode"] for post in web.proxy.posts} == {"no-cors"}
        assert web.kept() == [], "nothing is left behind"
    web.open("/later")
    eventually(lambda: set(web.stored()) == set(web.tracked), SOON_SECONDS, "all is stored")


def test_a_hidden_page_sends_at_once_and_hears_the_answer(web: Web) -> None:
    web.site.pages["/"] = web.page(before=STILL)
    web.open()
    web.track(5)
    web.tab.hide()
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


@pytest.mark.parametrize("settings", [{"RECEIPTS": "true"}], ids=["receipts"])
def test_a_page_is_told_the_ids_of_its_events(web: Web) -> None:
    note = "<script>addEventListener('estat', ({detail}) => (window.ids = detail.ids))</script>"
    web.site.pages["/"] = web.page(before=note)
    web.open()
    web.track(3)
    web.flush()
    ids = {line["body"]["event_id"]: line["id"] for line in web.server.stored()}
    assert web.run("return ids") == [ids[web.tracked[0]], ids[web.tracked[-1]]]


# --- outages


def test_a_page_that_ends_offline_leaves_its_events_to_the_next(web: Web) -> None:
    web.site.pages["/still"] = web.page(before=STILL)
    web.open("/still")
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
    web.site.pages["/"] = web.page(before=STILL)  # so that it happens when the network is back
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


def test_what_a_page_could_not_send_is_sent_by_one_of_the_next_pages(web: Web) -> None:
    web.leave_behind(30)
    assert web.stored() == [], "no beacon was sent into the outage"
    tabs = [web.new_tab() for _ in range(4)]
    for tab in tabs:
        tab.open(web.site.url + LEFT)
    for tab in tabs:
        tab.run("location = '/'")
    web.open()
    web.check()
    eventually(lambda: sorted(web.told()) == sorted(web.tracked), SOON_SECONDS, "a page was told")
    eventually(lambda: web.kept() == ["told"], SOON_SECONDS, "nothing is left behind")


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


def test_a_page_that_comes_back_goes_on_with_what_it_could_not_send(web: Web) -> None:
    web.open()
    web.track(3)
    web.leave()
    web.check()
    web.come_back()
    web.refuse(503, retry_after="86400")
    web.track(3)
    web.flush()
    web.leave()
    web.come_back()
    web.heal()
    web.next_turn()
    web.check()
    assert web.proxy.statuses == [202, 503, 202]


def test_a_page_that_comes_back_leaves_what_was_taken_to_the_one_that_took_it(web: Web) -> None:
    web.hold_back(3)
    web.leave()
    web.heal()
    left = web.new_tab()
    web.open()
    eventually(lambda: len(web.told()) == 3, SOON_SECONDS, "another page has sent it")
    web.tab = left
    web.come_back()
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
