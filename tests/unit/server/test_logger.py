"""gunicorn's own lines quote no request, and keep no address where none is to be kept."""

import errno
import logging

import gevent
import pytest
from gevent.hub import get_hub
from gevent.server import StreamServer

from estat.config import loading
from estat.log import Seldom
from estat.server import inherited, logger
from estat.server.logger import _hide


def logged(monkeypatch, text, mode, level=logging.WARNING):
    settings = loading.load({"RAW_BUCKET": "events", "IP_MODE": mode}, env_file="")
    monkeypatch.setattr(inherited, "settings", lambda: settings)
    record = logging.LogRecord("gunicorn.error", level, "", 0, "%s", (text,), None)
    assert _hide(record)
    return record.getMessage()


@pytest.mark.parametrize(
    "address",
    [
        "203.0.113.7",
        "203.0.113.7:80",
        "2001:db8::7",
        "::1",
        "[2001:DB8::7]:80",
        "x203.0.113.7",
        "2001:db8:0:0:0:0:0:7",
        "::ffff:203.0.113.7",
        "For:2001:db8::7",
    ],
)
def test_a_clients_address_is_hidden(address, monkeypatch):
    line = logged(monkeypatch, f"Invalid request from ip={address}: no", "drop")
    assert "(hidden)" in line
    assert not {"113", "7", "db8", "DB8"} & set(line.replace(":", ".").split("."))


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (
            "Invalid request from ip=203.0.113.7: Invalid HTTP Header: 'X-Write-Key=k'",
            "Invalid request from ip=203.0.113.7: Invalid HTTP Header: (not shown)",
        ),
        (
            "Ignored premature client disconnection. No more data after: b'GET /\nk'",
            "Ignored premature client disconnection. No more data after: (not shown)",
        ),
        ("Connection in use: ('', 8080)", "Connection in use: ('', 8080)"),
    ],
)
def test_what_a_client_sent_is_not_quoted(text, left, monkeypatch):
    assert logged(monkeypatch, text, "full") == left


def test_all_addresses_stay_where_all_is_kept(monkeypatch):
    assert "203.0.113.7" in logged(monkeypatch, "ip=203.0.113.7", "full")


def test_the_servers_own_address_stays(monkeypatch):
    text = "Listening at: http://127.0.0.1:8080"
    assert logged(monkeypatch, text, "drop", logging.INFO) == text


@pytest.fixture
def reporting(monkeypatch):
    """Let what fails in the event loop be reported as in a worker."""
    hub = get_hub()
    monkeypatch.setattr(logger, "_seldom", Seldom(logging.getLogger("seldom")))
    monkeypatch.setattr(hub, "print_exception", hub.print_exception)
    logger.report_failures()


def test_a_greenlet_that_fails_is_one_line_without_what_it_was_called_with(
    reporting, caplog, capsys
):
    def fail(_address):
        raise RuntimeError("a defect")

    gevent.spawn(fail, "203.0.113.7").join()
    (line,) = caplog.records
    assert line.message == "unexpected_error"
    assert "a defect" in caplog.text
    assert "203.0.113.7" not in caplog.text
    assert capsys.readouterr().err == ""


def test_a_connection_that_finds_no_room_is_told_once_without_a_traceback(reporting, caplog):
    server = StreamServer(("127.0.0.1", 0), handle=lambda *_: None)
    error = OSError(errno.EMFILE, "Too many open files")
    for _ in range(3):
        get_hub().handle_error(server, OSError, error, None)
    (line,) = caplog.records
    assert (line.message, line.exc_info) == ("connection_not_accepted", None)
