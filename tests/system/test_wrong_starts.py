"""A way to start that would look alive and not work ends at once, and says what to run."""

import subprocess
from pathlib import Path

import pytest

from tests.support.command import run
from tests.support.server import BIN, CONFIG, DEFAULTS, free_port

RIGHT = "gunicorn -c python:estat.gunicorn_conf estat.wsgi:app, or: estat serve"


def start(
    directory: Path, *argv: str | Path, arguments: str = "", **settings: str
) -> "subprocess.CompletedProcess[str]":
    """Run a command until it ends by itself."""
    environ = DEFAULTS | {
        "PATH": f"{BIN}:/usr/bin:/bin",
        "RAW_BUCKET": "file:data",
        "DLQ_DIR": "dlq",
        "HTTP_ADDR": f"127.0.0.1:{free_port()}",
        "GUNICORN_CMD_ARGS": arguments,
    }
    return run(argv, cwd=directory, env=environ | settings)


def check_refused(result: "subprocess.CompletedProcess[str]", why: str, directory: Path) -> None:
    assert result.returncode == 3
    told = [line for line in result.stderr.splitlines() if line.startswith("estat: ")]
    assert len(told) == 1, result.stderr
    assert why in told[0]
    assert told[0].endswith(RIGHT)
    assert "Traceback" not in result.stderr
    assert list(directory.iterdir()) == [], "nothing was made"


@pytest.mark.parametrize(
    ("application", "options"),
    [
        ("estat.wsgi:app", []),
        ("estat.wsgi:app", ["--preload"]),
        ("estat.wsgi:app", ["-k", "gthread"]),
        ("estat.demo.wsgi:app", ["-k", "gevent"]),
    ],
)
def test_without_the_configuration_file(
    application: str, options: list[str], tmp_path: Path
) -> None:
    bind = f"127.0.0.1:{free_port()}"
    argv = [BIN / "gunicorn", "-b", bind, "--no-control-socket", *options, application]
    check_refused(start(tmp_path, *argv), "without the server's configuration file", tmp_path)


@pytest.mark.quick
def test_without_it_and_with_the_servers_own_worker_class(tmp_path: Path) -> None:
    argv = [
        BIN / "gunicorn",
        "-b",
        f"127.0.0.1:{free_port()}",
        "--no-control-socket",
        "-k",
        "estat.server.worker.EstatWorker",
        "estat.wsgi:app",
    ]
    check_refused(start(tmp_path, *argv), "without the server's configuration file", tmp_path)


@pytest.mark.parametrize("option", ["--preload", "--check-config"])
def test_with_the_application_loaded_before_the_fork(option: str, tmp_path: Path) -> None:
    argv = [BIN / "gunicorn", "-c", CONFIG, "estat.wsgi:app"]
    result = start(tmp_path, *argv, arguments=option, WEB_CONCURRENCY="2")
    check_refused(result, "before the workers were forked", tmp_path)
    check_refused(start(tmp_path, *argv, option), "before the workers were forked", tmp_path)


@pytest.mark.parametrize("worker_class", ["sync", "gunicorn.workers.base.Worker", "gevent_pywsgi"])
def test_with_a_worker_class_that_is_neither_the_servers_own_nor_gevent(
    worker_class: str, tmp_path: Path
) -> None:
    argv = [BIN / "gunicorn", "-c", CONFIG, "--worker-class", worker_class, "estat.wsgi:app"]
    check_refused(start(tmp_path, *argv), f"worker class {worker_class} ", tmp_path)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--workers", "0"], "without workers"),
        (["--worker-connections", "0"], "without connections"),
        (["--reuse-port"], "share one socket"),
    ],
)
def test_with_a_setting_of_gunicorns_that_leaves_nobody_to_serve(
    options: list[str], why: str, tmp_path: Path
) -> None:
    argv = [BIN / "gunicorn", "-c", CONFIG, *options, "estat.wsgi:app"]
    check_refused(start(tmp_path, *argv), why, tmp_path)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("preload_app = True", "before the workers were forked"),
        ("worker_class = 'sync'", "worker class sync "),
    ],
)
def test_with_a_line_too_many_in_the_configuration_file(
    line: str, why: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = tmp_path_factory.mktemp("conf") / "gunicorn.conf.py"
    config.write_text(f"{CONFIG.read_text()}\n{line}\n")
    argv = [BIN / "gunicorn", "-c", config, "estat.wsgi:app"]
    check_refused(start(tmp_path, *argv), why, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [("--preload", "before the workers were forked"), ("-k sync", "worker class sync ")],
)
@pytest.mark.parametrize("command", [["serve"], ["demo", "--port", "{port}", "--dir", "."]])
def test_a_command_with_arguments_of_gunicorns_that_do_not_go_with_it(
    arguments: str, why: str, command: list[str], tmp_path: Path
) -> None:
    argv = [word.format(port=free_port()) for word in command]
    result = start(tmp_path, BIN / "estat", *argv, arguments=arguments)
    check_refused(result, why, tmp_path)
