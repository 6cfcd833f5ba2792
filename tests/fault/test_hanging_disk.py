"""A disk that does not answer: what waits for it waits, nothing joins, and all ends well."""

import threading

from tests.conftest import Serve, both_workers, need
from tests.support import accounting
from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.s3 import Bucket
from tests.support.strace import injected, strace_path

pytestmark = both_workers

_HANG = "fdatasync:delay_enter=4000000"  # microseconds


def test_while_a_sync_hangs_no_other_request_is_taken_and_then_all_is_well(
    serve: Serve, bucket: Bucket
) -> None:
    need(strace_path(), "strace")
    server = serve(DURABILITY="fsync")
    client, patient = Client("others"), Client("patient")
    client.must_send(server, count=2)
    (worker,) = server.worker_pids()
    with injected([worker], _HANG):
        waits = threading.Thread(target=patient.must_send, args=(server,), kwargs={"count": 3})
        waits.start()
        eventually(lambda: "disk_error" in server.problems(), 20, "the hanging disk is noticed")
        answer = client.send(server)
        assert (answer.status, answer.json["title"]) == (503, "Disk failing")
        waits.join(timeout=20)
        assert len(patient.accepted) == 3, "it was answered when its sync was done"
    eventually(lambda: client.send(server).status == 202, 20, "events are taken again")
    assert server.problems() == []
    server.until(server.settled, "all is stored")
    accounting.check([*client.accepted, *patient.accepted], bucket.stored())
    assert server.stop() == 0
