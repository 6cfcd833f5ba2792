"""Real browsers on real pages: Chromium, Firefox and WebKit behind one interface, and a web site.

A tab shows one page after the other. Where Selenium drives it is a window: WebKit's small browser
opens tabs hidden.
"""

import json
import os
import random
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.remote.client_config import ClientConfig
from selenium.webdriver.remote.remote_connection import RemoteConnection
from selenium.webdriver.remote.webdriver import WebDriver
from websocket import WebSocket, create_connection

from tests.support.eventually import eventually
from tests.support.s3 import listens, running
from tests.support.server import free_port
from tests.support.threads import Serving

#: What each of them needs.
PROGRAMS = {
    "chromium": ("/usr/bin/chromium", "/usr/bin/chromedriver"),
    "firefox": ("firefox-esr",),
    "webkit": ("WebKitWebDriver", "Xvfb"),
}
_START_SECONDS = 60
_ANSWER_SECONDS = 60

_CHROMIUM_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    # its shared memory does not fit what containers give
    "--disable-dev-shm-usage --window-size=1200,800"
)


class Tab(Protocol):
    """A tab of a browser."""

    def open(self, url: str) -> None:
        """Go to a page and wait until it is loaded."""

    def back(self) -> None:
        """Go back to the page before."""

    def run(self, script: str, *arguments: object) -> Any:
        """Run the body of an async function in the page, and return what it returns."""

    def hide(self) -> None:
        """Have the page be hidden."""

    def close(self) -> None:
        """Close the tab, as a person does."""


class Browser(Protocol):
    """A browser that runs."""

    def new_tab(self) -> Tab:
        """Open a tab; its pages are visible."""

    def close_tabs(self) -> None:
        """Close the tabs that were opened."""


def available(name: str) -> bool:
    return all(map(shutil.which, PROGRAMS[name]))


@contextmanager
def start(name: str, home: Path) -> Iterator[Browser]:
    """Run a browser with an empty directory as its home."""
    starter = {"chromium": _chromium, "firefox": _firefox, "webkit": _webkit}[name]
    with starter(home) as browser:
        yield browser


# --- those that have a driver


class Driven:
    """A browser that Selenium drives."""

    def __init__(self, driver: WebDriver) -> None:
        self.driver = driver
        self._first = driver.current_window_handle

    def new_tab(self) -> "_DrivenTab":
        self.driver.switch_to.window(self._first)
        self.driver.switch_to.new_window("window")
        return _DrivenTab(self.driver)

    def close_tabs(self) -> None:
        for handle in set(self.driver.window_handles) - {self._first}:
            self.driver.switch_to.window(handle)
            self.driver.close()


class _DrivenTab:
    def __init__(self, driver: WebDriver) -> None:
        self._driver, self._handle = driver, driver.current_window_handle

    def _used(self) -> WebDriver:
        self._driver.switch_to.window(self._handle)
        return self._driver

    def open(self, url: str) -> None:
        self._used().get(url)

    def back(self) -> None:
        self._used().back()

    def run(self, script: str, *arguments: object) -> Any:
        function = f"return (async function () {{ {script} }}).apply(null, arguments)"
        return self._used().execute_script(function, *arguments)

    def hide(self) -> None:
        self._used().minimize_window()

    def close(self) -> None:
        self._used().close()


@contextmanager
def _chromium(home: Path) -> Iterator[Driven]:
    options = webdriver.ChromeOptions()
    options.binary_location, driver = PROGRAMS["chromium"]
    for flag in (*_CHROMIUM_FLAGS.split(), f"--user-data-dir={home}"):
        options.add_argument(flag)
    with webdriver.Chrome(options=options, service=Service(driver)) as running_driver:
        running_driver.set_script_timeout(_ANSWER_SECONDS)
        yield Driven(running_driver)


@contextmanager
def _webkit(home: Path) -> Iterator[Driven]:
    """Run WebKit's own small browser, on a screen of its own; it knows no headless mode."""
    port = free_port()
    with ExitStack() as programs:

        def begin(*command: str, **environ: str) -> Path:
            log = home / f"{command[0]}.log"
            output = programs.enter_context(log.open("wb"))
            programs.enter_context(running([*command], output, _environ(home) | environ))
            return log

        display = _told(begin("Xvfb", "-displayfd", "1"), r"^(\d+)\n")
        begin("WebKitWebDriver", f"--port={port}", DISPLAY=f":{display}")
        eventually(lambda: listens(port), _START_SECONDS, "WebKit's driver listens")
        connection = RemoteConnection(client_config=ClientConfig(f"http://127.0.0.1:{port}"))
        with webdriver.Remote(connection, options=webdriver.WebKitGTKOptions()) as driver:
            driver.set_script_timeout(_ANSWER_SECONDS)
            yield Driven(driver)


# --- Firefox, which speaks WebDriver BiDi itself


class Firefox:
    """A Firefox at the other end of a WebSocket."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._calls = 0
        self.call("session.new", capabilities={})
        (self._first,) = self._tabs()

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Have a command done, and return its result."""
        self._calls += 1
        call = {"id": self._calls, "method": method, "params": parameters}
        self._socket.send(json.dumps(call))
        answer: dict[str, Any] = {"id": 0}
        while answer["id"] != self._calls:  # one may be late that a test before did not wait for
            answer = json.loads(self._socket.recv())
        assert answer["type"] == "success", (call, answer)
        result: dict[str, Any] = answer["result"]
        return result

    def new_tab(self) -> "_FirefoxTab":
        return _FirefoxTab(self, self.call("browsingContext.create", type="tab")["context"])

    def close_tabs(self) -> None:
        for context in self._tabs() - {self._first}:
            self.call("browsingContext.close", context=context)

    def _tabs(self) -> set[str]:
        tree = self.call("browsingContext.getTree", maxDepth=0)
        return {context["context"] for context in tree["contexts"]}


class _FirefoxTab:
    def __init__(self, browser: Firefox, context: str) -> None:
        self._browser, self._call, self._context = browser, browser.call, context

    def open(self, url: str) -> None:
        self._call("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def back(self) -> None:
        self._call("browsingContext.traverseHistory", context=self._context, delta=-1)

    def run(self, script: str, *arguments: object) -> Any:
        # as JSON both ways: the protocol has a form of its own for values
        function = (
            f"async (json) => JSON.stringify(await (async function () {{ {script} }})"
            ".apply(null, JSON.parse(json)))"
        )
        answer = self._call(
            "script.callFunction",
            functionDeclaration=function,
            arguments=[{"type": "string", "value": json.dumps(arguments)}],
            awaitPromise=True,
            target={"context": self._context},
        )
        assert answer["type"] == "success", answer
        return json.loads(answer["result"].get("value", "null"))

    def hide(self) -> None:
        self._browser.new_tab()

    def close(self) -> None:
        self._call("browsingContext.close", context=self._context)


@contextmanager
def _firefox(home: Path) -> Iterator[Firefox]:
    log = home / "firefox.log"
    command = ["firefox-esr", "--headless", "--profile", str(home), "--remote-debugging-port=0"]
    with log.open("wb") as output, running(command, output, _environ(home)):
        url = _told(log, r"BiDi listening on (\S+)\n")
        # it takes no connection that names an origin, as those of pages do
        socket = create_connection(f"{url}/session", timeout=_ANSWER_SECONDS, suppress_origin=True)
        with closing(socket):
            browser = Firefox(socket)
            yield browser
            browser.call("browser.close")


def _environ(home: Path) -> dict[str, str]:
    """Return an environment whose home belongs to who runs this: Firefox takes no other."""
    return {"PATH": os.environ["PATH"], "HOME": str(home)}


def _told(log: Path, pattern: str) -> str:
    """Wait for what a program says about itself as it starts."""
    found = eventually(
        lambda: re.search(pattern, log.read_text(), re.MULTILINE),
        _START_SECONDS,
        f"{log.stem} has started",
        last_words=log.read_text,
    )
    return found[1]


class Site(Serving):
    """A web site in a thread of the test: ``pages`` are its bodies by path.

    It has an address of its own, so that no page finds what another test's has kept.
    """

    def __init__(self) -> None:
        self.pages: dict[str, str] = {}
        pages = self.pages

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page = pages.get(self.path.partition("?")[0])
                data = f"<!doctype html><title>A page</title>{page}".encode()
                self.send_response(404 if page is None else 200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        address = ".".join(["127", *(str(random.randint(1, 254)) for _ in range(3))])
        server = ThreadingHTTPServer((address, 0), Handler)
        server.daemon_threads = True
        super().__init__(server)
