"""Three servers behind a load balancer are replaced, reloaded and killed while clients send.

The balancer is haproxy with the configuration of conf/haproxy.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import both_workers, need
from tests.support import accounting
from tests.support.faulty_s3 import FaultyS3
from tests.support.fleet import NAMES, Fleet
from tests.support.haproxy import haproxy_path
from tests.support.s3 import Bucket, Endpoint

MakeFleet = Callable[..., Fleet]


@pytest.fixture
def fleet_of(tmp_path: Path, endpoint: Endpoint, bucket: Bucket) -> Iterator[MakeFleet]:
    """Start a fleet; it is gone at the end of the test."""
    need(haproxy_path(), "haproxy")
    with ExitStack() as running:

        def start(
            settings: dict[str, str], *, via: FaultyS3 | None = None, **options: Any
        ) -> Fleet:
            defaults = endpoint.environ | {"RAW_BUCKET": bucket.name}
            if via:
                defaults["AWS_ENDPOINT_URL_S3"] = via.url
            return running.enter_context(Fleet(tmp_path, defaults | settings, **options))

        yield start


@both_workers
def test_a_deploy_in_place_fails_no_request_and_stores_every_event_once(
    fleet_of: MakeFleet, bucket: Bucket
) -> None:
    # every request waits for the store, so some are in flight at each stop
    fleet = fleet_of({"DURABILITY": "stored"})
    with fleet.load:
        fleet.go_on()
        for name in NAMES:
            fleet.replace(name)
    fleet.check_nothing_failed()
    fleet.stop(*NAMES)
    assert sum(line["accepted"] for line in fleet.stopped) == len(fleet.load.accepted)
    accounting.check(fleet.load.accepted, bucket.stored())


def test_servers_that_are_deregistered_and_stopped_leave_nothing_on_their_disks(
    fleet_of: MakeFleet, bucket: Bucket
) -> None:
    # as ECS does it: a new task on a new disk, and the old one is deregistered before its SIGTERM
    fleet = fleet_of({"DURABILITY": "memory", "DRAIN_DELAY": "0s"}, spare=("estat4",))
    with fleet.load:
        fleet.go_on()
        fleet.join("estat4")
        for name in ("estat1", "estat2"):  # the second is scaling in
            fleet.balancer.deregister(name)
            fleet.stop(name)
            fleet.go_on()
    fleet.check_nothing_failed()
    for line in fleet.stopped:
        assert line["stored"] == line["accepted"] > 0
    assert len(fleet.stopped) == 2
    fleet.settle()
    accounting.check(fleet.load.accepted, bucket.stored())


def test_a_deploy_while_s3_is_down_fails_no_request_and_keeps_every_event_on_disk(
    fleet_of: MakeFleet, s3: FaultyS3, bucket: Bucket
) -> None:
    s3.fail("reset", method="*")
    fleet = fleet_of({"DURABILITY": "memory"}, via=s3)
    with fleet.load:
        fleet.go_on()
        for name in NAMES:
            fleet.replace(name)
    fleet.check_nothing_failed()
    for server in fleet.servers.values():
        server.until(server.all_on_disk, "all is on disk")
    assert fleet.listed_in_dlqs() == len(fleet.load.accepted)
    accounting.check(fleet.load.accepted, bucket.stored(), fleet.on_disk())

    s3.heal()
    fleet.settle()
    accounting.check(fleet.load.accepted, bucket.stored())


@both_workers
def test_a_reload_of_one_server_fails_no_request(fleet_of: MakeFleet, bucket: Bucket) -> None:
    fleet = fleet_of({})
    server = fleet.servers["estat2"]
    (old,) = server.worker_pids()
    with fleet.load:
        fleet.go_on()
        server.send_signal(signal.SIGHUP)
        server.until(
            lambda: len(server.worker_pids()) == 1 and old not in server.worker_pids(),
            "the old worker is gone",
        )
        fleet.balancer.await_state("estat2", "UP")
        fleet.go_on()
    fleet.check_nothing_failed()
    fleet.settle()
    accounting.check(fleet.load.accepted, bucket.stored())


#: Nothing but its size ends a batch, and nothing is stored before the one before it.
BATCH_EVENTS = 50
BATCHES = {"BATCH_SIZE": str(BATCH_EVENTS), "FLUSH_INTERVAL": "5m", "UPLOAD_CONCURRENCY": "1"}

VICTIM = "estat2"


class Kill:
    """One server is killed under load with half a batch in hand, started again, and all end.

    The clients connect anew for each request, so that haproxy logs every failure.
    """

    def __init__(self, fleet: Fleet) -> None:
        server = fleet.servers[VICTIM]

        def amid_a_batch() -> bool:
            found = server.metrics()
            done = found["s3_events_stored_total"] + found["dlq_events_current"]
            return done > 0 and BATCH_EVENTS / 2 < found["events_pending"] < BATCH_EVENTS

        with fleet.load:
            fleet.go_on()
            server.until(amid_a_batch, "half a batch waits")
            server.kill()
            fleet.balancer.await_state(VICTIM, "DOWN")
            known = fleet.load.mark()
            fleet.go_on()
            fleet.join(VICTIM)
        fleet.stop(*NAMES)
        logged = fleet.balancer.requests()
        self.failed = {sent.name: logged[sent.name] for sent in fleet.load.failed}
        #: The balancer knew by then.
        self.failed_late = [sent for sent in fleet.load.sent_since(known) if not sent.accepted]
        #: A connection that was refused has sent nothing.
        self.unanswered = [name for name, line in self.failed.items() if line.was_sent]
        self.accepted = set(fleet.load.accepted)
        self.accepted_by_victim = {name for name in self.accepted if logged[name].server == VICTIM}
        self.second_life = fleet.stopped[NAMES.index(VICTIM)]


@both_workers
def test_a_killed_server_fails_only_requests_that_were_at_it_and_loses_nothing(
    fleet_of: MakeFleet, bucket: Bucket
) -> None:
    # checks that are seldom enough for some requests to meet it before the balancer knows
    fleet = fleet_of(BATCHES | {"DURABILITY": "journal"}, keep_alive=False, check_seconds=0.5)
    kill = Kill(fleet)
    assert {line.server for line in kill.failed.values()} == {VICTIM}
    assert kill.failed_late == []
    assert kill.second_life["adopted"] > BATCH_EVENTS / 2
    accounting.check(kill.accepted, bucket.stored(), unanswered=kill.unanswered)


def test_a_server_that_is_killed_while_s3_is_down_loses_nothing_either(
    fleet_of: MakeFleet, s3: FaultyS3, bucket: Bucket
) -> None:
    s3.fail("reset", method="*")
    fleet = fleet_of(BATCHES | {"DURABILITY": "journal"}, via=s3, keep_alive=False)
    kill = Kill(fleet)
    assert {line.server for line in kill.failed.values()} <= {VICTIM}
    assert kill.failed_late == []
    accounting.check(kill.accepted, bucket.stored(), fleet.on_disk(), unanswered=kill.unanswered)

    s3.heal()
    fleet.start(*NAMES)
    fleet.settle()
    accounting.check(kill.accepted, bucket.stored(), unanswered=kill.unanswered)


def test_a_killed_server_in_memory_mode_loses_only_what_it_had_not_stored(
    fleet_of: MakeFleet, bucket: Bucket
) -> None:
    fleet = fleet_of(BATCHES | {"DURABILITY": "memory"}, keep_alive=False)
    kill = Kill(fleet)
    stored = bucket.stored()
    lost = kill.accepted - {line["body"]["n"] for line in stored}
    assert lost
    assert lost < kill.accepted_by_victim
    accounting.check(kill.accepted - lost, stored, unanswered=kill.unanswered)
    # three lives ended cleanly with the test, and one has not
    assert fleet.audit(bucket.name)["states"] == {"complete": 3, "open": 1}
