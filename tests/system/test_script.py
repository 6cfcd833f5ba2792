"""``/estat.js`` over HTTP, and that nothing of the demo is served in production."""

import gzip
from collections.abc import Iterator

import pytest

from tests.support.server import Server

pytestmark = pytest.mark.quick

PATH = "/estat.js"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("script")
    with Server(directory, {"RAW_BUCKET": f"file:{directory}/data"}) as running:
        yield running


def test_the_client_is_javascript_that_any_cache_may_keep(server: Server) -> None:
    answer = server.get(PATH)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert answer.headers["Cache-Control"] == "public, max-age=3600"
    assert "Accept-Encoding" in answer.headers["Vary"]
    assert b"sendBeacon" in answer.body


@pytest.mark.parametrize("accepted", ["gzip", "br, gzip", "gzip;q=0.5", "gzip;q=1.0, *;q=0"])
def test_who_takes_gzip_gets_the_same_client_gzipped(accepted: str, server: Server) -> None:
    plain = server.get(PATH)
    packed = server.request("GET", PATH, headers={"Accept-Encoding": accepted})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body
    assert packed.headers["ETag"] != plain.headers["ETag"]


@pytest.mark.parametrize("accepted", ["", "identity", "gzip;q=0", "br, gzip;q=0.0", "xgzip"])
def test_who_does_not_take_gzip_gets_none(accepted: str, server: Server) -> None:
    answer = server.request("GET", PATH, headers={"Accept-Encoding": accepted})
    assert "Content-Encoding" not in answer.headers
    assert b"sendBeacon" in answer.body


def test_head_tells_what_get_would_send(server: Server) -> None:
    got, headed = server.get(PATH), server.request("HEAD", PATH)
    assert headed.status == 200
    assert headed.body == b""
    del got.headers["Date"], headed.headers["Date"]
    assert headed.headers.items() == got.headers.items()


@pytest.mark.parametrize("form", ["{tag}", "W/{tag}", '"other", {tag}', "*"])
def test_who_has_the_client_is_told_so_without_a_body(form: str, server: Server) -> None:
    tag = server.get(PATH).headers["ETag"]
    answer = server.request("GET", PATH, headers={"If-None-Match": form.format(tag=tag)})
    assert (answer.status, answer.body) == (304, b"")
    assert answer.headers["ETag"] == tag


def test_who_has_another_client_gets_this_one(server: Server) -> None:
    answer = server.request("GET", PATH, headers={"If-None-Match": '"other"'})
    assert answer.status == 200
    assert b"sendBeacon" in answer.body


@pytest.mark.parametrize("path", ["/demo", "/demo/state", "/demo/demo.js"])
def test_production_serves_no_demo(path: str, server: Server) -> None:
    assert server.get(path).status == 404
