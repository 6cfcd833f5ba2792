"""``estat health`` asks the server where HTTP_ADDR says that it listens."""

import http.server
import socket
import sys
from contextlib import contextmanager

import pytest

from estat.cli import health
from tests.conftest import need
from tests.support.command import run
from tests.support.threads import Serving


@contextmanager
def _answers(status, host="127.0.0.1"):
    """Run a server that answers /health; yield its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    class Server(http.server.HTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    server = Server((host, 0), Handler)
    with Serving(server):
        yield server.server_port


@pytest.fixture
def ask(monkeypatch, tmp_path):
    def ask(address):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HTTP_ADDR", address)
        return health.ask()

    return ask


@pytest.mark.parametrize("address", [":{}", "0.0.0.0:{}", "127.0.0.1:{}", "localhost:{}"])
def test_it_finds_a_server_that_works(ask, address):
    with _answers(200) as port:
        assert ask(address.format(port)) == ""


@pytest.mark.parametrize("address", ["[::]:{}", "[::1]:{}"])
def test_it_finds_one_that_listens_on_ipv6(ask, address):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        need(None, "IPv6")
    with _answers(200, "::1") as port:
        assert ask(address.format(port)) == ""


def test_the_address_may_be_in_the_env_file(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HTTP_ADDR", raising=False)
    with _answers(200) as port:
        (tmp_path / ".env").write_text(f"HTTP_ADDR=127.0.0.1:{port}\n")
        assert health.ask() == ""


def test_a_server_that_says_it_is_broken_is_not_healthy(ask):
    with _answers(500) as port:
        assert ask(f"127.0.0.1:{port}") == f"127.0.0.1:{port} answers 500"


def test_an_address_that_is_none_is_told(ask):
    assert ask("nonsense").startswith("HTTP_ADDR='nonsense' is not valid")


def test_it_imports_neither_the_server_nor_its_store():
    script = "import estat.cli.health, sys; print({'gevent', 'boto3', 'falcon'} & set(sys.modules))"
    done = run([sys.executable, "-c", script])
    assert done.stdout == "set()\n"
