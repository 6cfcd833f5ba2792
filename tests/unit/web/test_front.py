"""What stands in front of the applications: which one serves, keys taken, CORS fields given."""

import errno
import io
from wsgiref.util import setup_testing_defaults

import pytest
from gunicorn.http.errors import InvalidChunkSize, NoMoreData

from estat.accounting import exposition, metrics
from estat.config import loading
from estat.pipeline.pipeline import Pipeline
from estat.web.app import Front

ORIGIN = "https://shop.example"


class Unreadable(io.BytesIO):
    """A body whose reading fails."""

    def __init__(self, error):
        super().__init__()
        self._error = error

    def read(self, _size=-1):
        raise self._error


@pytest.fixture
def ask(tmp_path):
    """Ask the real applications, on a pipeline that was not started."""

    def ask(
        method="GET",
        path="/",
        body=b"",
        *,
        accepts=False,
        unreadable=None,
        port="80",
        origin=ORIGIN,
        **given,
    ):
        settings = loading.load(
            {"RAW_BUCKET": f"file:{tmp_path}", "DLQ_DIR": str(tmp_path / "dlq")} | given,
            env_file="",
        )
        pipeline = Pipeline(settings, metrics.page(), 1, None)
        if accepts:
            pipeline.check_room = pipeline.accept = lambda *_: None
        environ = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "SERVER_PORT": port,
            "HTTP_ORIGIN": origin,
            "REMOTE_ADDR": "127.0.0.1",
            "wsgi.input": io.BytesIO(body),
            "estat.body": body,
            "wsgi.errors": io.StringIO(),
        }
        if unreadable:
            del environ["estat.body"]
            environ |= {"wsgi.input": Unreadable(unreadable), "CONTENT_LENGTH": "2"}
        setup_testing_defaults(environ)
        ask.pipeline = pipeline
        answers = []

        def start_response(status, headers, exc_info=None):
            answers.append((int(status.split()[0]), {k.lower(): v for k, v in headers}))

        front = Front(pipeline)
        assert unreadable or front.accept(environ) is None  # as the fast loop does first
        b"".join(front(environ, start_response))
        (answer,) = answers
        return answer

    return ask


def broken():
    raise RuntimeError("a defect")


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (MemoryError(), 503, "internal_error"),
        (RecursionError(), 503, "internal_error"),
        (OSError(errno.ENOBUFS, "No buffer space available"), 503, "internal_error"),
        (RuntimeError("can't start new thread"), 503, "internal_error"),
        (ConnectionResetError(), 400, "incomplete_body"),
        (NoMoreData(b""), 400, "incomplete_body"),
        (InvalidChunkSize(b"x"), 400, "incomplete_body"),
    ],
)
def test_only_what_the_client_caused_is_its_fault(error, status, reason, ask):
    found, headers = ask("POST", "/collect", unreadable=error)
    assert found == status
    assert ("retry-after" in headers) == (status == 503), "it may send the body again"
    counts = ask.pipeline.counts.row.cells
    assert counts[metrics.REQUESTS_REJECTED[reason]] == counts[metrics.REQUESTS] == 1


def test_an_error_that_nobody_expected_is_one_line_of_the_log(ask, monkeypatch, caplog, capsys):
    monkeypatch.setattr(exposition, "render", lambda _page: broken())
    assert ask("GET", "/metrics")[0] == 500
    assert [line.message for line in caplog.records] == ["request_failed"]
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.interpreted
def test_a_page_can_read_the_answer_to_an_error_that_comes_after_events_were_accepted(ask):
    status, headers = ask("POST", "/collect", b"{}", accepts=True)  # with no submission
    assert (status, headers["access-control-allow-origin"]) == (500, ORIGIN)


@pytest.mark.parametrize("path", ["/nothing", "/collect"])
def test_an_error_is_not_for_caches(path, ask):
    status, headers = ask("PUT", path)
    assert status in (404, 405)
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics"])
def test_what_a_probe_or_a_scrape_gets_is_not_for_caches(path, ask):
    _, headers = ask("GET", path)
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("port", "path", "status"),
    [
        ("80", "/metrics", 404),
        ("80", "/openapi.json", 404),
        ("80", "/", 200),
        ("80", "/health", 200),
        ("9090", "/metrics", 200),
        ("9090", "/openapi.json", 200),
        ("9090", "/health", 200),
        ("9090", "/collect", 404),
        ("9090", "/", 404),
    ],
)
def test_each_listener_has_its_own_paths(port, path, status, ask):
    assert ask("GET", path, port=port, METRICS_ADDR=":9090")[0] == status


def test_the_listener_for_metrics_allows_no_web_page_to_read_it(ask):
    _, headers = ask("GET", "/metrics", port="9090", METRICS_ADDR=":9090")
    assert "access-control-allow-origin" not in headers
