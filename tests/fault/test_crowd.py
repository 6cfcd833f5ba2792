"""Servers that start together on one DLQ_DIR, in PID and mount namespaces of their own.

There they see each other's files, and neither processes nor locks in /proc/locks, as in containers
on one host.
"""

import os
import random
from pathlib import Path

import pytest

from tests.support import accounting
from tests.support.client import Client
from tests.support.crowd import Crowd
from tests.support.eventually import eventually
from tests.support.faulty_s3 import FaultyS3
from tests.support.s3 import Bucket, Endpoint

pytestmark = pytest.mark.usefixtures("namespaces")

#: What happens to one of the servers, once; tests/property/test_server_machine.py tries histories.
_TURNS = ("worker", "group", "arbiter", "restart", "freeze", "unlock", "move")


def test_kills_restarts_and_outages_among_servers_lose_double_and_miscount_nothing(
    tmp_path: Path, endpoint: Endpoint, s3: FaultyS3, bucket: Bucket
) -> None:
    seed = os.environ.get("KILLS_SEED") or str(random.SystemRandom().randrange(10**6))
    print(f"to repeat this run: KILLS_SEED={seed}")
    rng = random.Random(seed)
    settings = endpoint.environ | {"RAW_BUCKET": bucket.name, "AWS_ENDPOINT_URL_S3": s3.url}
    with Crowd(tmp_path, settings | {"BATCH_SIZE": "50"}, 3, workers=2) as crowd:
        with crowd.load():
            for kind in rng.sample(_TURNS, len(_TURNS)):
                s3.heal()
                weather = rng.choice([None, "503", "lands_then_resets"])
                if weather:
                    s3.fail(weather)
                crowd.go_on()
                getattr(crowd, kind)(rng.choice(crowd.servers), rng)
            crowd.go_on()
        s3.heal()
        crowd.settle(*crowd.servers)
        accounting.check(crowd.accepted, bucket.stored(), unanswered=crowd.unanswered)
        for server in crowd.servers:
            crowd.stop(server)
        # a stop leaves the record of a stream behind where its worker takes S3 for down
        last = crowd.servers[0]
        crowd.start(last)
        crowd.settle(last)
        crowd.stop(last)
        assert crowd.directories() == []
    accounting.check(crowd.accepted, bucket.stored(), unanswered=crowd.unanswered)


def test_of_six_servers_the_living_take_over_exactly_what_the_dead_left(
    tmp_path: Path, endpoint: Endpoint, s3: FaultyS3, bucket: Bucket
) -> None:
    settings = endpoint.environ | {"RAW_BUCKET": bucket.name, "AWS_ENDPOINT_URL_S3": s3.url}
    settings |= {"BATCH_SIZE": "10", "FLUSH_INTERVAL": "10m"}
    s3.fail("503")
    with Crowd(tmp_path, settings, 6, workers=1) as crowd:
        clients = [Client(f"s{number}") for number in range(6)]
        for server, client in zip(crowd.servers, clients, strict=True):
            client.must_send(server, count=10, requests=3)
            eventually(server.all_on_disk, 40, "the batches are in the DLQ")
            client.must_send(server, count=3)
        for server in crowd.servers:
            found = server.metrics()
            assert (found["dlq_events_current"], found["events_pending"]) == (30, 3), "its own"
        dead, living = crowd.servers[:3], crowd.servers[3:]
        for server in dead:
            server.kill()

        def total(name: str) -> float:
            return sum(server.metrics()[name] for server in living)

        eventually(
            lambda: total("events_adopted_total") == 3 * 33,
            60,
            "all is taken over",
            last_words=crowd.last_words,
        )
        assert total("dlq_events_current") == 3 * 33 + 3 * 30
        assert total("events_pending") == 3 * 3
        assert len(crowd.directories()) == 3
        for server in living:
            accounting.check_equation(server.metrics())
        assert bucket.stored() == []
        s3.heal()
        for server in living:
            crowd.stop(server)
        crowd.start(living[0])
        crowd.settle(living[0])
    accepted = [name for client in clients for name in client.accepted]
    accounting.check(accepted, bucket.stored())
