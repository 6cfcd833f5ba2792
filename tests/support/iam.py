"""A user and a role in moto, and moto made to check keys, signatures and rights.

moto knows a policy's actions, not its conditions or resources; of a trust policy it knows
principal and external id. It does not know that tags want a right of their own, and asks
nothing of KMS.
"""

import json
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import boto3

from tests.support.s3 import Moto


class Identity(NamedTuple):
    """A user's keys, and the role that may be for it."""

    access_key: str
    secret_key: str
    role_arn: str

    @property
    def environ(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}


def user_and_role(moto: Moto, external_id: str, *, role_may: str = "s3:*") -> Identity:
    """Make a user that may assume a role and nothing else, and that role."""
    iam: Any = boto3.client(
        "iam",
        endpoint_url=moto.url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    name = uuid.uuid4().hex
    user = iam.create_user(UserName=name)["User"]["Arn"]
    keys = iam.create_access_key(UserName=name)["AccessKey"]
    iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=_policy("sts:AssumeRole"))
    trust = {
        "Effect": "Allow",
        "Action": "sts:AssumeRole",
        "Principal": {"AWS": user},
        "Condition": {"StringEquals": {"sts:ExternalId": external_id}},
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)["Role"]["Arn"]
    iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=_policy(role_may))
    iam.close()
    return Identity(keys["AccessKeyId"], keys["SecretAccessKey"], role)


@contextmanager
def enforced(moto: Moto) -> Iterator[None]:
    """Have moto check every request until the end of the block."""
    _allow(moto, "0")
    try:
        yield
    finally:
        _allow(moto, "inf")


def _policy(action: str) -> str:
    statement = {"Effect": "Allow", "Action": action, "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def _allow(moto: Moto, unchecked_requests: str) -> None:
    request = urllib.request.Request(
        f"{moto.url}/moto-api/reset-auth",
        unchecked_requests.encode(),
        {"Content-Type": "text/plain"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.status == 200
