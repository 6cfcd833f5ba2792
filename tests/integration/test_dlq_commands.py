"""``estat dlq`` as a person runs it: real directories, a real S3 protocol, a real server."""

import fcntl
import json
import os
import signal
import subprocess

import pytest

from estat.cli.dlq_files import select
from estat.disk import dlq_file, locks
from estat.disk.dlq import DeadLetterQueue
from estat.events import ids
from estat.events.gzip import gunzip
from tests.support import accounting
from tests.support.client import Client, Load
from tests.support.dlq_dir import dlq_paths, events_on_disk
from tests.support.eventually import eventually
from tests.support.server import BIN, DEFAULTS, free_port
from tests.unit.batches import STREAM, batch, lines
from tests.unit.journals import journal

NOW = 1763017800.0


def start(*arguments, cwd, **settings):
    environ = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME")} | DEFAULTS
    return subprocess.Popen(
        [BIN / "estat", "dlq", *arguments],
        cwd=cwd,
        env=environ | settings,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def estat(*arguments, cwd, **settings):
    with start(*arguments, cwd=cwd, **settings) as running:
        out, err = running.communicate(timeout=60)
    return subprocess.CompletedProcess(arguments, running.returncode, out, err)


@pytest.fixture
def directory(tmp_path):
    """A directory as a bucket."""
    return f"file:{tmp_path}/bucket"


def write(dlq, bucket, seq=1, opened=NOW):
    """Write a file of ten events and return its batch and path; ids go on from file to file."""
    written = batch(range(seq * 10 - 9, seq * 10 + 1), bucket=bucket, seq=seq, opened=opened)
    dlq.write(written, dlq_file.pack(written, "put_failed", "503 SlowDown"))
    (entry,) = select(dlq, [dlq_file.file_name(written)])
    return written, entry.path


def stored(directory):
    """Return every stored line of a directory, sorted."""
    found = []
    for path, _, names in os.walk(directory.removeprefix("file:")):
        for name in names:
            with open(os.path.join(path, name), "rb") as file:
                found += gunzip(file.read()).splitlines(keepends=True)
    return sorted(found)


def keep(directory, key, data):
    path = os.path.join(directory.removeprefix("file:"), key)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)


def events(numbers):
    return sorted(lines(numbers).splitlines(keepends=True))


def replay(dlq, bucket, *arguments, **settings):
    return estat(
        "replay",
        *arguments,
        cwd=dlq.root,
        DLQ_DIR=dlq.root,
        RAW_BUCKET=bucket,
        S3_APP_RETRIES="0",
        **settings,
    )


def stored_but_not_unlinked(dlq, path, bucket, moto):
    """Leave a file's object and the file itself, as a kill between the two does."""
    with open(path, "rb") as file:
        data = file.read()
    assert replay(dlq, bucket.name, AWS_ENDPOINT_URL_S3=moto.url).returncode == 0
    with open(path, "wb") as file:
        file.write(data)


# --- where to look


@pytest.mark.parametrize("command", [["ls"], ["verify"], ["export", "--to", "../out"]])
def test_reading_commands_need_no_setting_where_the_directory_is_named(dlq, directory, command):
    write(dlq, directory)
    result = estat(*command, "--dlq", dlq.root, cwd=dlq.root)
    assert (result.returncode, result.stderr) == (0, "")


def test_wrong_settings_are_all_told_where_the_directory_is_not_named(tmp_path):
    result = estat("ls", cwd=tmp_path, BATCH_SIZE="-1")
    assert result.returncode == 2
    assert "RAW_BUCKET is not set" in result.stderr
    assert "BATCH_SIZE" in result.stderr


def test_a_directory_that_is_not_there_is_exit_2(tmp_path):
    result = estat("ls", "--dlq", "nowhere", cwd=tmp_path)
    assert result.returncode == 2
    assert "nowhere: no such directory" in result.stderr


def test_the_files_of_all_servers_in_a_directory_are_meant(tmp_path):
    paths = []
    for number, server in enumerate(("", "servers/0199a", "servers/0199b.1"), 1):
        queue = DeadLetterQueue(str(tmp_path / server))
        queue.create()
        made = batch(seq=number)
        queue.write(made, dlq_file.pack(made, "put_failed", ""))
        paths += [entry.path for entry in queue.every()]
    (tmp_path / "servers" / "0199a" / "notes").touch()
    result = estat("ls", "--dlq", str(tmp_path), cwd=tmp_path)
    assert result.returncode == 0, result
    assert all(os.path.basename(path) in result.stdout for path in paths)
    assert "left alone servers/0199a/notes: no rule knows it" in result.stdout
    listed = json.loads(estat("ls", "--json", "--dlq", str(tmp_path), cwd=tmp_path).stdout)
    assert [told["path"] for told in listed["files"]] == [
        os.path.relpath(path, tmp_path) for path in paths
    ]
    removed = estat("rm", "--yes", paths[2], "--dlq", str(tmp_path), cwd=tmp_path)
    assert (removed.returncode, os.path.exists(paths[2])) == (0, False)


def test_a_reader_that_goes_away_ends_ls_without_a_word(dlq, directory):
    for seq in range(1, 400):  # more than a pipe holds
        write_fast(dlq, directory, seq)
    command = f"{BIN / 'estat'} dlq ls --dlq {dlq.root} | head -1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert result.stdout.startswith("AREA")
    assert result.stderr == ""


def write_fast(dlq, bucket, seq):
    written = batch(range(1, 3), bucket=bucket, seq=seq)
    slot = os.path.join(dlq.root, "pending", "2025-11-13T07")
    os.makedirs(slot, exist_ok=True)
    with open(os.path.join(slot, dlq_file.file_name(written)), "wb") as file:
        file.writelines(dlq_file.pack(written, "put_failed", "503 SlowDown " * 20))


# --- verify


def test_verify_finds_a_flipped_byte(dlq, directory):
    write(dlq, directory, 1)
    _, path = write(dlq, directory, 2)
    with open(path, "r+b") as file:
        file.seek(-30, os.SEEK_END)
        byte = file.read(1)
        file.seek(-30, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))
    result = estat("verify", "--dlq", dlq.root, cwd=dlq.root)
    assert result.returncode == 1
    assert result.stdout.splitlines() == [
        f"bad   {os.path.relpath(path, dlq.root)}: checksum does not match",
        "good: 1 file, 10 events; bad: 1",
    ]


def test_verify_reads_no_other_file_than_those_named(dlq, directory):
    _, good = write(dlq, directory, 1)
    _, bad = write(dlq, directory, 2)
    os.truncate(bad, 0)
    assert estat("verify", good, "--dlq", dlq.root, cwd=dlq.root).returncode == 0


# --- replay


@pytest.mark.quick
def test_replay_stores_every_file_once_and_deletes_it(dlq, moto):
    bucket = moto.new_bucket()
    for seq in (1, 2, 3):
        write(dlq, bucket.name, seq)
    result = replay(dlq, bucket.name, AWS_ENDPOINT_URL_S3=moto.url)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "stored: 3 files, 30 events\n"
    assert accounting.check_ids(bucket.stored()) == {batch().stream: 30}
    assert list(dlq.every()) == []


def test_replay_goes_to_the_files_own_bucket_and_key(dlq, directory, tmp_path):
    written, _ = write(dlq, directory)
    other = f"file:{tmp_path}/other"
    assert replay(dlq, other, "--also", directory, RAW_PREFIX="other").returncode == 0
    assert os.path.exists(f"{tmp_path}/bucket/{written.key}")
    assert not os.path.exists(f"{tmp_path}/other")


def test_replay_takes_expired_and_deferred_files_too_but_not_the_quarantine(dlq, directory):
    paths = [write(dlq, directory, seq)[1] for seq in (1, 2, 3)]
    for path, move in zip(paths, (dlq.quarantine, dlq.expire, dlq.defer), strict=True):
        (entry,) = select(dlq, [path])
        with dlq.claim(entry) as claim:
            move(claim, *([] if move == dlq.quarantine else [10**11]))
    result = replay(dlq, directory)
    assert result.returncode == 0
    assert stored(directory) == events(range(11, 31))
    assert [entry.area for entry in dlq.every()] == ["quarantine"]


@pytest.mark.quick
def test_a_replay_that_was_killed_between_put_and_unlink_does_not_double(dlq, moto):
    bucket = moto.new_bucket()
    written, path = write(dlq, bucket.name)
    stored_but_not_unlinked(dlq, path, bucket, moto)
    assert bucket.keys() == [written.key]
    assert replay(dlq, bucket.name, AWS_ENDPOINT_URL_S3=moto.url).returncode == 0
    assert bucket.keys() == [written.key]
    assert list(dlq.every()) == []


def test_replay_completes_an_object_that_has_some_of_the_events(dlq, directory):
    written, _ = write(dlq, directory)
    rest = ids.rest_key(written.key, 1)
    keep(directory, written.key, batch(range(1, 5)).payload)
    keep(directory, rest, batch(range(5, 8)).payload)
    assert replay(dlq, directory).returncode == 0
    assert stored(directory) == events(range(1, 11))


@pytest.mark.parametrize("where", ["directory", "bucket"])
def test_replay_replaces_an_object_that_was_cut_off(dlq, directory, bucket, moto, where):
    target = directory if where == "directory" else bucket.name
    written, _ = write(dlq, target)
    if where == "directory":
        keep(directory, written.key, batch(range(1, 16)).payload[:-1])
    else:
        bucket.put(written.key, batch(range(1, 16)).payload[:-1], **batch(range(1, 16)).metadata)
    dry = replay(dlq, target, "--dry-run", AWS_ENDPOINT_URL_S3=moto.url)
    assert "to be compared" in dry.stdout
    assert replay(dlq, target, AWS_ENDPOINT_URL_S3=moto.url).returncode == 0
    if where == "directory":
        assert stored(directory) == events(range(1, 16))
    else:
        (found,) = bucket.objects()
        assert sorted(gunzip(found.body).splitlines(keepends=True)) == events(range(1, 16))


@pytest.mark.parametrize("fault", ["web_page", "says_200"])
def test_replay_keeps_a_file_that_the_store_only_says_it_stored(dlq, bucket, s3, fault):
    _, path = write(dlq, bucket.name)
    s3.fail(fault, method="*" if fault == "web_page" else "PUT")
    result = replay(dlq, bucket.name, AWS_ENDPOINT_URL_S3=s3.url)
    assert result.returncode == 1
    assert os.path.exists(path)
    s3.heal()
    assert replay(dlq, bucket.name, AWS_ENDPOINT_URL_S3=s3.url).returncode == 0
    assert accounting.check_ids(bucket.stored()) == {batch().stream: 10}


def test_an_object_with_more_events_is_not_replaced_even_without_conditional_puts(dlq, moto):
    bucket = moto.new_bucket()
    written, _ = write(dlq, bucket.name)
    bucket.put(written.key, batch(range(1, 16)).payload)
    result = replay(dlq, bucket.name, AWS_ENDPOINT_URL_S3=moto.url, S3_CONDITIONAL_PUT="false")
    assert result.returncode == 0
    assert accounting.check_ids(bucket.stored()) == {batch().stream: 15}


def test_a_file_that_somebody_is_sending_is_skipped_and_kept(dlq, directory):
    write(dlq, directory, 1)
    _, path = write(dlq, directory, 2)
    with open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        result = replay(dlq, directory)
    assert result.returncode == 1
    assert f"skipped {os.path.relpath(path, dlq.root)}: in use" in result.stdout
    assert stored(directory) == events(range(1, 11))
    assert os.path.exists(path)


def test_an_unreadable_file_fails_is_kept_and_hides_no_other(dlq, directory):
    _, path = write(dlq, directory, 1)
    write(dlq, directory, 2)
    os.truncate(path, 50)
    result = replay(dlq, directory)
    assert result.returncode == 1
    assert f"failed {os.path.relpath(path, dlq.root)}: no header" in result.stdout
    assert stored(directory) == events(range(11, 21))
    assert os.path.exists(path)


def test_a_store_that_hangs_costs_its_deadline_and_no_file(dlq, s3, moto):
    bucket = moto.new_bucket()
    _, path = write(dlq, bucket.name)
    s3.fail("hang")
    result = replay(dlq, bucket.name, AWS_ENDPOINT_URL_S3=s3.url, S3_TIMEOUT="300ms")
    assert result.returncode == 1
    assert "no answer within 0.3s" in result.stdout
    assert os.path.exists(path)


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_a_replay_without_credentials_keeps_the_file_and_says_what_is_missing(dlq, moto, options):
    _, path = write(dlq, moto.new_bucket().name)
    result = replay(
        dlq,
        "today",
        *options,
        AWS_ENDPOINT_URL_S3=moto.url,
        AWS_ACCESS_KEY_ID="",
        AWS_CONTAINER_CREDENTIALS_FULL_URI=f"{moto.url}/credentials",
        AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=f"{dlq.root}/no-token",
    )
    assert (result.returncode, result.stderr) == (1, "")
    assert "no-token" in result.stdout
    assert os.path.exists(path)


@pytest.mark.quick
def test_an_interrupted_replay_keeps_the_file_and_says_so(dlq, s3, moto):
    bucket = moto.new_bucket()
    _, path = write(dlq, bucket.name)
    s3.fail("hang", method="HEAD")
    with start(
        "replay",
        cwd=dlq.root,
        DLQ_DIR=dlq.root,
        RAW_BUCKET=bucket.name,
        AWS_ENDPOINT_URL_S3=s3.url,
        S3_TIMEOUT="1m",
    ) as running:
        eventually(lambda: s3.attempts("HEAD"), 20, "it has begun")
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=20)
    assert (running.returncode, err) == (130, "")
    assert "interrupted: the other files are still there" in out
    assert os.path.exists(path)


def test_a_bucket_that_fails_ten_times_in_a_row_is_left_alone_and_no_other(dlq, directory):
    for seq in range(1, 21):
        write(dlq, "down", seq, opened=NOW + seq)
    write(dlq, directory, 21, opened=NOW + 21)
    result = replay(dlq, directory, AWS_ENDPOINT_URL_S3=f"http://127.0.0.1:{free_port()}")
    assert result.returncode == 1
    told = result.stdout.splitlines()
    assert "stored: 1 file, 10 events" in told
    failed = sum(line.startswith("failed pending/") for line in told)
    assert 10 <= failed < 14  # up to four at a time
    assert f"skipped: {20 - failed} files, {200 - 10 * failed} events" in told


def test_a_bucket_that_refuses_everything_is_left_alone_and_no_file_put_off(dlq, moto, s3):
    bucket = moto.new_bucket()
    for seq in range(1, 21):
        write(dlq, bucket.name, seq, opened=NOW + seq)
    s3.fail("400")
    result = replay(dlq, bucket.name, AWS_ENDPOINT_URL_S3=s3.url)
    assert result.returncode == 1
    assert 10 <= len(s3.attempts()) < 14  # up to four at a time, each tried once
    assert f"{bucket.name} failed 10 times in a row" in result.stdout
    s3.heal()
    assert replay(dlq, bucket.name, AWS_ENDPOINT_URL_S3=s3.url).returncode == 0
    assert len(bucket.keys("raw/")) == 20
    assert dlq.walk() == (0, 0, 0)


def test_a_rate_is_kept(dlq, moto, s3):
    bucket = moto.new_bucket()
    for seq in range(1, 5):
        write(dlq, bucket.name, seq, opened=NOW + seq)
    result = replay(dlq, bucket.name, "--rate", "5/s", AWS_ENDPOINT_URL_S3=s3.url)
    assert result.returncode == 0
    puts = s3.attempts()
    assert [put.key[-9:] for put in puts] == [".jsonl.gz"] * 4
    assert puts[-1].at - puts[1].at > 0.3  # the first one also loads the S3 library


@pytest.mark.quick
def test_a_dry_run_tells_what_is_stored_already_and_touches_nothing(dlq, moto, s3):
    bucket = moto.new_bucket()
    there, path = write(dlq, bucket.name, 1)
    stored_but_not_unlinked(dlq, path, bucket, moto)
    absent, _ = write(dlq, bucket.name, 2)
    before = set(dlq.every())
    result = replay(dlq, bucket.name, "--dry-run", AWS_ENDPOINT_URL_S3=s3.url)
    assert result.returncode == 0
    told = result.stdout.splitlines()
    assert told[0].startswith("already stored: ")
    assert told[0].endswith(f"s3://{bucket.name}/{there.key}")
    assert told[1].startswith("to be stored: ")
    assert told[1].endswith(f"s3://{bucket.name}/{absent.key}")
    assert s3.attempts("PUT") == []
    assert set(dlq.every()) == before


def test_a_dry_run_says_where_ids_will_be_compared(dlq, directory):
    written, _ = write(dlq, directory)
    keep(directory, written.key, batch(range(1, 5)).payload)
    result = replay(dlq, directory, "--dry-run")
    assert result.stdout.startswith("to be compared: ")
    assert stored(directory) == events(range(1, 5))


# --- journals


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_a_replay_of_a_journal_leaves_it_alone_and_is_exit_2(dlq, directory, options):
    path = journal(bucket=directory).write(dlq.root)
    result = replay(dlq, directory, f"{STREAM}/000001.journal", *options)
    assert (result.returncode, result.stdout) == (2, "")
    assert f"journal/{STREAM}/000001.journal is a journal" in result.stderr
    assert "recovered when a server starts" in result.stderr
    assert os.path.exists(path)


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_a_replay_says_which_journals_wait_for_a_server(dlq, directory, options):
    write(dlq, directory, 3)
    paths = [journal(seq=seq, bucket=directory).write(dlq.root) for seq in (1, 2)]
    result = replay(dlq, directory, *options)
    assert result.returncode == 0
    assert result.stdout.splitlines()[-1] == (
        "note: journals of dead processes are left alone: 2 files, 20 events; "
        "a server that starts on the directory recovers them"
    )
    assert all(map(os.path.exists, paths))
    assert stored(directory) == ([] if options else events(range(21, 31)))


def test_a_replay_has_nothing_to_say_of_a_living_servers_journals(dlq, directory):
    held = locks.lock(os.path.join(dlq.root, "lock"), create=True)
    journal(bucket=directory).write(dlq.root)
    result = replay(dlq, directory, "--while-running")
    os.close(held)
    assert (result.returncode, result.stdout) == (0, "stored: 0 files, 0 events\n")


def test_an_export_of_journals_is_recovered_by_a_server_that_starts_on_it(serve, bucket, tmp_path):
    lost = DeadLetterQueue(str(tmp_path / "lost"))
    lost.create()
    journal(bucket=bucket.name).write(lost.root)
    server_dlq = str(tmp_path / "dlq")  # where the server will look
    export = estat("export", "--to", server_dlq, "--dlq", lost.root, cwd=tmp_path)
    assert (export.returncode, export.stderr) == (0, "")
    server = serve()
    eventually(bucket.stored, 30, "they are stored", last_words=server.log_text)
    assert accounting.check_ids(bucket.stored()) == {STREAM: 10}
    assert server.stop() == 0


# --- rm


def test_rm_without_yes_deletes_nothing_and_tells_what_would_be_lost(dlq, directory):
    _, first = write(dlq, directory, 1)
    _, second = write(dlq, directory, 2)
    result = estat("rm", first, second, "--dlq", dlq.root, cwd=dlq.root)
    assert result.returncode == 1
    assert "would lose 2 files, 20 events" in result.stdout
    assert os.path.exists(first)
    assert os.path.exists(second)


def test_rm_with_yes_deletes_what_is_named_and_nothing_else(dlq, directory):
    _, first = write(dlq, directory, 1)
    _, second = write(dlq, directory, 2)
    result = estat("rm", os.path.basename(first), "--yes", "--dlq", dlq.root, cwd=dlq.root)
    assert (result.returncode, result.stdout) == (0, "deleted 1 file, 10 events; not deleted: 0\n")
    assert not os.path.exists(first)
    assert os.path.exists(second)


def test_rm_leaves_a_file_that_somebody_is_sending(dlq, directory):
    _, path = write(dlq, directory)
    with open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        result = estat("rm", path, "--yes", "--dlq", dlq.root, cwd=dlq.root)
    assert result.returncode == 1
    assert "in use" in result.stdout
    assert os.path.exists(path)


# --- export


def test_an_export_is_a_dlq_of_its_own_and_the_files_stay(dlq, directory, tmp_path):
    _, path = write(dlq, directory)
    out = str(tmp_path / "out")
    assert estat("export", "--to", out, "--dlq", dlq.root, cwd=dlq.root).returncode == 0
    assert os.path.exists(path)
    assert estat("verify", "--dlq", out, cwd=dlq.root).stdout.startswith("good: 1 file, 10 events")
    assert replay(DeadLetterQueue(out), directory).returncode == 0
    assert stored(directory) == events(range(1, 11))


def test_an_export_can_be_repeated_but_replaces_nothing(dlq, directory, tmp_path):
    write(dlq, directory, 1)
    write(dlq, directory, 2)
    export = ("export", "--events", "--to", str(tmp_path / "out"), "--dlq", dlq.root)
    estat(*export, cwd=dlq.root)
    changed, _ = sorted((tmp_path / "out").iterdir())
    assert (changed.suffix, changed.read_bytes()) == (".jsonl", lines(range(1, 11)))
    changed.write_text("mine\n")
    result = estat(*export, cwd=dlq.root)
    assert result.returncode == 1
    assert "is there already, and different" in result.stdout
    assert "1 file, 10 events; not exported: 1" in result.stdout
    assert changed.read_text() == "mine\n"


def test_an_export_into_the_dlq_itself_is_refused(dlq, directory):
    write(dlq, directory)
    result = estat("export", "--to", "pending", "--dlq", dlq.root, cwd=dlq.root)
    assert result.returncode == 2
    assert len(list(dlq.every())) == 1


def test_a_damaged_file_can_be_exported_whole_but_not_as_events(dlq, directory, tmp_path):
    _, path = write(dlq, directory)
    os.truncate(path, 50)
    export = ("export", "--dlq", dlq.root, "--to", str(tmp_path / "out"))
    assert estat(*export, cwd=dlq.root).returncode == 0
    assert estat(*export, "--events", cwd=dlq.root).returncode == 1


# --- beside a server


def test_the_files_of_a_running_server_can_be_read_but_are_taken_away_only_when_told_so(
    serve, s3, bucket
):
    server = serve(via=s3, BATCH_SIZE="10")
    client = Client()
    s3.fail("503")
    client.must_send(server, count=10, requests=5)
    eventually(server.all_on_disk, 20, "the batches are in the DLQ")
    paths = [str(path) for path in dlq_paths(server.dlq_dir)]

    def run(*arguments):
        return estat(
            *arguments,
            cwd=server.dlq_dir,
            DLQ_DIR=str(server.dlq_dir),
            RAW_BUCKET=bucket.name,
            AWS_ENDPOINT_URL_S3=s3.url,
        )

    assert run("verify").returncode == 0
    assert run("replay", "--dry-run").returncode == 0
    for taking in (["replay"], ["rm", paths[0], "--yes"]):
        result = run(*taking)
        assert result.returncode == 1
        assert "a server is working on" in result.stderr
    assert [str(path) for path in dlq_paths(server.dlq_dir)] == paths
    told = eventually(  # the server is sending one at times
        lambda: (done := run("rm", paths[0], "--yes", "--while-running")).returncode == 0 and done,
        20,
        "it is deleted",
    )
    assert "deleted 1 file, 10 events" in told.stdout
    assert not os.path.exists(paths[0])


def test_ls_reads_along_while_a_server_writes_and_replays(serve, s3, bucket):
    server = serve(via=s3, workers=2, BATCH_SIZE="10")
    client = Client()
    most = 0
    s3.fail("503")
    for round_number in range(12):
        if round_number == 8:
            s3.heal()
        listing = start("ls", "--json", "--dlq", str(server.dlq_dir), cwd=server.dlq_dir)
        client.must_send(server, count=10, requests=10)
        out, err = listing.communicate(timeout=60)
        assert (listing.returncode, err) == (0, "")
        found = json.loads(out)
        assert not {told["reason"] for told in found["files"]} & {"unreadable", "not read"}
        most = max(most, found["total"]["files"])
    assert most > 0
    eventually(server.settled, 30, "the DLQ empties", last_words=server.log_text)
    accounting.check(client.accepted, bucket.stored())


def test_the_journals_of_a_server_are_read_along_while_it_writes_and_after_it_was_killed(
    serve, bucket
):
    server = serve(workers=2, BATCH_SIZE="50")
    root = str(server.dlq_dir)

    def run(*arguments):
        result = estat(*arguments, "--dlq", root, cwd=root)
        assert (result.returncode, result.stderr) == (0, ""), result
        return result.stdout

    owners = []
    with Load(server, clients=2) as load:
        for number in range(3):
            eventually(lambda least=50 * number: len(load.accepted) > least, 20, "the load runs")
            listed = json.loads(run("ls", "--json"))["files"]
            # on a slow machine, batches may be in the DLQ as well
            found = [told for told in listed if told["area"] == "journal"]
            assert {told["reason"] for told in found} <= {"not stored yet"}
            assert not [told for told in found if told["error"]]
            owners += [told["owner_alive"] for told in found]
            assert run("verify").endswith("; bad: 0\n")
            run("export", "--events", "--to", f"{root}-export{number}")
        server.kill()
    assert owners
    assert set(owners) == {True}
    found = json.loads(run("ls", "--json"))["files"]
    assert {told["owner_alive"] for told in found if told["area"] == "journal"} <= {False}

    second = serve(workers=2)
    eventually(second.settled, 30, "all is stored", last_words=second.log_text)
    eventually(
        lambda: set(load.accepted) <= {line["body"]["n"] for line in bucket.stored()},
        30,
        "what was accepted is recovered",
    )
    accounting.check(load.accepted, bucket.stored(), unanswered=load.unanswered)


@pytest.mark.quick
def test_the_dlq_of_a_lost_host_is_replayed_without_its_server(serve, s3, moto, bucket):
    server = serve(via=s3, BATCH_SIZE="10")
    client = Client()
    client.must_send(server, count=10, requests=3)
    eventually(server.settled, 20, "the first ones are stored")
    s3.fail("lands_then_resets", times=4)
    client.must_send(server, count=10, requests=2)
    eventually(lambda: server.metrics()["events_pending"] == 0, 20, "none is in memory")
    s3.fail("503")
    client.must_send(server, count=10, requests=5)
    eventually(server.all_on_disk, 20, "the rest is in the DLQ")
    server.kill()
    assert len(events_on_disk(server.dlq_dir)) >= 50
    result = replay(DeadLetterQueue(str(server.dlq_dir)), bucket.name, AWS_ENDPOINT_URL_S3=moto.url)
    assert result.returncode == 0, result.stdout
    accounting.check(client.accepted, bucket.stored(), events_on_disk(server.dlq_dir))
    assert dlq_paths(server.dlq_dir) == []
