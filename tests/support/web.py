"""Pages with the browser client: what they do, what they are told, and what is stored of it."""

import json
from collections import Counter
from typing import Any

import pytest

from tests.support.browser import Browser, Firefox, Site, Tab
from tests.support.eventually import eventually
from tests.support.interposed import Interposed
from tests.support.server import Server

SOON_SECONDS = 30
LEFT = "/left"

#: Lets so much time pass that a page that did nothing meanwhile counts as gone.
LATER = "{ const now = Date.now; Date.now = () => now.call(Date) + 600000 }"

#: Lets no time pass for the client: what waits is sent because of what happens to the page.
STILL = "<script>window.setTimeout = () => 0</script>"

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
        self.tracked: list[str] = []
        site.pages |= {LEFT: "", "/": self.page()}

    def page(self, attributes: str = "", url: str = "", before: str = "") -> str:
        source = f"{url or self.proxy.url}/estat.js"
        return f"{NOTES}{before}<script src='{source}' {attributes}></script>"

    def new_tab(self) -> Tab:
        """Go on in a new tab, which hides the one before; return that one."""
        before, self.tab = self.tab, self._browser.new_tab()
        return before

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
        assert set(self.proxy.statuses) == {503}
        self.open(LEFT)
        self.heal()

    def leave(self) -> None:
        self.run("window.back = false; addEventListener('pageshow', () => { window.back = true })")
        self.open(LEFT)

    def come_back(self) -> None:
        """Have the page back that was left, as the browser has kept it."""
        self.tab.back()
        back = eventually(  # Firefox says that it is done before it shows the page
            lambda: self.run("return location.pathname === '/' && (window.back ?? 'anew')"),
            SOON_SECONDS,
            "the page is back",
            last_words=lambda: self.run("return [location.href, typeof window.back]"),
        )
        if back == "anew" and isinstance(self._browser, Firefox):
            pytest.skip("Firefox has not kept the page; it loads one of thirty anew")
        assert back is True, "the browser has loaded the page anew"

    def next_turn(self) -> None:
        """Let the client try again at once."""
        self.run(NETWORK, True)

    def check_refused(self, times: int) -> None:
        eventually(
            lambda: len(self.proxy.statuses) - self.proxy.statuses.count(202) >= times,
            SOON_SECONDS,
            "requests were refused",
        )
