"""The credentials of an assumed role (S3_ROLE_ARN), renewed ahead of their end.

    valid for over 15 minutes   used as they are
    15 minutes or less          used, while STS is asked for new ones in the background
    expired, or none yet        an attempt waits for STS, as long as it may wait at all

So no upload waits for STS while there are credentials that work, and an outage of
STS of up to a quarter of an hour goes by unnoticed but for a line in the log. After
that it is an outage like any other: StoreUnavailable, or StoreDenied where STS says
no. One question is asked at a time, whoever waits for it; it has a deadline of its
own, and goes on when the attempt that waits for it is cut off, so that a slow answer
serves the next attempt.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import gevent
from botocore.config import Config
from botocore.credentials import (
    AssumeRoleCredentialFetcher,
    CredentialProvider,
    CredentialResolver,
    Credentials,
    DeferredRefreshableCredentials,
)
from botocore.exceptions import ClientError
from botocore.session import Session

from estat.errors import ASSUME_ROLE, StoreDenied, StoreError, StoreUnavailable
from estat.log import Seldom

log = logging.getLogger(__name__)
_seldom = Seldom(log)

#: What botocore's credentials are made of, ``expiry_time`` in ISO 8601.
Values = Mapping[str, Any]

_STS_SECONDS = 5.0  # to connect, and again for the answer
_ANSWER_SECONDS = 15.0  # in all, with what the credentials that assume the role may need first
_RENEW_SECONDS = 900.0  # ahead of the end; botocore asks for fresh ones from then on, too
_MARGIN_SECONDS = 5.0  # a request that is signed now should arrive before the end
_AGAIN_SECONDS = 30.0  # between questions in the background that failed

# Codes of STS that speak of the moment. A source's expired token is renewed by its own provider.
_TRANSIENT = {
    "ExpiredToken",
    "ExpiredTokenException",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
}


class RoleCredentials:
    """What is known of the role's credentials, and the one question to STS under way."""

    def __init__(self, role_arn: str, fetch: Callable[[], Values]) -> None:
        self._role_arn = role_arn
        self._fetch = fetch  # blocks, raises
        self._held: Values | None = None
        self._asking: _Question | None = None
        self._again_at = 0.0

    def get(self) -> Values:
        """Return credentials that work for some seconds at least. Raises StoreError."""
        held = self._held
        if held is None or _seconds_left(held) <= _MARGIN_SECONDS:
            return self._ask().answer()
        if _seconds_left(held) <= _RENEW_SECONDS and time.monotonic() >= self._again_at:
            self._ask()
        return held

    def _ask(self) -> "_Question":
        asking = self._asking
        if asking is None:
            asking = self._asking = _Question()
            # not a thread of a pool, whose end the process would wait for
            thread = threading.Thread(target=self._run, args=(asking,), name="role", daemon=True)
            try:
                thread.start()
            except Exception:
                self._asking = None  # else everybody would wait for an answer that never comes
                raise
        return asking

    def _run(self, asking: "_Question") -> None:
        # the plain form: botocore's own handlers let a BaseException through
        timeout = gevent.Timeout.start_new(_ANSWER_SECONDS)
        try:
            asking.values = self._held = self._fetch()
        except (Exception, gevent.Timeout) as exc:  # noqa: BLE001 - handed to whoever waits
            asking.error = _failure(self._role_arn, exc)
            self._again_at = time.monotonic() + _AGAIN_SECONDS
            _seldom.warning("role_not_assumed", "sts", error=str(asking.error))
        finally:
            timeout.close()
            self._asking = None
            asking.done.set()


class _Question:
    """One call of STS; any number may wait for its answer."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.values: Values | None = None
        self.error: StoreError | None = None

    def answer(self) -> Values:
        self.done.wait()
        if self.values is None:
            error = self.error or StoreUnavailable("no answer of STS", ASSUME_ROLE)
            # an error of one's own for each that waits
            raise type(error)(str(error), error.operation, error.code) from error
        return self.values


class _Provider(CredentialProvider):  # type: ignore[misc]  # botocore has no types
    """The role as the only place where a session looks for credentials."""

    METHOD = "assume-role"

    def __init__(self, role: RoleCredentials) -> None:
        super().__init__()
        self._role = role

    def load(self) -> DeferredRefreshableCredentials:
        return DeferredRefreshableCredentials(self._role.get, self.METHOD)


def assume(
    session: Session,
    source: Credentials,
    role_arn: str,
    external_id: str,
    session_name: str,
    region: str | None,
) -> None:
    """Have a session's clients use the role from now on; ``source`` is who may assume it.

    Nothing is asked yet: STS may be away when a server starts.
    """

    def client(service: str, **keys: str) -> Any:
        return session.create_client(
            service,
            region_name=region,
            config=Config(
                retries={"total_max_attempts": 1, "mode": "standard"},
                connect_timeout=_STS_SECONDS,
                read_timeout=_STS_SECONDS,
            ),
            **keys,
        )

    asked = {"RoleSessionName": session_name}
    if external_id:
        asked["ExternalId"] = external_id
    fetcher = AssumeRoleCredentialFetcher(client, source, role_arn, extra_args=asked)
    role = RoleCredentials(role_arn, fetcher.fetch_credentials)
    session.register_component("credential_provider", CredentialResolver([_Provider(role)]))
    # it would log each failure with a traceback; each is in an attempt's error, and told above
    logging.getLogger("botocore.credentials").setLevel(logging.ERROR)


def session_name(instance_id: str) -> str:
    """Return the name under which the role's requests show in CloudTrail."""
    return f"estat-{instance_id}"  # 7 to 54 of the 2 to 64 characters that STS allows


def _seconds_left(values: Values) -> float:
    end = datetime.fromisoformat(values["expiry_time"])
    return (end - datetime.now(UTC)).total_seconds()


def _failure(role_arn: str, exc: BaseException) -> StoreError:
    """Turn what came of asking STS into what to do.

    Who asks needs credentials too: where these can't be had or renewed, the error names
    that operation, or has its exception for a code.
    """
    operation, code = ASSUME_ROLE, type(exc).__name__
    kind: type[StoreError] = StoreUnavailable
    if isinstance(exc, ClientError):
        operation = exc.operation_name
        code = str(exc.response.get("Error", {}).get("Code", ""))
        status = int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if 400 <= status < 500 and status != 429 and code not in _TRANSIENT:
            kind = StoreDenied
    return kind(f"assuming {role_arn}: {type(exc).__name__}: {exc}", operation, code)
