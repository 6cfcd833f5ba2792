"""SDKs of web pages and of Node, unmodified, with the lines of docs/senders.md.

Pages and server are of two sites, and speak TLS: browsers send reports to nothing else.
"""

import json
import shutil
import ssl
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from http.client import HTTPMessage
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from selenium import webdriver

from tests.conftest import need
from tests.senders.documented import PAGE, SENDERS
from tests.support.eventually import eventually
from tests.support.interposed import Interposed, Seen
from tests.support.page import blocks
from tests.support.server import ROOT, Server

SENDERS_DIR = ROOT / "build/senders"
ESBUILD = SENDERS_DIR / "node_modules/@esbuild/linux-x64/bin/esbuild"

pytestmark = pytest.mark.skipif(not ESBUILD.exists(), reason="make test-senders")

SOON_SECONDS = 60
EXAMPLE = "events.example.com"
KEYS = {"WRITE_KEYS": "senders:KEY"}
OTEL = "@opentelemetry/exporter-trace-otlp-http"
SENTRY = "@sentry/browser"


class Use(NamedTuple):
    """What a program does with an SDK: before all, with the event ``n``, at the end."""

    event: str
    before: str = ""
    end: str = ""

    def program(self, lines: str, names: list[str]) -> str:
        return f"{lines}\n{self.before}\nfor (const n of {names}) {{ {self.event} }}\n{self.end}"


def provider(kind: str, package: str) -> str:
    """Return what makes spans and gives them to an exporter."""
    return (
        f"import {{{kind}, SimpleSpanProcessor}} from '@opentelemetry/{package}'\n"
        f"const provider = new {kind}({{spanProcessors: [new SimpleSpanProcessor(exporter)]}})"
    )


IN_PAGES = {
    "@snowplow/browser-tracker": Use(
        "trackStructEvent({category: 'shop', action: n})",
        "import {trackStructEvent} from '@snowplow/browser-tracker'",
    ),
    "@segment/analytics-next": Use("analytics.track(n)"),
    SENTRY: Use("Sentry.captureMessage(n)"),
    OTEL: Use(
        "provider.getTracer('shop').startSpan(n).end()",
        provider("WebTracerProvider", "sdk-trace-web"),
    ),
    "posthog-js": Use(
        "posthog.capture(n)",
        "posthog.set_config({opt_out_useragent_filter: true})  // else a test is a bot to it",
    ),
}

#: Those that send beacons, and so hear nothing and send nothing again.
BEACONS = {"@amplitude/analytics-browser": Use("amplitude.track(n)")}

IN_NODE = {
    "@segment/analytics-node": Use(
        "analytics.track({userId: 'u1', event: n})", end="await analytics.closeAndFlush()"
    ),
    OTEL: Use(
        "provider.getTracer('shop').startSpan(n).end()",
        provider("BasicTracerProvider", "sdk-trace-base"),
        "await provider.shutdown()",
    ),
}

#: What adds a field to each fetch, by the field.
TRACING: dict[str, Callable[["Web"], str]] = {
    "sentry-trace": lambda web: web.lines(SENTRY).replace(
        "tracesSampleRate", "tracePropagationTargets: [/./], tracesSampleRate"
    ),
    "traceparent": lambda web: (
        f"{web.lines(OTEL)}\n{IN_PAGES[OTEL].before}\n"
        "import {FetchInstrumentation} from '@opentelemetry/instrumentation-fetch'\n"
        "provider.register()\n"
        "new FetchInstrumentation({propagateTraceHeaderCorsUrls: /./}).enable()"
    ),
}


def _lines(name: str) -> list[str]:
    return [block.code for block in blocks(PAGE) if block.section == name]


class Encrypted(Interposed):
    """The server behind TLS."""

    host = "localhost"

    def __init__(self, upstream_port: int, certificate: Path) -> None:
        super().__init__(upstream_port)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )

    @property
    def url(self) -> str:
        return f"https://{self.host}:{self._server.server_address[1]}"


class Shop(Encrypted):
    """A web site of its own: its pages by path, with their header fields."""

    host = "127.0.0.1"

    def __init__(self, certificate: Path) -> None:
        super().__init__(0, certificate)
        self.pages: dict[str, tuple[str, dict[str, str]]] = {}

    def ask(
        self, method: str, path: str, headers: HTTPMessage, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        text, fields = self.pages.get(path, ("", {}))
        kind = "text/javascript" if path.endswith(".js") else "text/html"
        return 200, {"Content-Type": f"{kind}; charset=utf-8", **fields}, text.encode()


class Web:
    """A page in a browser, and the server that it sends to."""

    def __init__(
        self, driver: webdriver.Chrome, server: Server, front: Encrypted, shop: Shop
    ) -> None:
        self.driver, self.server, self.front, self.shop = driver, server, front, shop

    def lines(self, name: str, number: int = 0) -> str:
        """Return the lines that configure a sender, for this server."""
        return _lines(name)[number].replace(EXAMPLE, self.front.url.removeprefix("https://"))

    def open(self, program: str, fields: dict[str, str] | None = None) -> None:
        """Show a page that has /estat.js and a program."""
        bundled = subprocess.run(
            [ESBUILD, "--bundle", "--log-level=warning"],
            input=program,
            cwd=SENDERS_DIR,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout
        client = f"<script src={self.front.url}/estat.js data-key=KEY></script>"
        page = (
            f"<!doctype html><title>A page</title><p>Text{client}<script src=/program.js></script>"
        )
        self.shop.pages |= {"/": (page, fields or {}), "/program.js": (bundled, {})}
        self.driver.get(self.shop.url)

    def leave(self) -> None:
        """Go to another page; what was sent on the way there has arrived."""
        self.driver.get(f"{self.shop.url}/left")
        url = f"{self.front.url}/collect?key=KEY"
        self.run("await fetch(arguments[0], {method: 'POST', body: '{}'})", url)

    def run(self, script: str, *arguments: object) -> Any:
        """Run the body of an async function in the page, and return what it returns."""
        return self.driver.execute_async_script(
            f"(async () => {{ {script} }})().then(arguments[arguments.length - 1])", *arguments
        )

    def bodies(self) -> list[dict[str, Any]]:
        """Return all events, without that of ``leave``."""
        return [line["body"] for line in self.server.stored() if line["body"]]

    def must_store(self, names: list[str], found: Callable[[], Counter[str]]) -> None:
        """Wait until all is stored, and look again behind what is sent as the page ends."""

        def told() -> tuple[Counter[str], list[Seen], object]:
            return found(), self.front.seen, self.driver.get_log("browser")

        eventually(
            lambda: found() >= Counter(names), SOON_SECONDS, "all is stored", last_words=told
        )
        self.leave()
        assert found() == Counter(names)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need(shutil.which("openssl"), "openssl")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=a"
    )
    subprocess.run(
        [*command.split(), "-keyout", path, "-out", path], check=True, capture_output=True
    )
    return path


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """One Chromium, which sends reports within a second, and whose SDKs can't call home."""
    need(shutil.which("chromium") and shutil.which("chromedriver"), "Chromium and its driver")
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in (
        "headless",
        "no-sandbox",
        "disable-dev-shm-usage",
        "ignore-certificate-errors",
        "short-reporting-delay",
        "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
        f"user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(f"--{flag}")
    with webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver")) as running:
        running.set_script_timeout(SOON_SECONDS)
        yield running


@pytest.fixture
def environ(request: pytest.FixtureRequest) -> dict[str, str]:
    return getattr(request, "param", KEYS)


@pytest.fixture
def server(tmp_path: Path, environ: dict[str, str]) -> Iterator[Server]:
    with Server(tmp_path, {"RAW_BUCKET": f"file:{tmp_path / 'store'}", **environ}) as running:
        yield running


@pytest.fixture
def web(driver: webdriver.Chrome, server: Server, certificate: Path) -> Iterator[Web]:
    with Encrypted(server.port, certificate) as front, Shop(certificate) as shop:
        yield Web(driver, server, front, shop)
        driver.get("about:blank")
        driver.get_log("browser")


def each(uses: dict[str, Use]) -> pytest.MarkDecorator:
    """Run a test with each sender, and with the settings that it needs."""
    pairs = [(name, SENDERS[name].environ) for name in uses]
    return pytest.mark.parametrize(("name", "environ"), pairs, indirect=["environ"], ids=uses)


@each(IN_PAGES | BEACONS)
def test_what_a_page_sends_is_stored_once(name: str, web: Web) -> None:
    names = [f"{name}-{i}" for i in range(5)]
    web.open((IN_PAGES | BEACONS)[name].program(web.lines(name), names))
    web.must_store(names, lambda: SENDERS[name].found(web.server.stored(), name))


@each({name: IN_PAGES[name] for name in IN_PAGES if name != SENTRY})  # which sends nothing again
def test_what_was_refused_for_now_is_sent_again_and_stored_once(name: str, web: Web) -> None:
    names = [f"{name}-{i}" for i in range(6)]
    web.front.refuse = lambda _: (503, "1")
    use = IN_PAGES[name]
    web.open(use.program(web.lines(name), names[:5]) + f"window.track = (n) => {use.event}")
    eventually(lambda: 503 in web.front.statuses, SOON_SECONDS, "events were refused")
    web.front.refuse = lambda _: None
    web.run("track(arguments[0])", names[5])  # with which some send what they hold
    web.must_store(names, lambda: SENDERS[name].found(web.server.stored(), name))


@pytest.mark.parametrize("name", IN_PAGES)
@pytest.mark.parametrize("environ", [{"WRITE_KEYS": "another"}], indirect=True)
def test_a_page_is_told_that_its_events_are_refused(name: str, web: Web) -> None:
    web.open(IN_PAGES[name].program(web.lines(name), [name]))
    said = eventually(lambda: web.driver.get_log("browser"), SOON_SECONDS, "the page was told")
    assert all("401" in line["message"] for line in said), said
    assert web.server.metrics()["events_accepted_total"] == 0


@each(IN_NODE)
def test_what_node_sends_is_stored_once(name: str, server: Server) -> None:
    need(shutil.which("node"), "node")
    names = [f"{name}-{i}" for i in range(5)]
    lines = _lines(name)[0].replace(f"https://{EXAMPLE}", server.url)
    program = IN_NODE[name].program(lines, names)
    node = ["node", "--input-type=module"]
    subprocess.run(node, input=program, cwd=SENDERS_DIR, check=True, text=True)
    assert SENDERS[name].found(server.stored(), name) == Counter(names)


def test_what_snowplow_sends_by_get_is_stored_once(web: Web) -> None:
    name = "@snowplow/browser-tracker"
    web.open(IN_PAGES[name].program(web.lines(name, 1), ["one", "two"]))
    web.must_store(["one", "two"], lambda: Counter(b["se_ac"] for b in web.bodies()))


def test_web_vitals_of_a_page_that_ends_are_stored_once(web: Web) -> None:
    note = """
        const beacon = navigator.sendBeacon
        navigator.sendBeacon = function (url, body) {
          localStorage.sent = (localStorage.sent || '') + JSON.parse(body).id + ' '
          return beacon.call(navigator, url, body)
        }
    """
    web.open(note + web.lines("web-vitals"))
    web.leave()
    sent = web.run("return localStorage.sent").split()

    def found() -> dict[str, str]:
        return {body["id"]: body["name"] for body in web.bodies()}

    eventually(lambda: set(found()) >= set(sent), SOON_SECONDS, "all is stored", last_words=found)
    assert set(found().values()) >= {"TTFB", "FCP", "LCP", "CLS"}
    assert Counter(body["id"] for body in web.bodies()) == Counter(sent)


def break_policy(web: Web, without: str = "") -> None:
    """Show a page that does what its policy forbids, and what is deprecated."""
    lines = web.lines("Chromium's reports").replace(without, "").splitlines()
    program = """
        for (const n of ['one', 'two']) new Image().src = 'https://blocked.example/' + n
        const request = new XMLHttpRequest()
        request.open('GET', '/', false)
        request.send()
    """
    web.open(program, dict(line.split(": ", 1) for line in lines))


FORBIDDEN = ["https://blocked.example/one", "https://blocked.example/two"]


def test_reports_to_an_endpoint_are_stored_once(web: Web) -> None:
    break_policy(web)

    def found() -> Counter[str]:
        reports = [body["body"] for body in web.bodies()]
        return Counter(report.get("blockedURL") or report["id"] for report in reports)

    web.must_store([*FORBIDDEN, "XMLHttpRequestSynchronousInNonWorkerOutsideBeforeUnload"], found)


def test_reports_to_an_address_are_stored_once(web: Web) -> None:
    break_policy(web, "report-to default; ")

    def found() -> Counter[str]:
        reports = [body["csp-report"] for body in web.bodies() if "csp-report" in body]
        return Counter(report["blocked-uri"] for report in reports)

    web.must_store(FORBIDDEN, found)


# --- the browser client beside what instruments fetch


@pytest.mark.parametrize("added", [*((field,) for field in TRACING), tuple(TRACING)], ids="+".join)
def test_the_client_works_beside_tracing_libraries(added: tuple[str, ...], web: Web) -> None:
    web.open("\n".join(TRACING[field](web) for field in added))
    tracked = web.run(
        "const ids = [1, 2, 3].map((n) => estat.track({n})); await estat.flush(); return ids"
    )
    stats = web.run("return estat.stats()")
    assert stats == {"accepted": 3, "rejected": 0, "dropped": 0, "queued": 0}
    (post,) = [post for post in web.front.posts if post.path == "/collect?key=KEY"]
    assert set(added) <= {field.lower() for field in post.headers}
    tracked.append(web.run("return estat.track({n: 4})"))
    web.leave()
    found = Counter(body["event_id"] for body in web.bodies() if "client_ts" in body)
    assert found == Counter(tracked)


@pytest.mark.parametrize("environ", [{"ALLOWED_ORIGINS": "https://shop.example"}], indirect=True)
def test_the_client_ends_at_a_403_beside_a_tracing_library(web: Web) -> None:
    web.open(TRACING["sentry-trace"](web))
    web.run("estat.track({}); await estat.flush()")
    assert web.run("return estat.stats().rejected") == 1
    assert web.run("return estat.track({}) === undefined")
    assert 403 in web.front.statuses
    assert "client_ts" not in json.dumps(web.server.stored())


@pytest.mark.parametrize("name", [*IN_PAGES, *BEACONS, *IN_NODE, "web-vitals"])
def test_the_version_is_the_one_that_the_page_names(name: str) -> None:
    wanted = json.loads((ROOT / "tests/senders/npm/package.json").read_text())["devDependencies"]
    assert f"{wanted[name]}.".startswith(f"{SENDERS[name].version}.")
