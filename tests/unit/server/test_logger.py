"""gunicorn's own lines keep no address where none is to be kept."""

import logging

import pytest

from estat.config import loading
from estat.server import inherited
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


def test_all_addresses_stay_where_all_is_kept(monkeypatch):
    assert "203.0.113.7" in logged(monkeypatch, "ip=203.0.113.7", "full")


def test_the_servers_own_address_stays(monkeypatch):
    text = "Listening at: http://127.0.0.1:8080"
    assert logged(monkeypatch, text, "drop", logging.INFO) == text
