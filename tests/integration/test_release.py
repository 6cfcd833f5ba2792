"""What a release is made of: an sdist with everything, and a wheel that runs on its own."""

import os
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import NamedTuple

import pytest

from estat import __version__
from tests.support.command import run
from tests.support.lines import gunzip_lines
from tests.support.reader import copy_repository
from tests.support.server import Server

_STEM = f"estat_ingest-{__version__}"


class Release(NamedTuple):
    """What `make dist` made of a copy of the repository, and the wheel's files by their names."""

    source: Path
    sdist: Path
    wheel: Path
    files: dict[str, bytes]

    def metadata(self, name: str) -> str:
        return self.files[f"{_STEM}.dist-info/{name}"].decode()


class Installed(Server):
    """A server that is started by a program of another environment than this one."""

    def __init__(self, command: Path, directory: Path) -> None:
        super().__init__(directory, {})
        self._words = str(command).split()

    def _command(self) -> list[str]:
        return self._words


def must_run(*argv: str | Path, cwd: Path | None = None) -> str:
    environ = {k: v for k, v in os.environ.items() if k != "ESTAT_COMPILE"}
    done = run(argv, env=environ, timeout=300, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files_below(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    source = tmp_path_factory.mktemp("release") / "estat"
    copy_repository(source)
    must_run("make", "dist", f"PYTHON={sys.executable}", cwd=source)
    wheel = source / "dist" / f"{_STEM}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    return Release(source, source / "dist" / f"{_STEM}.tar.gz", wheel, files)


@pytest.fixture(scope="module")
def environment(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a virtual environment that has the wheel and what it needs."""
    directory = tmp_path_factory.mktemp("environment")
    must_run(sys.executable, "-m", "venv", directory)
    must_run(directory / "bin/pip", "install", "--quiet", release.wheel)
    return directory / "bin"


def test_the_sdist_has_every_file_of_the_repository(release: Release) -> None:
    with tarfile.open(release.sdist) as archive:
        packed = {name.removeprefix(f"{_STEM}/") for name in archive.getnames()}
    made = ("build/", "dist/", "estat_ingest.egg-info/")
    there = {name for name in files_below(release.source) if not name.startswith(made)}
    assert there - packed == set()


def test_the_wheel_has_every_file_of_the_package_as_it_is(release: Release) -> None:
    there = {f"estat/{name}" for name in files_below(release.source / "estat")}
    packed = {name for name in release.files if name.startswith("estat/")}
    assert packed == there
    assert all((release.source / name).read_bytes() == release.files[name] for name in there)


def test_the_wheel_says_what_it_is_and_has_its_licence(release: Release) -> None:
    metadata = Parser().parsestr(release.metadata("METADATA"))
    assert (metadata["Name"], metadata["Version"]) == ("estat-ingest", __version__)
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata.get_payload() == (release.source / "README.md").read_text()
    assert release.metadata("licenses/LICENSE") == (release.source / "LICENSE").read_text()


@pytest.mark.parametrize(
    "command",
    [
        "estat serve",
        "gunicorn estat.wsgi:app",  # which finds gunicorn.conf.py by itself
        "gunicorn -c python:estat.gunicorn_conf estat.wsgi:app",
    ],
)
def test_the_wheel_alone_stores_what_it_accepts(
    environment: Path, tmp_path: Path, command: str
) -> None:
    must_run(environment / "estat", "init", tmp_path)
    example = (tmp_path / ".env.example").read_text()
    (tmp_path / ".env").write_text(example.replace("RAW_BUCKET=my-bucket", "RAW_BUCKET=file:data"))
    with Installed(environment / command, tmp_path) as server:
        assert server.events("server_started")[0]["build"] == "interpreted"
        assert server.post('{"n":1}').status == 202
        assert server.stop() == 0
    (stored,) = (tmp_path / "data/raw").rglob("*.jsonl.gz")
    assert [line["body"] for line in gunzip_lines(stored.read_bytes())] == [{"n": 1}]
