"""What pages of another origin send without the client, in every way that browsers know."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import Browser, Site, Tab
from tests.support.server import Server

#: What ``sendBeacon`` is given.
BEACONS = {
    "a beacon of text": "url, event",
    "a beacon of JSON": "url, new Blob([event], {type: 'application/json'})",
    "a beacon without a type": "url, new TextEncoder().encode(event)",
    "a beacon of a form": "url, new URLSearchParams({way})",
    "a beacon of a URL": "withQuery",
}

#: What ``fetch`` is told besides, in a page that hears the answer.
JSON = "headers: {'Content-Type': 'application/json'}"
TRACED = """headers: {
    'Content-Type': 'application/json', traceparent: '00-1-1-01', tracestate: 'a=1', baggage: 'a=b',
    'sentry-trace': '1-1', 'X-B3-TraceId': '1', 'x-datadog-origin': 'rum'}"""
FETCHES = {
    "a fetch of text": "",
    "a fetch with credentials": "credentials: 'include'",
    "a fetch without credentials": "credentials: 'omit'",
    "a fetch of JSON": JSON,
    "a fetch of JSON with credentials": f"credentials: 'include', {JSON}",
    "a fetch with tracing fields": TRACED,
    "a fetch with tracing fields and credentials": f"credentials: 'include', {TRACED}",
}

#: Each is a script, and what the page gets to know when all is well.
WAYS: dict[str, tuple[str, object]] = {
    **{way: (f"navigator.sendBeacon({given})", True) for way, given in BEACONS.items()},
    **{
        way: (f"(await fetch(url, {{method: 'POST', keepalive, body: event, {told}}})).status", 202)
        for way, told in FETCHES.items()
    },
    "a fetch that hears nothing": (
        "(await fetch(url, {method: 'POST', keepalive, body: event, mode: 'no-cors'})).type",
        "opaque",
    ),
    "a fetch of the query": ("(await fetch(withQuery, {keepalive})).status", 204),
    "a request with credentials": (
        """await new Promise((told) => {
            const request = new XMLHttpRequest();
            request.open('POST', url);
            request.withCredentials = true;
            request.onloadend = () => told(request.status);
            request.send(event);
        })""",
        202,
    ),
    "a pixel": (
        """await new Promise((told) => {
            const image = new Image();
            image.onload = () => told(image.width);
            image.onerror = () => told('error');
            image.src = withQuery.replace('?', '.gif?');
        })""",
        1,
    ),
    "a form": (
        """await new Promise((told) => {
            document.body.innerHTML = `<iframe name=answer></iframe>
                <form method=post target=answer action="${url}"><input name=way value="${way}">`;
            document.forms[0].submit();
            told('submitted');
        })""",
        "submitted",
    ),
}

#: What the page can read the answer to, or could with a fetch of the same kind.
READING = {*FETCHES, "a fetch of the query", "a request with credentials", "a beacon of JSON"}

#: What goes on when its page has ended.
OUTLIVING = {*BEACONS, *FETCHES, "a fetch that hears nothing", "a fetch of the query", "a pixel"}

NAMES = """
    const [url, way, keepalive] = arguments;
    const event = JSON.stringify({way});
    const withQuery = `${url}?way=${encodeURIComponent(way)}`;
"""


@pytest.fixture
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    settings: dict[str, str] = getattr(request, "param", {})
    with Server(tmp_path, {"RAW_BUCKET": "file:data"} | settings) as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Tab]:
    with Site() as site:
        site.pages["/"] = "<body>"
        tab = browser.new_tab()
        tab.open(site.url + "/")
        yield tab
        browser.close_tabs()


def told(page: Tab, server: Server) -> dict[str, Any]:
    """Send an event in each way, and return what the page gets to know."""
    return {
        way: page.run(f"{NAMES} return {script}", f"{server.url}/collect", way, False)
        for way, (script, _) in WAYS.items()
    }


def stored(server: Server, count: int) -> Counter[str]:
    """Wait until so many events are stored, and return the ways in which they came."""
    server.until(lambda: len(server.stored()) >= count, "all is stored")
    return Counter(line["body"]["way"] for line in server.stored())


def test_all_ways_are_open_to_pages_of_every_origin(page: Tab, server: Server) -> None:
    assert told(page, server) == {way: outcome for way, (_, outcome) in WAYS.items()}
    assert stored(server, len(WAYS)) == Counter(WAYS.keys())


@pytest.mark.parametrize(
    "server", [{"ALLOWED_ORIGINS": "https://shop.example"}], indirect=True, ids=["list"]
)
def test_a_page_that_is_not_listed_hears_of_it_where_it_can(page: Tab, server: Server) -> None:
    heard = dict.fromkeys(READING, 403) | {"a beacon of JSON": True}
    assert told(page, server) == {way: outcome for way, (_, outcome) in WAYS.items()} | heard
    assert stored(server, len(WAYS) - len(READING)) == Counter(WAYS.keys() - READING)


def test_what_a_page_sends_as_it_ends_arrives(page: Tab, server: Server) -> None:
    for way in OUTLIVING:
        page.run(
            f"const given = arguments; addEventListener('pagehide', () =>"
            f" (async function () {{ {NAMES} {WAYS[way][0]} }}).apply(null, given))",
            f"{server.url}/collect",
            way,
            True,
        )
    page.open("about:blank")
    assert stored(server, len(OUTLIVING)) == Counter(OUTLIVING)
