"""With WRITE_KEYS only who has a key may send events, and no key is seen anywhere."""

import base64
import itertools
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import both_workers
from tests.support import raw_http
from tests.support.eventually import eventually
from tests.support.server import Answer, Server, ask

pytestmark = [pytest.mark.quick, both_workers]

WEB, APP, UNNAMED = "web-s3cret-1~A", "app-s3cret-2/B+C=", "unnamed-s3cret-3"
WRONG = "wrong-s3cret"
MARK = "must-not-be-stored"
BY_KEY = 'events_accepted_by_key_total{{key="{}"}}'
JSON = {"Content-Type": "application/json"}

_serial = itertools.count(1)


def post(server: Server, how: str, key: str, body: bytes = b"{}", **headers: str) -> Answer:
    """Post a body with a key in one of the four places."""
    path = f"/collect?a=1&key={key.replace('+', '%2B')}&b=2" if how == "query" else "/collect"
    fields = {
        "bearer": {"Authorization": f"Bearer {key}"},
        "basic": {"Authorization": "Basic " + base64.b64encode(f"{key}:".encode()).decode()},
        "field": {"X-Write-Key": key},
    }
    return server.request("POST", path, body, JSON | fields.get(how, {}) | headers)


@pytest.fixture(scope="module", params=["plain requests", "an access log"])
def guarded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("keys")
    settings = {
        "RAW_BUCKET": f"file:{directory / 'store'}",
        "LOG_LEVEL": "debug",
        "WRITE_KEYS": f"web:{WEB},app:{APP},{UNNAMED}",
        "CAPTURE_WRITE_KEY_NAME": "true",
    }
    gunicorn = ""
    if request.param == "an access log":
        told = "%(r)s %(q)s %({raw_uri}e)s %({authorization}i)s %({http_x_write_key}e)s"
        gunicorn = f"--access-logfile - --access-logformat '{told}'"
    with Server(directory, settings, gunicorn=gunicorn) as server:
        yield server


@pytest.mark.parametrize(
    ("key", "name"), [(WEB, "web"), (APP, "app"), (UNNAMED, "key3")], ids=["web", "app", "unnamed"]
)
@pytest.mark.parametrize("how", ["bearer", "basic", "field", "query"])
def test_an_event_with_a_key_is_stored_with_its_name_and_counted(
    how: str, key: str, name: str, guarded: Server
) -> None:
    counter = BY_KEY.format(name)
    before = guarded.metrics()[counter]
    event = {"n": f"by key {next(_serial)}"}
    answer = post(guarded, how, key, json.dumps([event, {"another": 1}, "refused"]).encode())
    assert answer.status == 202
    assert guarded.metrics()[counter] == before + 2
    (line,) = [line for line in guarded.stored() if line["body"] == event]
    assert line["write_key"] == name


@pytest.mark.parametrize("how", ["bearer", "basic", "field", "query"])
@pytest.mark.parametrize("key", [WRONG, WEB[:-1], WEB.lower(), ""])
def test_without_a_valid_key_a_request_is_refused_and_nothing_stored(
    how: str, key: str, guarded: Server
) -> None:
    before = guarded.rejected("unauthorized")
    answer = post(guarded, how, key, json.dumps({"m": MARK}).encode())
    assert answer.status == 401
    assert "WWW-Authenticate" not in answer.headers, "a browser would ask its user for a password"
    assert set(answer.json) == {"title", "description"}
    assert not key or key not in answer.body.decode()
    assert guarded.rejected("unauthorized") == before + 1
    assert MARK not in json.dumps(guarded.stored())


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"{}", {}),
        (b"not JSON", {}),
        (b"x" * (64 << 10), {}),
        (b"2\r\n{}\r\n0\r\n\r\n", {"Transfer-Encoding": "chunked"}),
    ],
    ids=["small", "bad", "large", "chunked"],
)
def test_a_connection_goes_on_after_a_request_without_a_key(
    body: bytes, fields: dict[str, str], guarded: Server
) -> None:
    connection = guarded.connection()
    try:
        answer = ask(connection, "POST", "/collect", body, JSON | fields)
        assert answer.status == 401
        before = connection.sock
        answer = ask(connection, "POST", "/collect", b"{}", JSON | {"X-Write-Key": WEB})
        assert answer.status == 202
        assert connection.sock is before
    finally:
        connection.close()


@pytest.mark.parametrize("size", [100_000, 2 << 20])
def test_a_large_body_without_a_key_is_not_read_and_its_sender_sees_the_answer(
    size: int, guarded: Server
) -> None:
    connection = guarded.connection()
    try:
        answer = ask(connection, "POST", "/collect", b"x" * size, JSON)
        assert answer.status == 401
        assert answer.headers["Connection"] == "close"
    finally:
        connection.close()


def test_what_takes_no_events_asks_for_no_key(guarded: Server) -> None:
    for path in ("/", "/health", "/ready", "/metrics", "/openapi.json"):
        assert guarded.get(path).status == 200
    assert guarded.request("OPTIONS", "/collect").status == 204


BAD_REQUESTS = {
    "a version that is none": f"GET /collect?key={WEB} HTTP/9.9\r\nHost: a\r\n\r\n",
    "no version": f"GET /collect?a=1&%6Bey={WEB} and more\r\nHost: a\r\n\r\n",
    "a key without its colon": f"POST /collect HTTP/1.1\r\nX-Write-Key {WEB}\r\n\r\n",
    "a Bearer without its colon": f"POST /collect HTTP/1.1\r\nAuthorization Bearer {WEB}\r\n\r\n",
    "a bad field beside the key": f"POST /collect?key={WEB} HTTP/1.1\r\nBad Name: 1\r\n\r\n",
    "a head that is cut off": f"POST /collect?key={WEB} HTTP/1.1\r\nX-Write-Key: {WEB}\r\nX",
    "a folded key": f"POST /collect HTTP/1.1\r\nX-Write-Key: {WEB}\r\n {WEB}\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_key_in_a_request_that_is_no_http_is_not_logged(name: str, guarded: Server) -> None:
    outcome = raw_http.exchange(guarded.port, BAD_REQUESTS[name].encode())
    assert [answer.status for answer in outcome.answers] in ([], [400], [505])
    assert guarded.get("/health").status == 200
    assert WEB not in guarded.log_text()


def test_no_key_is_in_the_log_in_the_metrics_or_in_what_is_stored(guarded: Server) -> None:
    for how, key in itertools.product(("bearer", "field", "query"), (WEB, APP, UNNAMED, WRONG)):
        post(guarded, how, key, **{"User-Agent": "tells", "Referer": "https://shop.example/"})
    stored = json.dumps(guarded.stored())
    told = guarded.log_text()
    assert '"settings"' in told
    for key in (WEB, APP, APP.replace("+", "%2B"), UNNAMED, WRONG):
        assert key not in told
        assert key not in stored
        assert key not in guarded.get("/metrics").body.decode()
        assert key not in guarded.get("/openapi.json").body.decode()


def test_keys_are_rotated_by_a_reload_and_their_names_keep_their_counts(tmp_path: Path) -> None:
    def keys(text: str) -> None:
        (tmp_path / ".env").write_text(f"WRITE_KEYS={text}\n")

    def status(key: str) -> int:
        return server.post("{}", **{"X-Write-Key": key}).status

    keys("a:one,web:old")
    with Server(tmp_path, {"RAW_BUCKET": f"file:{tmp_path / 'store'}"}) as server:
        assert [status(key) for key in ("one", "old", "new")] == [202, 202, 401]
        keys("web:new,web:old")
        server.send_signal(signal.SIGHUP)
        eventually(lambda: status("new") == 202, 20, "the new key is valid")
        eventually(lambda: len(server.worker_pids()) == 1, 20, "the old worker is gone")
        assert [status(key) for key in ("one", "old")] == [401, 202]
        metrics = server.metrics()
        assert metrics[BY_KEY.format("a")] == 1
        accepted = metrics["events_accepted_total"]
        assert metrics[BY_KEY.format("web")] == accepted - 1
        assert server.stop() == 0
