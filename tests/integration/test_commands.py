"""``estat check`` and ``estat serve`` as a person runs them."""

import os
import signal
import subprocess

import pytest

from estat.disk import dlq_file
from estat.disk.dlq import DeadLetterQueue
from tests.support.command import run
from tests.support.server import BIN, DEFAULTS, free_port
from tests.unit.batches import batch

pytestmark = pytest.mark.quick


def estat(*arguments, cwd, **settings):
    environ = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME")} | DEFAULTS
    return run([BIN / "estat", *arguments], cwd=cwd, env=environ | settings)


def statuses(result):
    return [line.split()[0] for line in result.stdout.splitlines()]


def test_a_good_setup_passes_the_check_and_keeps_no_probe(tmp_path):
    result = estat("check", cwd=tmp_path, RAW_BUCKET="file:data", DLQ_DIR=str(tmp_path / "dlq"))
    assert result.returncode == 0, result.stdout
    assert "FAIL" not in statuses(result)
    assert [name for _, _, names in os.walk(tmp_path / "data") for name in names] == []


def test_a_check_whose_words_nobody_reads_keeps_no_probe(tmp_path):
    settings = {"RAW_BUCKET": "file:data", "DLQ_DIR": str(tmp_path / "dlq")}
    with subprocess.Popen(
        [BIN / "estat", "check"],
        cwd=tmp_path,
        env=os.environ | DEFAULTS | settings | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        while b"bucket: wrote" not in process.stdout.readline():
            assert process.poll() is None
        process.stdout.close()
    assert [name for _, _, names in os.walk(tmp_path / "data") for name in names] == []


def test_a_good_s3_bucket_passes_the_check_and_keeps_no_probe(tmp_path, moto):
    bucket = moto.new_bucket()
    result = estat(
        "check",
        cwd=tmp_path,
        RAW_BUCKET=bucket.name,
        DLQ_DIR=str(tmp_path / "dlq"),
        AWS_ENDPOINT_URL_S3=moto.url,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert bucket.keys() == []


def test_a_misspelt_setting_is_a_warning_that_does_not_show_its_value(tmp_path):
    (tmp_path / ".env").write_text("RAW_BUKET=hunter2\nRAW_BUCKET=file:data\nDLQ_DIR=dlq\n")
    result = estat("check", cwd=tmp_path)
    assert result.returncode == 0, result.stdout
    lines = result.stdout.splitlines()
    assert "warn settings: RAW_BUKET is no setting; did you mean RAW_BUCKET?" in lines
    assert "hunter2" not in result.stdout + result.stderr


def test_a_server_starts_with_a_misspelt_setting_and_says_so_once(serve, tmp_path):
    (tmp_path / ".env").write_text("DURABILTY=hunter2\n")
    server = serve(workers=2)
    (line,) = server.events("setting_unknown")
    assert (line["variable"], line["nearest"]) == ("DURABILTY", "DURABILITY")
    assert "hunter2" not in server.log_text()


def test_valid_settings_that_lose_or_are_too_small_for_each_other_are_warnings(tmp_path):
    result = estat(
        "check",
        cwd=tmp_path,
        RAW_BUCKET="file:data",
        DLQ_DIR="dlq",
        WRITE_KEYS="hunter2",
        DLQ_MAX_SIZE_BYTES="4KiB",
        S3_TIMEOUT="7s",
    )
    assert result.returncode == 0
    assert "hunter2" not in result.stdout
    told = [line for line in result.stdout.splitlines() if line.startswith("warn settings: ")]
    names = ("put ?key= into its URL", "DLQ_MAX_SIZE_BYTES", "SHUTDOWN_TIMEOUT")
    assert [name in line for name, line in zip(names, told, strict=True)] == [True] * 3


def test_a_missing_bucket_fails_the_check_with_what_to_do(tmp_path, moto):
    result = estat(
        "check",
        cwd=tmp_path,
        RAW_BUCKET="no-such-bucket-here",
        DLQ_DIR=str(tmp_path / "dlq"),
        AWS_ENDPOINT_URL_S3=moto.url,
    )
    assert result.returncode == 1
    assert "NoSuchBucket" in result.stdout
    assert "check RAW_BUCKET" in result.stdout


def test_a_server_that_works_is_healthy(serve, bucket, tmp_path):
    server = serve()
    result = estat("health", cwd=tmp_path, HTTP_ADDR=f":{server.port}")
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "check",
        "demo --dir data",
        "dlq ls",
        "dlq show x",
        "dlq verify",
        "dlq replay",
        "send lines --retries 0",
        "audit data --dlq dlq",
        "audit data --dlq dlq --json",
    ],
)
def test_a_command_whose_reader_went_away_ends_as_others_do(tmp_path, command):
    queue = DeadLetterQueue(str(tmp_path / "dlq"))
    queue.create()
    waiting = batch(bucket=f"file:{tmp_path}/data")
    queue.write(waiting, dlq_file.pack(waiting, "put_failed", "x"))
    (tmp_path / "lines").write_text('{"n":1}\n')
    arguments = [dlq_file.file_name(waiting) if one == "x" else one for one in command.split()]
    if arguments[0] == "demo":
        arguments += ["--port", str(free_port())]
    if arguments[0] == "send":
        arguments += ["--url", f"http://127.0.0.1:{free_port()}/collect"]
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as out:
        result = subprocess.run(
            [BIN / "estat", *arguments],
            cwd=tmp_path,
            stdout=out,
            stderr=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "RAW_BUCKET": "file:data", "DLQ_DIR": "dlq"},
            text=True,
            timeout=60,
            check=False,
        )
    assert (result.returncode, result.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize(
    ("settings", "told"), [({"BATCH_SIZE": "zero"}, "BATCH_SIZE='zero'"), ({}, "DLQ_DIR")]
)
def test_the_production_start_refuses_what_it_can_not_work_with_and_exits_with_2(
    tmp_path, pytestconfig, settings, told
):
    (tmp_path / "file").touch()
    given = {"RAW_BUCKET": "file:data", "HTTP_ADDR": ":0", "DLQ_DIR": f"{tmp_path}/file/dlq"}
    result = run(
        [BIN / "gunicorn", "-c", pytestconfig.rootpath / "conf/gunicorn.conf.py", "estat.wsgi:app"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], **given, **settings},
    )
    assert result.returncode == 2
    assert told in result.stderr
