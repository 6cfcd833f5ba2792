"""Every line of the log: one object, short, without secrets, and not too many of a kind."""

import io
import json
import logging
import subprocess
import sys
import threading
import warnings
from types import SimpleNamespace

import pytest

from estat import log


class Log:
    """What one process logs."""

    def __init__(self, form):
        self.stream = io.StringIO()
        log.configure("info", form, self.stream)

    @property
    def text(self):
        return self.stream.getvalue()

    @property
    def lines(self):
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def logs(monkeypatch):
    """Begin a log in a form; all is as before afterwards."""
    root = logging.getLogger()
    for where, name in ((sys, "excepthook"), (sys, "unraisablehook"), (sys, "stderr")):
        monkeypatch.setattr(where, name, getattr(where, name))
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(root, "handlers", [])
    level = root.level
    yield Log
    logging.captureWarnings(False)
    root.setLevel(level)


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("name", ["estat.x", "gunicorn.error", "urllib3"])
def test_a_line_holds_no_secret_and_no_control(logs, form, name):
    written = logs(form)
    facts = {"fact": "\x1b]0;x\x07", "deep": {"\u202e": ["key=abcdefgh\n"]}, "bytes": b"\xff\x1b"}
    logging.getLogger(name).warning("at %s", "http://u:abcdefgh@h/\r\n", extra=facts)
    assert "abcdefgh" not in written.text
    assert written.text.endswith("\n")
    assert written.text.rstrip("\n").isprintable()


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_keeps_its_lines_and_no_secret(logs, form):
    written = logs(form)
    try:
        raise ValueError("Authorization: Bearer abcdefgh \x1b[31m" + "x" * 20_000 + " the end")
    except ValueError:
        logging.getLogger("gunicorn.error").exception("Exception in worker process")
    assert "abcdefgh" not in written.text
    assert "the end" in written.text
    assert "\x1b" not in written.text
    assert len(written.text) < 6000
    if form == "json":
        assert len(written.lines[0]["exception"].splitlines()) > 3


def test_each_line_is_one_object_however_much_is_in_it(logs):
    written = logs("json")
    logging.getLogger("a").error("x" * 100_000)
    logging.getLogger("a").error("many", extra={f"fact{i}": "한" * 1000 for i in range(100)})
    logging.getLogger("a").error("odd", extra={"number": float("nan"), "text": "\ud800\udcff"})
    long, many, odd = written.lines
    assert len(long["event"]) < 1100
    assert (many["event"], "fact1" in many) == ("many", False)
    assert odd["number"] == "nan"
    assert max(map(len, written.text.splitlines())) <= 33_000
    written.text.encode("ascii")


def test_what_cannot_be_formatted_is_told_in_a_line_too(logs):
    written = logs("json")
    logging.getLogger("a").error("%d", "no number")
    assert [line["event"] for line in written.lines] == ["line_not_written"]


@pytest.mark.parametrize("name", ["estat.a", "gunicorn.error"])
def test_of_a_kind_so_many_lines_are_told_in_a_minute_and_the_others_counted(
    logs, monkeypatch, name
):
    now = 1000.0
    monkeypatch.setattr(log, "time", SimpleNamespace(monotonic=lambda: now))
    written = logs("json")
    for number in range(101):
        now += 60 * (number == 100)
        event = "an_event" if name == "estat.a" else f"Invalid request {number}"
        logging.getLogger(name).warning(event)
    assert len(written.lines) == 61
    assert [line.get("left_out") for line in written.lines[-2:]] == [None, 40]
    logging.getLogger("estat.b").warning("an_event")
    assert len(written.lines) == 62


def test_what_is_printed_and_warned_of_becomes_lines(logs):
    written = logs("json")
    print("half a line, ", end="", file=sys.stderr)
    assert written.lines == []
    print("and its end\n\nkey=abcdefgh", file=sys.stderr)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("password=abcdefgh", UserWarning, stacklevel=1)
    assert [line.get("text") for line in written.lines[:2]] == [
        "half a line, and its end",
        "key=(hidden)",
    ]
    assert "UserWarning" in written.lines[2]["event"]
    assert "abcdefgh" not in written.text


def test_what_nobody_catches_becomes_one_line_each(logs):
    written = logs("json")

    class Fails:
        def __del__(self):
            raise RuntimeError("in the end")

    thread = threading.Thread(target=lambda: 1 // 0)
    thread.start()
    thread.join()
    Fails()
    sys.excepthook(KeyError, KeyError("key"), None)
    assert [line["event"] for line in written.lines] == ["unexpected_error"] * 3
    exceptions = [line["exception"] for line in written.lines]
    assert "ZeroDivisionError" in exceptions[0]
    assert "in the end" in exceptions[1]


def test_a_process_that_ends_by_an_error_logs_one_line():
    program = (
        "import sys\nfrom estat import log\nlog.configure('info', 'json', sys.stderr)\n"
        "raise SystemError('Bearer: abcdefgh')"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert "abcdefgh" not in run.stderr
    assert json.loads(run.stderr)["event"] == "unexpected_error"
