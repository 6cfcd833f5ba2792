"""Places that a server's credentials come from, each of which can break and be mended.

    source.environ      what the server is started with
    source.broken()     from now on nobody gets credentials
    source.mended()     from now on everybody does

Credentials that expire last so short a time that each request asks for new ones.
"""

import json
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.sts import Sts
from tests.support.threads import Serving

_TOKEN = "token-of-the-pod"

#: botocore renews what is valid for under ten minutes before each request.
_LIFETIME = timedelta(minutes=5)

_HELPER = """\
#!/bin/sh
echo '{values}'
"""

ROLE = "arn:aws:iam::123456789012:role/writer"


def _values() -> dict[str, Any]:
    end = datetime.now(UTC) + _LIFETIME
    return {
        "AccessKeyId": "ASIATEST",
        "SecretAccessKey": "secret",
        "Expiration": f"{end:%Y-%m-%dT%H:%M:%SZ}",
    }


class Container(Serving):
    """The endpoint that gives a pod's credentials to whoever has the token."""

    def __init__(self) -> None:
        super().__init__(ThreadingHTTPServer(("127.0.0.1", 0), _Handler))


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        right = self.headers["Authorization"] == _TOKEN
        body = json.dumps(_values() | {"Token": "session"} if right else {}).encode()
        self.send_response_only(200 if right else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Source:
    """One file on the way to credentials, which is there or not; see the module."""

    def __init__(self, path: Path, content: str, environ: dict[str, str]) -> None:
        self.environ = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", **environ}
        self._path = path
        self._content = content

    def broken(self) -> None:
        self._path.unlink()

    def mended(self) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(self._content)
        new.chmod(0o755)
        new.rename(self._path)


class UnreadableConfig(Source):
    """A file that is there, and is none that anybody can read."""

    def broken(self) -> None:
        self._path.write_text("no section\n")


def token_file(directory: Path, container: Container) -> Source:
    """Return the token that the endpoint for a pod's credentials asks for."""
    return Source(
        directory / "token",
        _TOKEN,
        {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{container.url}/credentials",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(directory / "token"),
        },
    )


def token_file_of_a_role(directory: Path, container: Container, sts: Sts) -> Source:
    """Return the same for who then assumes S3_ROLE_ARN."""
    source = token_file(directory, container)
    source.environ |= {"S3_ROLE_ARN": ROLE, "AWS_ENDPOINT_URL_STS": sts.url}
    return source


def web_identity(directory: Path, sts: Sts) -> Source:
    """Return the token that is changed for a role's credentials."""
    return Source(
        directory / "token",
        "a.b.c",
        {
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(directory / "token"),
            "AWS_ROLE_ARN": ROLE,
            "AWS_ENDPOINT_URL_STS": sts.url,
        },
    )


def helper(directory: Path) -> Source:
    """Return the program that a profile names as its ``credential_process``."""
    config = directory / "aws-config"
    config.write_text(f"[default]\ncredential_process = {directory}/helper\n")
    values = json.dumps({"Version": 1, "SessionToken": "session", **_values()})
    return Source(
        directory / "helper", _HELPER.format(values=values), {"AWS_CONFIG_FILE": str(config)}
    )


def config_file(directory: Path) -> Source:
    """Return the configuration file with the keys."""
    path = directory / "aws-config"
    return UnreadableConfig(
        path,
        "[default]\naws_access_key_id = AKIATEST\naws_secret_access_key = secret\n",
        {"AWS_CONFIG_FILE": str(path)},
    )
