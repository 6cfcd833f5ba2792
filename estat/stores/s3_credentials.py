"""The credentials that requests to S3 are signed with, fetched beside the requests.

A process, ``s3_fetch``, does the fetching, one fetch at a time, and no request waits for it for
long. A request is signed with the keys that are there, or fails:

    none yet, the first fetch runs   a request waits for it, within a part of its own time
    none, and the last fetch failed  a request fails at once, with the reason
    15 minutes or less are left      a fetch runs; until it succeeds, the old keys are used
    a fetch failed                   the next one follows, 1 to 30 s later

One line tells that fetches fail, and why; one that they work again. Keys that stand in the
environment can't change, and need no process.
"""

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import botocore.credentials
from botocore.credentials import EnvProvider, ReadOnlyCredentials

from estat.config.settings import Settings
from estat.errors import NoCredentials
from estat.stores import s3_fetch
from estat.stores.store import full_jitter

log = logging.getLogger(__name__)
log.addHandler(logging.NullHandler())  # a command, which sets up no log, tells errors by itself

#: What a fetch may take.
FETCH_SECONDS = 30.0
_AHEAD_SECONDS = 900.0  # before the end of the old keys
_MARGIN_SECONDS = 5.0  # a request that is signed now should arrive before the end
_RETRY_BASE_SECONDS, _RETRY_CAP_SECONDS = 1.0, 30.0
_LEAST_SECONDS = 1.0  # between fetches
_END_SECONDS = 2.0  # for a fetch that was told to end
_FOREVER_SECONDS = 10.0**9  # for keys without an end

_one_at_a_time = threading.Lock()


class Credentials(botocore.credentials.Credentials):  # type: ignore[misc]
    """What boto3 signs with; it never waits for a fetch.

    ``on_arrival`` is called when there are keys after there were none.
    """

    def __init__(self, settings: Settings, on_arrival: Callable[[], object]) -> None:
        super().__init__("", "", method="fetched beside")
        self._on_arrival = on_arrival
        self.source = ""
        self.took_seconds = 0.0
        self._request = _request(settings)
        self._keys = None if settings.s3_role_arn else _of_environment()
        self._until = time.monotonic() + _FOREVER_SECONDS  # of the keys
        self._error: NoCredentials | None = None  # of the last fetch
        self._told: object = None
        self._fetched_at = 0.0
        self._outcome = threading.Event()  # set between fetches
        self._wake = threading.Event()
        self._closed = False
        self._lifeline = -1
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to fetch; return at once."""
        if self._keys:
            self.source = EnvProvider.METHOD
        else:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    @property
    def missing(self) -> bool:
        """Whether nothing can be signed now."""
        return self._keys is None or time.monotonic() >= self._until

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """Return the keys. Raises NoCredentials."""
        if self._keys is None or self.missing:
            raise self._error or NoCredentials(f"no credentials from {self.source or 'anyone'} yet")
        return self._keys

    def wait(self, seconds: float) -> None:
        """Wait until there are keys, at most so long. Raises NoCredentials if there are none."""
        if self.missing and not self._error:
            self._outcome.wait(seconds)
        self.get_frozen_credentials()

    def renew(self) -> None:
        """Fetch again soon, for the store does not take these keys."""
        if time.monotonic() - self._fetched_at > _RETRY_CAP_SECONDS:
            self._wake.set()

    def close(self) -> None:
        """End a fetch that is under way; none follows."""
        self._closed = True
        self._wake.set()
        self._hang_up()
        if self._thread:
            self._thread.join(_END_SECONDS)

    def _run(self) -> None:
        """Fetch when it is time, for ever."""
        failures = 0
        while not self._closed:
            self._outcome.clear()
            try:
                with _one_at_a_time:
                    pause = self._fetch()
                failures = 0
            except Exception as exc:  # noqa: BLE001 - there must be a next time
                failures += 1
                pause = full_jitter(failures, _RETRY_BASE_SECONDS, _RETRY_CAP_SECONDS)
                self._failed(exc)
            self._fetched_at = time.monotonic()
            self._outcome.set()
            self._wake.wait(max(pause, _LEAST_SECONDS))
            self._wake.clear()

    def _fetch(self) -> float:
        """Take new keys over; return the seconds until they should be renewed."""
        started = time.monotonic()
        said = self._ask()
        self.took_seconds = time.monotonic() - started
        if "keys" not in said:
            text = said.get("text", "the fetch ended without an answer")
            raise NoCredentials(
                f"no credentials from {self.source}: {text}",
                said.get("operation", ""),
                said.get("code", ""),
                is_busy=said.get("busy", False),
            )
        were_missing = self.missing
        left = said["seconds"]
        usable = _FOREVER_SECONDS if left is None else left - _MARGIN_SECONDS
        self._keys = ReadOnlyCredentials(*said["keys"])
        self._until = time.monotonic() + usable
        if self._error or not self._told:
            facts = {"source": self.source, "seconds": round(self.took_seconds, 1)}
            log.info("credentials_fetched", extra=facts)
        self._error, self._told = None, self.source
        if were_missing:
            self._outcome.set()
            self._on_arrival()
        return max(usable - _AHEAD_SECONDS, usable / 2)

    def _ask(self) -> dict[str, Any]:
        """Run the process, and return what it said. Raises OSError if it can't be run."""
        said: dict[str, Any] = {}
        if self._closed:
            return said
        read, self._lifeline = os.pipe()
        try:
            with open(read, "rb") as stdin:
                process = subprocess.Popen(  # noqa: S603 - our own program
                    [sys.executable, "-P", s3_fetch.__file__],
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            with process:
                # the process alone can read it by now: if that ends, nobody waits here
                os.write(self._lifeline, json.dumps(self._request).encode() + b"\n")
                for line in process.stdout or ():
                    with contextlib.suppress(ValueError):  # cut off by a kill
                        said |= json.loads(line)
                    self.source = said.get("source", "")
        finally:
            self._hang_up()
        return said

    def _hang_up(self) -> None:
        """Tell the process that nobody waits any more."""
        lifeline, self._lifeline = self._lifeline, -1
        if lifeline >= 0:
            os.close(lifeline)

    def _failed(self, exc: Exception) -> None:
        """Keep the reason for the requests that fail by it; tell it once."""
        if not isinstance(exc, NoCredentials):  # there is no process, say
            exc = NoCredentials(f"no credentials: {type(exc).__name__}: {exc}")
        self._error = exc
        missing = self.missing
        if self._closed or self._told == (str(exc), missing):
            return
        self._told = (str(exc), missing)
        seconds = 0 if missing else round(self._until - time.monotonic())
        facts = {"source": self.source, "error": str(exc), "valid_seconds": seconds}
        level = logging.ERROR if missing else logging.WARNING
        log.log(level, "credentials_not_fetched", extra=facts)


def _request(settings: Settings) -> dict[str, Any]:
    """Return what the process is asked for, but for where modules are found."""
    # CloudTrail shows this name; it has 7 to 54 of the 2 to 64 characters that STS allows
    options = {"RoleSessionName": f"estat-{settings.instance_id}"}
    if settings.s3_role_external_id:
        options["ExternalId"] = settings.s3_role_external_id
    return {
        "path": [str(path) for path in sys.path],
        "limit_seconds": FETCH_SECONDS,
        "region": settings.aws_region,
        "role": settings.s3_role_arn,
        "role_options": options,
    }


def _of_environment() -> ReadOnlyCredentials | None:
    """Return keys that stand in the environment for good."""
    with contextlib.suppress(Exception):  # told by the process
        found = EnvProvider().load()
        if type(found) is botocore.credentials.Credentials:  # else they have an end
            return found.get_frozen_credentials()
    return None
