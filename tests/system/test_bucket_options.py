"""A server with a KMS key, a class, tags, an owner and a role."""

from tests.conftest import Serve
from tests.support import accounting, iam
from tests.support.client import Client
from tests.support.faulty_s3 import FaultyS3
from tests.support.s3 import Bucket, Moto

OWNER = "123456789012"
ROLE = f"arn:aws:iam::{OWNER}:role/writer"
KEY = f"arn:aws:kms:us-east-1:{OWNER}:key/1234abcd-12ab-34cd-56ef-1234567890ab"


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
        server.until(server.settled, "everything is stored")
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
