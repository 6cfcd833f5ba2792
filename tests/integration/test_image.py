"""The container image: built from the Dockerfile on stand-ins of its base images, and run."""

import argparse
import http.server
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest

from estat import __version__
from tests.conftest import need
from tests.support.base_images import REQUIREMENTS, Buildah, download_wheels, make_base_images, run
from tests.support.container import Container
from tests.support.eventually import eventually
from tests.support.lines import gunzip_lines
from tests.support.page import blocks
from tests.support.server import ROOT
from tests.support.threads import Serving

_NAME = "localhost/estat-ingest:test"
_EVENTS = 250  # two and a half batches


class Image(NamedTuple):
    """The image, as it was unpacked and as it says to be run."""

    root: Path
    configuration: dict


@pytest.fixture(scope="module")
def image():
    for program in ("buildah", "debootstrap", "make", "nsenter", "setpriv"):
        need(shutil.which(program), program)
    need(os.geteuid() == 0, "root, for mounts and namespaces,")
    # not pytest's directory, which keeps what is in it
    with TemporaryDirectory(prefix="image-", dir="/var/tmp") as directory:
        buildah = Buildah(Path(directory))
        wheels = Path(directory) / "wheels"
        download_wheels(wheels)
        make_base_images(buildah, wheels)
        pip = Path(directory) / "pip.conf"
        pip.write_text("[global]\nno-index = true\nfind-links = /wheels\n")
        flags = f"--pull-never --secret id=pip.conf,src={pip} --volume {wheels}:/wheels:ro"
        run(
            "make",
            "build",
            "CONTAINER=buildah",
            f"IMAGE={_NAME}",
            f"BUILD_FLAGS={flags}",
            cwd=ROOT,
            env=buildah.environ,
        )
        _, root = buildah.new_root(_NAME)
        yield Image(root, buildah.configuration(_NAME))


@pytest.fixture
def container(image, tmp_path, moto, bucket):
    """Make containers that share a bucket, each with volumes of its own; all are gone at last."""
    with ExitStack() as running:

        def make(**settings):
            directory = tmp_path / str(len(list(tmp_path.iterdir())))
            directory.mkdir()
            given = moto.environ | {"RAW_BUCKET": bucket.name} | settings
            made = Container(image.root, image.configuration, directory, given)
            running.callback(lambda: made._process and made.kill())
            return made

        yield make


def test_it_stores_what_it_accepted_and_ends_with_0_on_sigterm(container, bucket):
    server = container(FLUSH_INTERVAL="1h").start()
    body = "\n".join(json.dumps({"n": n}) for n in range(_EVENTS))
    assert server.post(body, "application/x-ndjson").json["accepted"] == _EVENTS
    assert server.stop() == 0
    numbers = [line["body"]["n"] for found in bucket.objects() for line in found.lines]
    assert sorted(numbers) == list(range(_EVENTS))
    assert server.events("server_stopped")[0]["lost"] == 0
    assert server.events("server_started")[0]["build"] == "compiled"


def test_what_s3_does_not_take_is_in_its_volume_after_the_stop(container):
    server = container(AWS_ENDPOINT_URL_S3="http://127.0.0.1:1").start()
    assert server.post('{"n": 1}').status == 202
    assert server.stop() == 0
    assert server.events("server_stopped")[0]["in_dlq"] == 1
    assert list(server.dlq_dir.glob("servers/*/pending/*/*.jsonl.gz"))


def test_its_health_check_fails_before_the_server_is_up_and_not_after(container, image):
    kind, *command = image.configuration["Healthcheck"]["Test"]
    assert kind == "CMD"  # no shell
    down = container()
    refused = down.run(*command)
    assert refused.returncode == 1
    assert f"no answer from 127.0.0.1:{down.port}" in refused.stderr
    up = container().start().exec(*command)
    assert (up.returncode, up.stderr) == (0, "")


def test_only_its_volume_and_shared_memory_can_be_written(container):
    script = (
        "import os; print(*(d for d, _, _ in os.walk('/') if not d.startswith('/proc')"
        " and os.access(d, os.W_OK)))"
    )
    found = container().run("/usr/bin/python3", "-c", script)
    assert set(found.stdout.split()) == {"/dev/shm", "/var/lib/estat", "/var/lib/estat/dlq"}


def test_nothing_of_it_but_its_volume_belongs_to_its_user_who_is_not_root(image):
    user = int(image.configuration["User"].split(":")[0])
    assert user > 0
    owned = {
        path.relative_to(image.root).parts[:3]
        for path in image.root.rglob("*")
        if path.lstat().st_uid == user
    }
    assert owned == {("var", "lib", "estat"), ("home", "nonroot")}  # a home from the base image


def test_it_has_no_program_but_python(image):
    places = ["bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin", "app/bin"]
    names = {path.name for place in places for path in (image.root / place).glob("*")}
    assert names == {"python3", "python3.11"}


def test_it_is_made_of_the_pinned_versions_and_lists_them(image):
    pinned = set(re.findall(r"(?m)^([\w.-]+)==(\S+)", REQUIREMENTS.read_text()))
    pinned = {(re.sub(r"[-_.]+", "-", name).lower(), version) for name, version in pinned}
    found = set()
    for metadata in (image.root / "app").glob("*.dist-info/METADATA"):
        fields = dict(re.findall(r"(?m)^(Name|Version): (\S+)", metadata.read_text()))
        found.add((re.sub(r"[-_.]+", "-", fields["Name"]).lower(), fields["Version"]))
    listed = json.loads((image.root / "app/sbom.cdx.json").read_text())
    assert (listed["bomFormat"], listed["specVersion"]) == ("CycloneDX", "1.6")
    parts = {(part["name"].lower(), part["version"]) for part in listed["components"]}
    parts = {(re.sub(r"[-_.]+", "-", name), version) for name, version in parts}
    ours = {("estat-ingest", __version__)}
    assert found == parts == pinned | ours
    needs = {each["ref"]: each.get("dependsOn", []) for each in listed["dependencies"]}
    needed_by_nothing = set(needs).difference(*needs.values())
    assert needed_by_nothing == {f"estat-ingest=={__version__}"}


def test_every_module_that_it_runs_is_compiled(container):
    # on a read-only disk none is ever written
    script = (
        "import sys, os, estat.cli.health, estat.server.worker, estat.web.app, estat.stores.s3;"
        "caches = [getattr(module, '__cached__', None) for module in sys.modules.values()];"
        "print(len(caches) > 300, [c for c in caches if c and not os.path.exists(c)])"
    )
    found = container().run("/usr/bin/python3", "-c", script)
    assert (found.stdout, found.stderr) == ("True []\n", "")


def test_a_sigterm_that_comes_before_it_can_be_taken_ends_it_all_the_same(container):
    server = container(SHUTDOWN_TIMEOUT="1h").launch()
    eventually(lambda: server.holds_back(signal.SIGTERM), 20, "it holds back SIGTERM")
    server.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    assert server.events("worker_started") == []


def test_its_first_process_reaps_orphans(container):
    server = container().start()
    # a child that leaves one behind, which is process 1's when the child has been waited for
    script = "import os; os.fork() and (os.wait(), os._exit(0)); os.fork(); os._exit(0)"
    assert server.exec("/usr/bin/python3", "-c", script).returncode == 0
    eventually(
        lambda: len(server.worker_pids()) == 1,
        10,
        "what lost its parent is gone",
        last_words=lambda: str(server.worker_pids()),
    )


# --- what two pages tell to type, without an engine that could run it as it stands


def _documented(verb):
    """Return the words behind ``docker run`` or ``docker exec``, of each such line."""
    pages = ("README.md", "docs/image.md")
    typed = "".join(b.code for page in pages for b in blocks(page)).replace("\\\n", " ")
    lines = (line for line in typed.splitlines() if line.startswith(f"docker {verb} "))
    return [shlex.split(line)[2:] for line in lines]


def _parsed(words):
    """Return what a ``docker run`` asks for. An option that no page has yet is an error."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    for flag in ("--rm", "--detach", "--read-only"):
        parser.add_argument(flag, action="store_true")
    for option in ("--name", "--cap-drop", "--security-opt", "--publish", "--volume"):
        parser.add_argument(option)
    parser.add_argument("--stop-timeout", type=int)
    parser.add_argument("--entrypoint", default="")
    parser.add_argument("--env", action="append", default=[])
    parser.add_argument("image")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    return parser.parse_args(words)


def _environ(options, bucket):
    """Return the settings of a ``docker run``, with the bucket that is there."""
    given = dict(each.split("=", 1) for each in options.env) | {"FLUSH_INTERVAL": "100ms"}
    if given.get("RAW_BUCKET") == "my-bucket":
        given |= {"RAW_BUCKET": bucket.name, "AWS_REGION": "us-east-1"}
    return given


RUNS = [_parsed(words) for words in _documented("run")]
SERVERS = [options for options in RUNS if not options.entrypoint]
COMMANDS = [options for options in RUNS if options.entrypoint]


def test_the_page_names_one_image_and_volumes_and_ports_that_it_has(image):
    (name,) = {options.image for options in RUNS}
    assert name.startswith("estat-ingest:")
    volumes = {options.volume.split(":")[1] for options in RUNS if options.volume}
    assert volumes == set(image.configuration["Volumes"])
    ports = {options.publish.split(":")[1] for options in RUNS if options.publish}
    assert {f"{port}/tcp" for port in ports} == set(image.configuration["ExposedPorts"])


@pytest.mark.parametrize("options", SERVERS, ids=lambda options: options.env[-1])
def test_a_server_that_is_run_as_the_page_says_stores_events_and_takes_its_commands(
    container, bucket, options
):
    server = container(**_environ(options, bucket)).start()
    assert server.post('{"n": 1}').status == 202
    ((_, *command),) = _documented("exec")
    listed = server.exec(*command)
    assert listed.returncode == 0, listed.stderr
    assert server.stop() == 0
    directory = server.dlq_dir.parent / "data"
    in_volume = [gunzip_lines(path.read_bytes()) for path in directory.rglob("raw/dt=*/**/*.gz")]
    stored = in_volume or [found.lines for found in bucket.objects("raw/")]
    assert [line["body"] for lines in stored for line in lines] == [{"n": 1}]


@pytest.mark.parametrize("options", COMMANDS, ids=lambda options: options.command[-1][:5])
def test_a_command_that_is_run_as_the_page_says_does_what_it_should(container, bucket, options):
    done = container(**_environ(options, bucket)).run(options.entrypoint, *options.command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout


# --- what is left of botocore finds credentials


@contextmanager
def _credentials_of_a_container():
    """Serve what the agent of ECS serves."""

    class Agent(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            answer = {
                "AccessKeyId": "test",
                "SecretAccessKey": "test",
                "Token": "test",
                "Expiration": "2100-01-01T00:00:00Z",
            }
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *arguments):
            pass

    asked = []
    with Serving(http.server.HTTPServer(("127.0.0.1", 0), Agent)) as agent:
        yield {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{agent.url}/credentials"}
    assert asked


@contextmanager
def _web_identity(moto, volume):
    """Say where a token is, and which role it stands for."""
    (volume / "token").write_text("a token")
    yield {
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/lib/estat/token",
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/estat",
        "AWS_ENDPOINT_URL_STS": moto.url,
    }


@contextmanager
def _assumed_role(moto, volume):
    """Give a profile that assumes a role."""
    (volume / "config").write_text(
        "[profile estat]\nrole_arn = arn:aws:iam::123456789012:role/estat\n"
        "source_profile = base\n[profile base]\n"
        "aws_access_key_id = test\naws_secret_access_key = test\n"
    )
    yield {
        "AWS_CONFIG_FILE": "/var/lib/estat/config",
        "AWS_PROFILE": "estat",
        "AWS_ENDPOINT_URL_STS": moto.url,
        "AWS_DEFAULT_REGION": "us-east-1",
    }


@pytest.mark.parametrize("source", ["container", "web_identity", "assumed_role"])
def test_it_finds_credentials(container, moto, bucket, source):
    ours = container()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        del ours.environ[name]
    without = ours.run("/usr/bin/python3", "-m", "estat", "check")
    assert "no credentials were found" in without.stdout
    volume = ours.dlq_dir.parent
    sources = {
        "container": _credentials_of_a_container,
        "web_identity": lambda: _web_identity(moto, volume),
        "assumed_role": lambda: _assumed_role(moto, volume),
    }
    with sources[source]() as settings:
        ours.environ |= settings
        checked = ours.run("/usr/bin/python3", "-m", "estat", "check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"to {bucket.name}" in checked.stdout


# --- make push


def _push(tmp_path, name):
    """Run it with programs that write down how they were called."""
    for program in ("aws", "docker"):
        path = tmp_path / program
        path.write_text(f'#!/bin/sh\necho {program} "$@" >> {tmp_path}/called\n')
        path.chmod(0o755)
    return subprocess.run(
        ["make", "--no-print-directory", "push", f"IMAGE={name}"],
        cwd=ROOT,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_push_logs_in_to_the_registry_of_the_name(tmp_path):
    registry = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
    pushed = _push(tmp_path, f"{registry}/estat-ingest:1.0")
    assert pushed.returncode == 0, pushed.stderr
    assert set((tmp_path / "called").read_text().splitlines()) == {
        "aws ecr get-login-password --region eu-central-1",
        f"docker login --username AWS --password-stdin {registry}",
        f"docker push {registry}/estat-ingest:1.0",
    }


@pytest.mark.parametrize("name", ["estat-ingest:latest", "docker.io/library/estat-ingest:1.0"])
def test_push_refuses_a_name_that_is_none_of_ecr_before_it_does_anything(tmp_path, name):
    pushed = _push(tmp_path, name)
    assert pushed.returncode == 2
    assert f"IMAGE={name} is not a name in ECR; it must be <account>.dkr.ecr." in pushed.stderr
    assert not (tmp_path / "called").exists()
