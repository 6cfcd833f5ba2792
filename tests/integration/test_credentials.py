"""Credentials are fetched beside requests, from real sources that are slow, hang, refuse or end."""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from estat.config import loading
from estat.errors import ASSUME_ROLE, NoCredentials, StoreError
from estat.stores import Stores, s3_credentials
from estat.stores.s3_credentials import Credentials
from tests.support import credentials
from tests.support.credentials import ROLE, Container, Helper
from tests.support.eventually import eventually
from tests.support.sts import Sts
from tests.unit.batches import batch

BATCH = batch()

#: By botocore's name of the source.
SOURCES = (
    "container-role",
    "iam-role",
    "assume-role-with-web-identity",
    "assume-role",
    "custom-process",
    "config-file",
    "env, then S3_ROLE_ARN",
)
#: Of a slow source: above S3_TIMEOUT here, and above botocore's own limits, which are 1 s and 2 s.
SLOW_SECONDS = 2.5


@pytest.fixture
def sts():
    with Sts() as running:
        yield running


@pytest.fixture
def container():
    with Container() as running:
        yield running


@pytest.fixture
def helper(tmp_path):
    return Helper(tmp_path)


class Sources:
    """Every source, all of them well at first."""

    def __init__(self, directory: Path, sts: Sts, container: Container, helper: Helper) -> None:
        self._directory = directory
        self.sts, self.container, self.helper = sts, container, helper

    def environ(self, name: str) -> dict[str, str]:
        directory, sts, container = self._directory, self.sts, self.container
        if name == "iam-role":
            return credentials.instance(container)
        if name == "assume-role":
            return credentials.profile_with_a_role(directory, sts)
        if name == "env, then S3_ROLE_ARN":
            keys = {"AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": "secret"}
            return keys | {"S3_ROLE_ARN": ROLE, "AWS_ENDPOINT_URL_STS": sts.url}
        source = {
            "container-role": lambda: credentials.token_file(directory, container),
            "assume-role-with-web-identity": lambda: credentials.web_identity(directory, sts),
            "custom-process": lambda: self.helper,
            "config-file": lambda: credentials.config_file(directory),
        }[name]()
        source.mended()
        return source.environ


@pytest.fixture
def sources(tmp_path, sts, container, helper):
    return Sources(tmp_path, sts, container, helper)


@pytest.fixture
def fetched(monkeypatch, tmp_path):
    """Begin to fetch credentials."""

    def begin(on_arrival=lambda: None, **environ):
        for name in list(os.environ):
            if name.startswith(("AWS_", "S3_")):
                monkeypatch.delenv(name)
        given = {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path), **environ}
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        settings = {"RAW_BUCKET": "bucket", "AWS_REGION": "eu-central-1", "S3_TIMEOUT": "1s"}
        keeper = Credentials(loading.load(settings | environ, env_file=""), on_arrival)
        keeper.start()
        return keeper

    return begin


@pytest.fixture
def limit(monkeypatch):
    """Let a fetch take two seconds."""
    monkeypatch.setattr(s3_credentials, "FETCH_SECONDS", 2.0)


@pytest.fixture
def told(caplog):
    """Return the names of the log's lines, without those that come after."""
    caplog.set_level(logging.INFO, logger="estat.stores.s3_credentials")
    return lambda: [record.getMessage() for record in caplog.records]


def arrived(keeper):
    """Return the access key, once there is one."""
    return eventually(lambda: not keeper.missing and keeper, 20, "credentials arrive")


def failed(keeper):
    """Return why there are none, once that is known."""

    def reason():
        try:
            keeper.get_frozen_credentials()
        except NoCredentials as exc:
            return "yet" not in str(exc) and exc
        return None

    return eventually(reason, 20, "it is known that there are none")


@pytest.mark.quick
@pytest.mark.parametrize("name", SOURCES)
def test_each_source_gives_credentials_and_is_named(name, sources, fetched):
    keeper = fetched(**sources.environ(name))
    keeper.wait(20)
    assert keeper.source == name
    assert keeper.get_frozen_credentials().access_key.startswith(("AKIATEST", "ASIATEST"))


@pytest.mark.parametrize("name", ["container-role", "assume-role", "custom-process"])
def test_a_source_that_is_slower_than_a_request_may_be_gives_credentials(name, sources, fetched):
    environ = sources.environ(name)
    sources.sts.delay_seconds = sources.container.delay_seconds = SLOW_SECONDS
    sources.helper.is_slow(SLOW_SECONDS)
    keeper = fetched(**environ)
    keeper.wait(20)
    assert keeper.source == name


@pytest.mark.parametrize(
    ("name", "fault", "reason"),
    [
        ("container-role", "hang", "no answer within 2s"),
        ("container-role", "expired", "expired"),
        ("iam-role", "refuse", "status code of 401"),
        ("assume-role-with-web-identity", "refuse", "AccessDenied"),
        ("assume-role", "503", "ServiceUnavailable"),
        ("env, then S3_ROLE_ARN", "refuse", f"assuming {ROLE}"),
        ("env, then S3_ROLE_ARN", "hang", "no answer within 2s"),
    ],
)
def test_what_is_wrong_with_a_source_is_told_once_and_passes_by_itself(
    name, fault, reason, sources, fetched, told, monkeypatch
):
    monkeypatch.setattr(s3_credentials, "_RETRY_CAP_SECONDS", 1.0)
    if fault == "hang":
        monkeypatch.setattr(s3_credentials, "FETCH_SECONDS", 2.0)
    environ = sources.environ(name)
    sources.sts.fault = sources.sts.web_fault = sources.container.fault = fault
    came = []
    keeper = fetched(lambda: came.append(keeper.source), **environ)
    error = failed(keeper)
    assert name in str(error)
    assert reason in str(error)
    assert (error.operation == ASSUME_ROLE) == ("S3_ROLE_ARN" in name)
    assert told() == ["credentials_not_fetched"]

    sources.sts.heal()
    sources.container.heal()
    arrived(keeper)
    eventually(lambda: came == [name], 5, "who waits is told")
    assert told() == ["credentials_not_fetched", "credentials_fetched"]


@pytest.mark.quick
def test_while_nothing_is_known_a_request_waits_and_once_it_is_fails_at_once(
    helper, fetched, limit
):
    helper.hangs()
    keeper = fetched(**helper.environ)
    with pytest.raises(NoCredentials, match="yet"):
        keeper.wait(0.1)
    with pytest.raises(NoCredentials, match="no answer within 2s"):
        keeper.wait(60)
    first = helper.pids()
    eventually(lambda: helper.pids() != first, 10, "the next fetch hangs, too")
    with pytest.raises(NoCredentials, match="no answer within 2s"):
        keeper.wait(60)
    assert helper.left(), "it still hangs: nobody waited for it"


@pytest.mark.quick
def test_a_helper_that_hangs_is_killed_with_its_children_and_reaped_at_the_deadline(
    helper, fetched, limit
):
    helper.hangs()
    keeper = fetched(**helper.environ)
    first = eventually(helper.pids, 10, "it hangs")
    failed(keeper)
    assert [pid for pid in first if os.path.exists(f"/proc/{pid}")] == []


def test_a_helper_that_hangs_is_killed_and_reaped_when_nobody_waits_any_more(helper, fetched):
    helper.hangs()
    keeper = fetched(**helper.environ)
    eventually(helper.pids, 10, "it hangs")
    keeper.close()
    assert helper.left() == []


ASKER = """
import os, time
from estat.config import loading
from estat.stores.s3_credentials import Credentials
Credentials(loading.load({"RAW_BUCKET": "bucket"}, env_file=""), int).start()
time.sleep(1000)
"""


def test_a_helper_that_hangs_does_not_outlive_a_worker_that_is_killed(helper, tmp_path):
    helper.hangs()
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)} | helper.environ
    with subprocess.Popen([sys.executable, "-c", ASKER], env=environ) as asker:
        eventually(helper.pids, 20, "it hangs")
        asker.send_signal(signal.SIGKILL)
    eventually(lambda: not helper.left(), 20, "both processes are gone")


def test_the_region_of_the_settings_is_where_a_profiles_role_is_assumed(sources, fetched):
    keeper = fetched(**sources.environ("assume-role"))
    keeper.wait(20)
    assert [call["region"] for call in sources.sts.calls] == ["eu-central-1"]


def test_they_are_renewed_before_their_end_and_the_old_ones_serve_until_then(sources, fetched):
    environ = sources.environ("env, then S3_ROLE_ARN")
    sts = sources.sts
    sts.lifetime_seconds = 13  # used for 8 s, renewed after 4
    keeper = fetched(**environ)
    keeper.wait(20)
    first = keeper.get_frozen_credentials().access_key
    sts.fault = "hang"
    eventually(lambda: len(sts.calls) == 2, 10, "a renewal hangs")
    assert keeper.get_frozen_credentials().access_key == first
    sts.heal()
    eventually(lambda: keeper.get_frozen_credentials().access_key != first, 10, "new ones")


def test_a_renewal_that_fails_is_told_twice_when_it_fails_and_when_the_old_ones_end(
    sources, fetched, caplog, monkeypatch
):
    monkeypatch.setattr(s3_credentials, "_RETRY_CAP_SECONDS", 1.0)
    environ = sources.environ("env, then S3_ROLE_ARN")
    sources.sts.lifetime_seconds = 9
    keeper = fetched(**environ)
    keeper.wait(20)
    sources.sts.fault = "refuse"
    eventually(lambda: len(caplog.records) == 2, 20, "both are told")
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("WARNING", "credentials_not_fetched"),
        ("ERROR", "credentials_not_fetched"),
    ]
    assert keeper.missing
    assert ROLE in str(failed(keeper))


def test_one_fetch_runs_at_a_time_for_two_buckets_with_credentials_of_their_own(sources, fetched):
    environ = sources.environ("assume-role")
    sources.sts.delay_seconds = 0.5
    with_role = fetched(**environ, S3_ROLE_ARN=ROLE)
    without = fetched(**environ)
    with_role.wait(20)
    without.wait(20)
    assert len(sources.sts.calls) == 3
    assert sources.sts.most_at_once == 1


def test_keys_in_the_environment_are_there_at_once_and_start_no_process(fetched, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    keeper = fetched(AWS_ACCESS_KEY_ID="AKIATEST", AWS_SECRET_ACCESS_KEY="secret")
    assert keeper.get_frozen_credentials()[:2] == ("AKIATEST", "secret")
    assert not keeper.missing


def test_a_process_that_can_not_be_run_is_an_outage_like_any_other(fetched, monkeypatch, helper):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    keeper = fetched(**helper.environ)
    assert "/nowhere/python" in str(failed(keeper))


@pytest.mark.parametrize(
    ("refusal", "method"),
    [
        ((403, "InvalidAccessKeyId"), "put"),
        ((400, "ExpiredToken"), "put"),
        ((400, "TokenRefreshRequired"), "put"),
        # what is replayed is looked up first, and nothing else may be sent for hours
        ((400, "ExpiredToken"), "head"),
    ],
)
def test_keys_that_the_store_does_not_take_any_more_are_fetched_anew(
    refusal, method, endpoint, s3, bucket, tmp_path, monkeypatch
):
    monkeypatch.setattr(s3_credentials, "_RETRY_CAP_SECONDS", 0.0)
    source = credentials.config_file(tmp_path)
    source.mended()
    for name, value in (endpoint.environ | source.environ).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3.url)
    s3.refuse(
        lambda headers: (*refusal, "gone") if "AKIATEST" in headers["authorization"] else None
    )
    environ = {"RAW_BUCKET": bucket.name, "AWS_REGION": "us-east-1"}
    stores = Stores(loading.load(environ, env_file=""))
    store = stores.get(bucket.name)

    def ask():
        if method == "head":
            store.head(BATCH.key)
        else:
            store.put(BATCH.key, BATCH.payload, BATCH.crc32, BATCH.content_type, BATCH.metadata)
        return True

    with pytest.raises(StoreError) as caught:
        ask()
    assert caught.value.code == ("400" if method == "head" else refusal[1])
    config = tmp_path / "aws-config"
    config.write_text(config.read_text().replace("AKIATEST", "AKIAOTHER"))

    def taken():
        try:
            return ask()
        except Exception as exc:
            raise AssertionError from exc

    eventually(taken, 20, "the new keys are used")
