"""A real nginx in front of a server, with the configuration that docs/deploy.md gives to users."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.eventually import eventually
from tests.support.s3 import listens, running
from tests.support.server import ROOT, free_port

_AROUND = """daemon off;
pid {directory}/nginx.pid;
error_log stderr;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
{documented}
}}
"""


def nginx_path() -> str | None:
    """Return where nginx is installed, if it is; Debian keeps it off a user's path."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


@contextmanager
def nginx(directory: Path, server_port: int) -> Iterator[int]:
    """Run nginx in front of a server; yield its port."""
    port, path = free_port(), nginx_path()
    assert path, "nginx is not installed"
    page = (ROOT / "docs" / "deploy.md").read_text()
    match = re.search(r"## nginx in front\n\n((?:    .*\n|\n)+)", page)
    assert match
    documented = match[1]
    for given, wanted in {
        "127.0.0.1:8080": f"127.0.0.1:{server_port}",
        "listen 443 ssl": f"listen 127.0.0.1:{port}",
    }.items():
        assert documented.count(given) == 1, given
        documented = documented.replace(given, wanted)
    config, log_path = directory / "nginx.conf", directory / "nginx.log"
    config.write_text(_AROUND.format(directory=directory, documented=documented))
    argv = [path, "-p", str(directory), "-e", "stderr", "-c", str(config)]
    with log_path.open("wb") as log, running(argv, log):
        eventually(lambda: listens(port), 10, "nginx listens", last_words=log_path.read_text)
        yield port
