"""A role's credentials: one question at a time, ahead of their end, in no upload's way."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from estat.errors import ASSUME_ROLE, StoreDenied, StoreUnavailable
from estat.stores import role
from estat.stores.role import RoleCredentials

ARN = "arn:aws:iam::123456789012:role/writer"


class Sts:
    """Responses once it is let to, with what it was told last."""

    def __init__(self):
        self.calls = 0
        self.seconds = 3600
        self.error = None
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.was_asked = threading.Event()

    def __call__(self):
        self.calls += 1
        number, error = self.calls, self.error
        self.was_asked.set()
        assert self.may_answer.wait(20)
        if error:
            raise error
        end = datetime.now(UTC) + timedelta(seconds=self.seconds)
        return {"access_key": str(number), "expiry_time": end.isoformat()}


def refusal(code, status):
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, ASSUME_ROLE)


@pytest.fixture
def sts():
    return Sts()


@pytest.fixture
def credentials(sts):
    return RoleCredentials(ARN, sts)


def test_credentials_that_last_are_not_asked_for_again(credentials, sts):
    assert [credentials.get()["access_key"] for _ in range(5)] == ["1"] * 5
    assert sts.calls == 1


def test_all_who_wait_share_one_question(credentials, sts):
    sts.may_answer.clear()
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(credentials.get) for _ in range(8)]
        assert sts.was_asked.wait(20)
        sts.may_answer.set()
        assert {one.result(timeout=20)["access_key"] for one in waiting} == {"1"}
    assert sts.calls == 1


def test_credentials_near_their_end_go_on_while_new_ones_are_asked_for(credentials, sts):
    sts.seconds = 600
    credentials.get()
    sts.was_asked.clear()
    sts.may_answer.clear()
    assert credentials.get()["access_key"] == "1"
    assert sts.was_asked.wait(20)
    assert credentials.get()["access_key"] == "1"
    asking = credentials._asking
    sts.may_answer.set()
    assert asking.done.wait(20)
    assert credentials.get()["access_key"] == "2"


def test_an_sts_that_is_away_goes_unnoticed_while_credentials_last_and_is_left_in_peace(
    credentials, sts
):
    sts.seconds = 600
    credentials.get()
    sts.error = EndpointConnectionError(endpoint_url="https://sts")
    sts.was_asked.clear()
    sts.may_answer.clear()
    credentials.get()
    assert sts.was_asked.wait(20)
    asking = credentials._asking
    sts.may_answer.set()
    assert asking.done.wait(20)
    assert [credentials.get()["access_key"] for _ in range(5)] == ["1"] * 5
    assert sts.calls == 2


def test_expired_credentials_are_never_handed_out(credentials, sts):
    sts.seconds = role._MARGIN_SECONDS - 1
    credentials.get()
    sts.error = refusal("InternalFailure", 500)
    with pytest.raises(StoreUnavailable):
        credentials.get()
    sts.error = None
    assert credentials.get()["access_key"] == "3"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (refusal("AccessDenied", 403), StoreDenied),
        (refusal("ValidationError", 400), StoreDenied),
        (refusal("RegionDisabledException", 403), StoreDenied),
        (refusal("Throttling", 400), StoreUnavailable),
        (refusal("ExpiredToken", 403), StoreUnavailable),
        (refusal("ServiceUnavailable", 503), StoreUnavailable),
        (EndpointConnectionError(endpoint_url="https://sts"), StoreUnavailable),
        (ValueError("what is this"), StoreUnavailable),
    ],
)
def test_a_role_that_can_not_be_assumed_is_an_outage_and_never_one_objects_fault(
    error, kind, credentials, sts
):
    sts.error = error
    with pytest.raises(kind, match=ARN) as caught:
        credentials.get()
    assert caught.value.operation == ASSUME_ROLE


HANGS = """
from gevent import monkey
monkey.patch_all()
import time
from estat.errors import StoreUnavailable
from estat.stores import role

role._ANSWER_SECONDS = 0.2
asked = []

def fetch():
    asked.append(1)
    if len(asked) == 1:
        time.sleep(3600)
    return {"access_key": "2", "expiry_time": "2999-01-01T00:00:00+00:00"}

credentials = role.RoleCredentials("arn", fetch)
try:
    credentials.get()
except StoreUnavailable as exc:
    print(exc)
print(credentials.get()["access_key"])
"""


def test_a_question_that_hangs_ends_and_the_next_one_is_asked():
    # what renews the credentials that assume the role may have no limit of its own
    done = subprocess.run(
        [sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines() == ["assuming arn: Timeout: 0.2 seconds", "2"], done.stderr
