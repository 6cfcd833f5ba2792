"""Clients put a key in the wrong place, and write what breaks a log: no line shows it."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.server import Server
from tests.system.test_behind_proxies import answer

pytestmark = pytest.mark.quick

KEY = "s3cret-A.b_c~d+e/f=="
SHOWN = ("s3cret", "b_c~d", "czNjcmV0", "NjcmV0LU", "zM2NyZX")
BASIC = [base64.b64encode(user.encode()).decode() for user in (f"{KEY}:", f"u:{KEY}")]

FIELDS = [
    f"X-Write-Key={KEY}",
    f"X-Write-Key={KEY}: 1",
    f"X-Write-Key : {KEY}",
    f"Authorization=Bearer {KEY}",
    f"Authorization Bearer {KEY}",
    f"Bearer: {KEY}\x01",
    f"Bearer {KEY}",
    *(f"Authorization: Basic {basic}\x00" for basic in BASIC),
    *(f"{basic} x" for basic in BASIC),
    f"Any(: {KEY}",
    f"Transfer-Encoding: {KEY}",
    f"Content-Length: {KEY}",
    f"Content-Type: {KEY}/x",
    f"Content-Encoding: {KEY}",
    f"Expect: {KEY}",
    f" {KEY}",
]
TARGETS = [
    f"/{KEY}",
    f"/collect/{quote(KEY, safe='')}",
    f"/collect?%6bey={KEY}",
    f"/collect?%256bey={KEY}",
    f"/collect?a=1;key={KEY}",
    f"http://u:{KEY}@x/collect",
    f"/collect?key={KEY} x",
]


class Started(Server):
    """A server whose log may be for people."""

    def is_up(self) -> bool:
        return "worker_started" in self.log_text() and self.get("/ready").status == 200


@pytest.fixture(params=["json", "console"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    settings = {
        "RAW_BUCKET": f"file:{tmp_path / 'store'}",
        "WRITE_KEYS": f"web:{KEY}",
        "WRITE_KEY": KEY,
        "AWS_ENDPOINT_URL_STS": f"http://user:{KEY}@127.0.0.1:1",
        "LOG_LEVEL": "debug",
        "LOG_FORMAT": request.param,
    }
    with Started(tmp_path, settings, gunicorn="--access-logfile -") as found:
        yield found


def test_no_line_shows_a_key_or_acts_on_a_terminal(server: Server) -> None:
    for field in FIELDS:
        for target in ("/collect?a=1", "/nothing"):
            answer(server.port, f"GET {target} HTTP/1.1\r\nConnection: close\r\n{field}\r\n\r\n")
    for target in TARGETS:
        for version in ("1.1", "9.1"):
            head = f"GET {target} HTTP/{version}\r\nHost: x\r\nConnection: close\r\n"
            answer(server.port, f"{head}User-Agent: \x9b31m{BASIC[0]}\r\n\r\n")
        answer(server.port, f"{KEY} {target}\r\n\r\n")
    for _ in range(200):  # with a name that would be 48 KiB each
        answer(server.port, f"GET / HTTP/1.1\r\n{chr(0xFF) * 8000}: 1\r\n\r\n")
    assert server.stop() == 0
    log = server.log_text()
    assert log.count("Invalid request from ip=127.0.0.1: Invalid HTTP") > 10
    assert log.count("Invalid request") <= 60
    assert [line for line in log.splitlines() if any(part in line for part in SHOWN)] == []
    assert "".join(log.splitlines()).isprintable()
    assert max(map(len, log.splitlines())) <= 33_000
    if server.environ["LOG_FORMAT"] == "json":
        lines = [line for line in log.splitlines() if not line.startswith("127.0.0.1 ")]
        assert all(isinstance(json.loads(line), dict) for line in lines)
