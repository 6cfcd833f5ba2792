"""Places that a server's credentials come from, each of which can break and be mended.

    source.environ      what the server is started with
    source.broken()     from now on nobody gets credentials
    source.mended()     from now on everybody does

Those that expire last five minutes. An endpoint and a helper have faults of their own, too.
"""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.support.sts import Sts
from tests.support.threads import Service, ServiceHandler

_TOKEN = "token-of-the-pod"

#: What endpoints and helpers give lasts as long, unless a test says otherwise.
_LIFETIME_SECONDS = 300

_HELPER = """\
#!/bin/sh
end=$(date -u -d "+{lifetime_seconds} seconds" +%Y-%m-%dT%H:%M:%SZ)
echo '{{"Version": 1, "AccessKeyId": "ASIATEST", "SecretAccessKey": "secret",'
echo '"SessionToken": "session", "Expiration": "'$end'"}}'
"""

#: A helper that starts another process and waits for it; both tell their process ids.
_HANGING_HELPER = """\
#!/bin/sh
sleep 1000 &
echo $$ $! > {pids}.new
mv {pids}.new {pids}
wait
"""

ROLE = "arn:aws:iam::123456789012:role/writer"


def _values(lifetime_seconds: float) -> dict[str, Any]:
    end = datetime.now(UTC) + timedelta(seconds=lifetime_seconds)
    return {
        "AccessKeyId": "ASIATEST",
        "SecretAccessKey": "secret",
        "Expiration": f"{end:%Y-%m-%dT%H:%M:%SZ}",
    }


class Container(Service):
    """The endpoint that gives a pod's credentials to whoever has the token, and an instance's.

    endpoint.fault = "refuse"       401; "hang"; "expired": what it gives has ended
    endpoint.delay_seconds = 4.0    before credentials are given
    endpoint.lifetime_seconds = 9   of those that are given from now on
    """

    def __init__(self) -> None:
        self.lifetime_seconds = _LIFETIME_SECONDS
        super().__init__(_Handler)


class _Handler(ServiceHandler):
    def do_PUT(self) -> None:  # noqa: N802 - what the library calls
        """Give the token of a session with an instance's endpoint."""
        self.answer(200, _TOKEN)

    def do_GET(self) -> None:  # noqa: N802
        if self.path.endswith("/security-credentials/"):
            self.answer(200, "writer")
            return
        container = self.server.service
        release, fault = container.release, container.fault
        container.wait(fault, release)
        token = self.headers["Authorization"] or self.headers["x-aws-ec2-metadata-token"]
        if token != _TOKEN or fault == "refuse":
            self.answer(401, "{}")
            return
        values = _values(-60 if fault == "expired" else container.lifetime_seconds)
        self.answer(200, json.dumps(values | {"Token": "session", "Code": "Success"}))


class Source:
    """One file on the way to credentials, which is there or not; see the module."""

    def __init__(self, path: Path, content: str, environ: dict[str, str]) -> None:
        self.environ = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", **environ}
        self._path = path
        self._content = content

    def broken(self) -> None:
        self._path.unlink()

    def mended(self) -> None:
        self.put(self._content)

    def put(self, content: str) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(content)
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


def instance(container: Container) -> dict[str, str]:
    """Return what a server on an instance is started with."""
    return {"AWS_EC2_METADATA_SERVICE_ENDPOINT": container.url, "AWS_EC2_METADATA_DISABLED": ""}


def profile_with_a_role(directory: Path, sts: Sts) -> dict[str, str]:
    """Return what a server is started with whose profile assumes a role; it names no region."""
    config = directory / "aws-config"
    config.write_text(
        f"[default]\nrole_arn = {ROLE}\nsource_profile = base\n"
        "[profile base]\naws_access_key_id = AKIATEST\naws_secret_access_key = secret\n"
    )
    return {"AWS_CONFIG_FILE": str(config), "AWS_ENDPOINT_URL_STS": sts.url}


class Helper(Source):
    """The program that a profile names as its ``credential_process``."""

    def __init__(self, directory: Path) -> None:
        config = directory / "aws-config"
        config.write_text(f"[default]\ncredential_process = {directory}/helper\n")
        self.lifetime_seconds = _LIFETIME_SECONDS
        super().__init__(directory / "helper", "", {"AWS_CONFIG_FILE": str(config)})
        self._pids = directory / "helper-pids"

    def mended(self) -> None:
        self.put(_HELPER.format(lifetime_seconds=self.lifetime_seconds))

    def hangs(self) -> None:
        """Have it hang from now on, and another process with it."""
        self.put(_HANGING_HELPER.format(pids=self._pids))

    def is_slow(self, seconds: float) -> None:
        """Have it take its time."""
        script = _HELPER.format(lifetime_seconds=self.lifetime_seconds)
        self.put(script.replace("end=", f"sleep {seconds}\nend=", 1))

    def pids(self) -> list[int]:
        """Return the two processes of the last one that hung, or hangs."""
        return [int(pid) for pid in self._pids.read_text().split()]

    def left(self) -> list[int]:
        """Return which of them are there, dead and not reaped ones included."""
        return [pid for pid in self.pids() if os.path.exists(f"/proc/{pid}")]


def helper(directory: Path) -> Helper:
    """Return the helper; it is not there yet."""
    return Helper(directory)


def config_file(directory: Path) -> Source:
    """Return the configuration file with the keys."""
    path = directory / "aws-config"
    return UnreadableConfig(
        path,
        "[default]\naws_access_key_id = AKIATEST\naws_secret_access_key = secret\n",
        {"AWS_CONFIG_FILE": str(path)},
    )
