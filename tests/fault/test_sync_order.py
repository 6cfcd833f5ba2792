"""The order of system calls: an answer only after its events are as safe as DURABILITY says.

What a kill can't show: the kernel keeps what was written whether it was synced or not.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from tests.conftest import Serve, need
from tests.support import accounting
from tests.support.client import Client, Load
from tests.support.eventually import eventually
from tests.support.s3 import Bucket
from tests.support.strace import Call, calls, over, strace_path, under_strace

_NAME = re.compile(r'\\"n\\": ?\\"([\w-]+)\\"')
_TRACED = (
    "write,pwrite64,writev,fsync,fdatasync,sync_file_range,openat,mkdir,rename,"
    "recvfrom,sendto,sendmsg"
)


def trace(
    durability: str, serve: Serve, bucket: Bucket, tmp_path: Path
) -> tuple[list[Call], Path, set[str]]:
    """Serve requests one by one and together; return the calls, DLQ_DIR and the events."""
    need(strace_path(), "strace")
    log = tmp_path / "strace.log"
    dlq_dir = tmp_path / "not" / "there" / "yet"
    # a sync comes back late, so that an answer that does not wait for it is there before
    slow = ["-e", f"trace={_TRACED}", "-e", "inject=fdatasync:delay_exit=3000"]
    with under_strace(tmp_path, log, slow):
        server = serve(DURABILITY=durability, DLQ_DIR=str(dlq_dir), BATCH_SIZE="40")
    client = Client()
    client.must_send(server, requests=10)
    client.must_send(server, count=7, requests=10)
    with Load(server, clients=8, per_request=2) as load:
        eventually(lambda: len(load.accepted) >= 400, 30, "many are sent together")
    assert not load.refused
    assert not load.unanswered
    pid = server.process.pid
    assert server.stop() == 0
    eventually(lambda: over(log, pid), 20, "the log is complete")
    accepted = [*client.accepted, *load.accepted]
    accounting.check(accepted, bucket.stored())
    return calls(log), dlq_dir, set(accepted)


def names(call: Call) -> list[str]:
    return [name for text in call.strings for name in _NAME.findall(text)]


def groups(found: list[Call]) -> list[Call]:
    """Return the writes of groups to journals."""
    return [c for c in found if c.name == "write" and c.file.endswith(".journal") and names(c)]


def answers(found: list[Call]) -> Iterable[tuple[Call, list[str]]]:
    """Return each 202, and the events that had come on its connection since the last answer."""
    heard: dict[str, list[str]] = defaultdict(list)
    for call in found:
        if call.name == "recvfrom" and call.file.startswith("TCP"):
            heard[call.file] += names(call)
        elif call.name in ("sendto", "sendmsg") and "HTTP/1.1 202" in call.arguments:
            yield call, heard.pop(call.file)


def first(found: Iterable[Call], what: str) -> Call:
    call = next(iter(found), None)
    assert call, f"never: {what}"
    return call


def syncs(found: list[Call], path: str) -> list[Call]:
    return [c for c in found if c.name in ("fsync", "fdatasync") and c.file == path and c.worked]


def test_with_fsync_each_answer_follows_the_sync_of_the_write_of_its_events(
    serve: Serve, bucket: Bucket, tmp_path: Path
) -> None:
    found, dlq_dir, accepted = trace("fsync", serve, bucket, tmp_path)
    written = {name: group for group in groups(found) for name in names(group)}
    answered: set[str] = set()
    together = 0
    first_answers: dict[str, Call] = {}
    for answer, events in answers(found):
        assert events
        (group,) = {written[name] for name in events}
        sync = first(
            (c for c in syncs(found, group.file) if c.entered > group.left), f"sync of {group.file}"
        )
        assert sync.name == "fdatasync"
        assert sync.left < answer.entered, f"answered before it was synced: {events}"
        assert group.worked
        answered.update(events)
        together += len(names(group)) > len(events)
        first_answers.setdefault(group.file, answer)
    assert answered == accepted
    assert together >= 10, "too few requests shared a group to show anything"
    assert len(first_answers) >= 5, "too few journals to show anything"
    assert len([c for c in found if c.name == "fdatasync"]) == len(groups(found)), "one a group"

    for path, answer in first_answers.items():
        before = [call for call in found if call.left < answer.entered]
        created = first((c for c in before if c.opened == path and "O_CREAT" in c.arguments), path)
        assert any(c.entered > created.left for c in syncs(before, path) if c.name == "fsync")
        stream = os.path.dirname(path)
        assert any(c.entered > created.left for c in syncs(before, stream)), f"{path} has no name"
        hidden = os.path.join(os.path.dirname(stream), "." + os.path.basename(stream))
        named = first(
            (c for c in before if c.name == "rename" and c.strings[-1] == stream), f"name {stream}"
        )
        assert named.strings[0].startswith(hidden)
        assert any(c.entered > named.left for c in syncs(before, os.path.dirname(stream)))
        journals = Path(stream).parent
        own = journals.parent
        assert any(c.name == "rename" and c.strings[-1] == str(own) for c in before)
        assert any(c.entered < created.entered for c in syncs(before, str(own.parent)))
        for directory in (journals, own.parent, dlq_dir, dlq_dir.parent, dlq_dir.parent.parent):
            made = first(
                (c for c in before if c.name == "mkdir" and c.strings[0] == str(directory)),
                f"mkdir {directory}",
            )
            assert any(c.entered > made.left for c in syncs(before, str(directory.parent))), (
                f"{directory} has no name"
            )


def test_with_journal_each_answer_follows_the_write_of_its_events_and_nothing_waits_for_a_sync(
    serve: Serve, bucket: Bucket, tmp_path: Path
) -> None:
    found, _, accepted = trace("journal", serve, bucket, tmp_path)
    written = {name: group for group in groups(found) for name in names(group)}
    answered: set[str] = set()
    for answer, events in answers(found):
        (group,) = {written[name] for name in events}
        assert group.worked
        assert group.left < answer.entered, f"answered before it was written: {events}"
        answered.update(events)
    assert answered == accepted
    assert not [c for c in found if c.name in ("fdatasync", "sync_file_range")]
    assert not [c for c in found if c.name == "fsync" and c.file.endswith(".journal")]
