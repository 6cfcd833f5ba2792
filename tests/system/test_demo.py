"""``estat demo`` as a person uses it: started, clicked at in a browser, stopped with Ctrl-C."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver

from tests.support.browser import Driven
from tests.support.eventually import eventually
from tests.support.lines import gunzip_lines
from tests.support.s3 import listens
from tests.support.server import BIN, free_port

SOON_SECONDS = 30


class Demo:
    """One run of the command, in a directory with settings that it must not use."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.port = free_port()
        self._output = directory / "output"
        (directory / ".env").write_text("RAW_BUCKET=never\nWRITE_KEYS=never\n")
        environ = {"PATH": os.environ["PATH"], "FLUSH_INTERVAL": "1h", "RAW_PREFIX": "never"}
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [BIN / "estat", "demo", "--port", str(self.port), *arguments],
                cwd=directory,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/demo"

    def output(self) -> str:
        return self._output.read_text()

    def ready(self) -> None:
        eventually(lambda: listens(self.port), SOON_SECONDS, "it listens", last_words=self.output)

    def press_ctrl_c(self) -> int:
        os.killpg(self.process.pid, signal.SIGINT)  # as a terminal does
        return self.process.wait(timeout=SOON_SECONDS)

    def end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(timeout=SOON_SECONDS)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    with ExitStack() as running:

        def start(*arguments: str) -> Demo:
            started = Demo(tmp_path, *arguments)
            running.callback(started.end)
            return started

        yield start


@pytest.fixture
def tab(browser: Driven) -> Iterator[WebDriver]:
    opened = browser.new_tab()
    browser.driver.get_log("browser")  # what pages of other tests have said
    yield browser.driver
    opened.close()


def text_in(tab: WebDriver) -> Callable[[str], str]:
    def text(selector: str) -> str:
        # in one step: the page draws itself anew all the time
        found: str | None = tab.execute_script(
            "return document.querySelector(arguments[0])?.textContent", selector
        )
        return found or ""

    return text


in_chromium = pytest.mark.parametrize("browser", ["chromium"], indirect=True)


@in_chromium
def test_a_click_is_seen_to_arrive_and_its_object_appears(
    demo: Callable[..., Demo], tab: WebDriver, tmp_path: Path
) -> None:
    running = demo("--dir", str(tmp_path / "kept"))
    running.ready()
    tab.get(running.url)
    text = text_in(tab)
    tab.find_element(By.ID, "click").click()
    eventually(lambda: text("#events tr .state") == "stored", SOON_SECONDS, "the event is stored")
    eventually(lambda: text("#stored") == "1", SOON_SECONDS, "it is counted")
    assert "1 event," in text("#objects summary")
    tab.find_element(By.CSS_SELECTOR, "#objects summary").click()
    assert '"event":"click"' in text("#objects pre")

    tab.find_element(By.ID, "leave").click()
    tab.find_element(By.CSS_SELECTOR, "a.primary").click()
    eventually(lambda: text("#stored") == "2", SOON_SECONDS, "the beacon's event is stored")
    assert [entry["message"] for entry in tab.get_log("browser")] == []

    tab.find_element(By.ID, "burst").click()
    eventually(lambda: text("#accepted") == "102", SOON_SECONDS, "all are accepted")
    assert running.press_ctrl_c() == 0
    lines = [
        line
        for path in (tmp_path / "kept").rglob("raw/**/*.gz")
        for line in gunzip_lines(path.read_bytes())
    ]
    assert len(lines) == 102
    eventually(lambda: "not answer" in text("#connection"), SOON_SECONDS, "the page says so")


@in_chromium
def test_while_the_store_is_down_the_page_says_so_and_shows_where_events_are(
    demo: Callable[..., Demo], tab: WebDriver, tmp_path: Path
) -> None:
    in_the_way = tmp_path / "kept" / "raw"
    running = demo("--dir", str(tmp_path / "kept"))
    running.ready()
    in_the_way.touch()
    tab.get(running.url)
    text = text_in(tab)
    tab.find_element(By.ID, "click").click()
    eventually(lambda: text("#in_dlq") == "1", SOON_SECONDS, "the event is in the DLQ")
    eventually(lambda: text("#connection") == "the store is down", SOON_SECONDS, "it is told")
    in_the_way.unlink()
    tab.find_element(By.ID, "click").click()
    eventually(lambda: text("#stored") == "2", SOON_SECONDS, "both are stored")
    assert text("#in_dlq") == "0"
    assert "Traceback" not in running.output()


@in_chromium
def test_what_was_stored_is_there_again_at_the_next_start(
    demo: Callable[..., Demo], tab: WebDriver
) -> None:
    first = demo()
    first.ready()
    tab.get(first.url)
    tab.find_element(By.ID, "burst").click()
    rows = "return [...document.querySelectorAll('#events tr')].map((row) => row.title)"

    def stored() -> bool:
        return ["stored as" in row for row in tab.execute_script(rows)] == 12 * [True]

    eventually(stored, SOON_SECONDS, "twelve are shown as stored")
    assert tab.find_element(By.ID, "more").text == "and 88 earlier ones"
    assert first.press_ctrl_c() == 0
    assert "Traceback" not in first.output()
    again = demo()
    again.ready()
    tab.get(again.url)
    eventually(stored, SOON_SECONDS, "they are there again")
