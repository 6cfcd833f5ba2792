"""A server with a KMS key, a class, tags, an owner and a role, and what an outage of STS costs."""

from collections.abc import Iterator

import pytest

from tests.conftest import Serve
from tests.support import accounting, iam
from tests.support.client import Client
from tests.support.dlq_dir import events_on_disk
from tests.support.eventually import eventually
from tests.support.faulty_s3 import FaultyS3
from tests.support.s3 import Bucket, Moto
from tests.support.sts import Sts

OWNER = "123456789012"
ROLE = f"arn:aws:iam::{OWNER}:role/writer"
KEY = f"arn:aws:kms:us-east-1:{OWNER}:key/1234abcd-12ab-34cd-56ef-1234567890ab"

#: Credentials are given up 5 s before their end, so these are used for 2 s.
LIFETIME_SECONDS = 7

# a probe of the breaker comes up to 30 s later
RECOVERY_SECONDS = 40


@pytest.fixture
def sts() -> Iterator[Sts]:
    with Sts() as running:
        running.lifetime_seconds = LIFETIME_SECONDS
        yield running


def test_events_are_stored_with_key_class_tags_owner_and_role(
    serve: Serve, s3: FaultyS3, moto: Moto, bucket: Bucket
) -> None:
    identity = iam.user_and_role(moto, "tenant-7")
    with iam.enforced(moto):
        server = serve(
            via=s3,
            AWS_ENDPOINT_URL_STS=moto.url,
            S3_ROLE_ARN=identity.role_arn,
            S3_ROLE_EXTERNAL_ID="tenant-7",
            S3_EXPECTED_BUCKET_OWNER=OWNER,
            S3_KMS_KEY_ID=KEY,
            S3_STORAGE_CLASS="STANDARD_IA",
            S3_OBJECT_TAGS="team=web,retention=1y",
            **identity.environ,
        )
        client = Client()
        client.must_send(server, count=10, requests=3)
        eventually(server.settled, 30, "everything is stored", last_words=server.log_text)
        assert server.stop() == 0
    accounting.check(client.accepted, bucket.stored())
    keys = bucket.keys()
    assert any(key.startswith("raw_streams/") for key in keys)
    for key in keys:
        head = bucket.head(key)
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", KEY)
        assert head["StorageClass"] == "STANDARD_IA"
        assert bucket.tags(key) == {"team": "web", "retention": "1y"}
    puts = s3.attempts("PUT", prefix="")
    assert {put.headers["x-amz-expected-bucket-owner"] for put in puts} == {OWNER}
    assert all("Credential=ASIA" in put.headers["authorization"] for put in puts), "the role's"


@pytest.mark.parametrize("fault", ["hang", "refuse"])
def test_an_outage_of_sts_costs_disk_and_nothing_else(
    fault: str, serve: Serve, s3: FaultyS3, sts: Sts, bucket: Bucket
) -> None:
    server = serve(via=s3, AWS_ENDPOINT_URL_STS=sts.url, S3_ROLE_ARN=ROLE, BATCH_SIZE="10")
    client = Client()
    client.must_send(server, count=10, requests=2)
    eventually(server.settled, 20, "it works at first", last_words=server.log_text)
    assert sts.given

    sts.fault = fault

    def send_and_look() -> bool:
        client.must_send(server, count=10)
        return server.metrics()["breaker_open"] == 1

    eventually(send_and_look, 30, "the role's credentials have expired")
    eventually(server.all_on_disk, 20, "the batches are in the DLQ", last_words=server.log_text)
    eventually(lambda: server.problems() == ["credentials"], 20, "they have ended")
    accounting.check(client.accepted, bucket.stored(), events_on_disk(server.dlq_dir))
    accounting.check_equation(server.metrics())

    if fault == "refuse":  # one that hangs is told after 30 s
        eventually(lambda: server.events("credentials_not_fetched"), 20, "the log names STS")
    sts.heal()
    eventually(server.settled, RECOVERY_SECONDS, "the DLQ empties", last_words=server.log_text)
    accounting.check(client.accepted, bucket.stored())
    assert server.stop() == 0
    accounting.check_stopped(server.logs())
    puts = s3.attempts("PUT")
    assert all("Credential=ASIATEST" in put.headers["authorization"] for put in puts)


def test_a_server_starts_accepts_and_stops_in_time_while_sts_hangs(
    serve: Serve, s3: FaultyS3, sts: Sts, bucket: Bucket
) -> None:
    sts.fault = "hang"
    server = serve(via=s3, AWS_ENDPOINT_URL_STS=sts.url, S3_ROLE_ARN=ROLE, SHUTDOWN_TIMEOUT="8s")
    client = Client()
    client.must_send(server, count=10, requests=3)
    assert server.stop() == 0
    accounting.check_stopped(server.logs())
    assert s3.attempts("*", prefix="") == [], "nothing is sent with other credentials"
    accounting.check(client.accepted, [], events_on_disk(server.dlq_dir))

    sts.heal()
    later = serve(via=s3, AWS_ENDPOINT_URL_STS=sts.url, S3_ROLE_ARN=ROLE)
    eventually(later.settled, RECOVERY_SECONDS, "the next start stores it")
    accounting.check(client.accepted, bucket.stored())
