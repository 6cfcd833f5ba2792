"""Asks botocore for credentials, in the process that ``s3_fetch`` supervises.

What it prints are lines of JSON, of which later ones add to earlier ones:

    {"source": "custom-process"}          who is asked now, in botocore's words; for a role
                                          "operation", too
    {"keys": [KEY, SECRET, TOKEN], "seconds": 3600.0}      what is left of them; null: no end
    {"text": "…", "operation": "…", "code": "…", "busy": false}       instead of keys

Nothing here is bound in time: the supervisor does that. So the limits of botocore, which are
made for callers that wait, are wider here.
"""

import json
import logging
import os
import time
from datetime import datetime
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.configprovider import ConstantProvider
from botocore.credentials import (
    AssumeRoleCredentialFetcher,
    Credentials,
    ReadOnlyCredentials,
    RefreshableCredentials,
)
from botocore.session import Session
from botocore.utils import ContainerMetadataFetcher

from estat.errors import ASSUME_ROLE, StoreError, StoreUnavailable
from estat.stores.s3_errors import store_error

_ONE_ATTEMPT = {"total_max_attempts": 1, "mode": "standard"}  # attempts are the asker's to count

_CONNECT_SECONDS, _STS_CONNECT_SECONDS = 2, 10
_METADATA_SECONDS = 8  # a task's or an instance's endpoint, which botocore asks up to three times

_TEXT_CHARS = 1000  # a helper's own words may be long


def tell(request: dict[str, Any]) -> None:
    """Print the outcome of a request, also an error."""
    try:
        _say(**_fetch(request))
    except Exception as exc:  # noqa: BLE001 - the layers below boto3 raise anything
        found = exc if isinstance(exc, StoreError) else store_error(exc)
        busy = isinstance(found, StoreUnavailable)
        _say(text=str(found)[:_TEXT_CHARS], operation=found.operation, code=found.code, busy=busy)


def _say(**facts: Any) -> None:
    os.write(1, json.dumps(facts).encode() + b"\n")


def _fetch(request: dict[str, Any]) -> dict[str, Any]:
    """Ask each of botocore's sources in turn, then for the role. Raises what these do."""
    session = _session(request["region"])
    endpoint = _Endpoint()
    found = None
    for provider in session.get_component("credential_provider").providers:
        _say(source=provider.METHOD)
        found = provider.load()
        if found is not None:
            break
    if found is None:
        raise StoreUnavailable(
            f"no credentials were found; {endpoint.said}", code="NoCredentialsError"
        )
    keys = found.get_frozen_credentials()
    if request["role"]:
        _say(source=f"{found.method}, then S3_ROLE_ARN", operation=ASSUME_ROLE)
        return _of_role(session, keys, request)
    return _answer(keys, getattr(found, "_expiry_time", None))


def _session(region: str) -> Session:
    # what was got a moment ago is not asked for again, however short its life is
    RefreshableCredentials._advisory_refresh_timeout = 0  # noqa: SLF001
    RefreshableCredentials._mandatory_refresh_timeout = 0  # noqa: SLF001
    ContainerMetadataFetcher.TIMEOUT_SECONDS = (_CONNECT_SECONDS, _METADATA_SECONDS)
    session = botocore.session.get_session()
    given = session.get_config_variable("metadata_service_timeout")
    session.get_component("config_store").set_config_provider(
        "metadata_service_timeout", ConstantProvider((given, max(given, _METADATA_SECONDS)))
    )
    if region:
        session.set_config_variable("region", region)  # botocore does not read AWS_REGION
    session.set_default_client_config(
        Config(retries=_ONE_ATTEMPT, connect_timeout=_STS_CONNECT_SECONDS)
    )
    return session


def _of_role(
    session: Session, keys: ReadOnlyCredentials, request: dict[str, Any]
) -> dict[str, Any]:
    """Assume S3_ROLE_ARN. Raises the StoreError that tells that it was this that failed."""
    role, source = request["role"], Credentials(keys.access_key, keys.secret_key, keys.token)
    fetcher = AssumeRoleCredentialFetcher(
        session.create_client, source, role, extra_args=request["role_options"]
    )
    try:
        got = fetcher.fetch_credentials()
    except Exception as exc:
        found = store_error(exc)
        raise type(found)(f"assuming {role}: {found}", ASSUME_ROLE, found.code) from exc
    expiry = datetime.fromisoformat(got.pop("expiry_time"))
    return _answer(ReadOnlyCredentials(**got), expiry)


def _answer(keys: ReadOnlyCredentials, expiry: Any) -> dict[str, Any]:
    seconds = None
    if expiry:
        seconds = expiry.timestamp() - time.time()
        if seconds <= 0:
            raise StoreUnavailable(f"what it gave expired at {expiry}, by this host's clock")
    return {"keys": keys[:3], "seconds": seconds}


class _Endpoint(logging.Handler):
    """Keeps what an instance's endpoint said: botocore tells that to its log alone."""

    def __init__(self) -> None:
        super().__init__()
        self.said = "an instance's endpoint was not asked"
        logger = logging.getLogger("botocore.utils")
        logger.setLevel(logging.DEBUG)
        logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Take note of a message; an error says more than that there is one."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, Exception):
            self.said = str(store_error(error))
        elif not record.getMessage().startswith("Max number of attempts"):
            self.said = record.getMessage()[:_TEXT_CHARS]
