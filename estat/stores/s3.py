"""S3 through boto3, which is imported here alone.

One attempt a call: retries and deadlines are the caller's. The client is set up
for many small uploads (see _client), each setting with what it spares.

What proves a PUT, the first that applies:

    the answer names our CRC-32          stored; another one: damaged, whatever else it says
    its ETag is the MD5 of what we sent  stored
    a HEAD finds our length, metadata    stored: a store that encrypts, or knows no checksums
    nothing does                         not stored: a web server says 200, too
"""

import base64
import contextlib
import hashlib
import logging
import re
import struct
from collections.abc import Iterator
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
from botocore.handlers import add_expect_header

from estat.config.settings import Settings
from estat.errors import (
    UNPROVEN,
    ObjectDamaged,
    ObjectExists,
    ObjectRefused,
    StoreDenied,
    StoreError,
    StoreUnavailable,
)
from estat.stores import role
from estat.stores.head import BYTES, Head
from estat.stores.options import HEADERS, ObjectOptions
from estat.threads import Offload

log = logging.getLogger(__name__)

# Error codes with a 4xx status that speak of the moment, not of the request.
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_TRANSIENT = {
    "ConditionalRequestConflict",
    "ExpiredToken",
    "OperationAborted",
    "RequestTimeout",
    "RequestTimeTooSkewed",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
    "KMS.ThrottlingException",
}
# Error codes with status 400 that speak of the bucket, the credentials or the settings, not of
# the object. So do all that begin with KMS.
_DENIED = {
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "InvalidAccessKeyId",
    "InvalidBucketName",
    "InvalidStorageClass",
    "InvalidTag",
    "InvalidToken",
    "PermanentRedirect",
}

# An ETag that may be an MD5; those of multipart uploads end in "-<parts>".
_MD5 = re.compile(r'"?([0-9a-fA-F]{32})"?')

# Up to here an MD5 takes less time than the hop to a thread is worth (some 2 ms a MiB).
_SMALL_BYTES = 32 * 1024


class S3Store:
    """One S3 bucket."""

    def __init__(self, bucket: str, settings: Settings) -> None:
        self._bucket = bucket
        self._conditional = settings.s3_conditional_put
        self._options = ObjectOptions(settings)
        self._threads = Offload(1)
        try:
            self._client = _client(settings)
        except (BotoCoreError, ValueError) as exc:
            raise StoreDenied(f"S3 client: {exc}", code=type(exc).__name__) from exc

    def put(
        self,
        key: str,
        body: bytes,
        crc32: int,
        content_type: str,
        metadata: dict[str, str],
        replaces: str | None = None,
    ) -> bool:
        """PUT the object with its checksum, and on condition that the key is free or as read.

        Conditions are left out where S3_CONDITIONAL_PUT is off or the store knows none.
        """
        metadata = metadata | {BYTES: str(len(body))}
        checksum = base64.b64encode(struct.pack(">I", crc32)).decode()
        parameters: dict[str, Any] = {
            "Bucket": self._bucket,
            "Key": key,
            "Body": body,
            "ContentType": content_type,
            "Metadata": metadata,
            "ChecksumCRC32": checksum,
            **self._options.put,
        }
        if replaces is None:
            answer = self._create(parameters)
        else:
            answer = self._replace(parameters, replaces)
        named = answer.get("ChecksumCRC32")
        if named and named != checksum:
            raise ObjectDamaged(
                f"the store says that {key} has the CRC-32 {named}, but {checksum} was sent",
                "PutObject",
                UNPROVEN,
            )
        if named or self._is_md5(answer.get("ETag", ""), body):
            return True
        self._look_for(key, len(body), metadata)
        return False

    def _create(self, parameters: dict[str, Any]) -> Any:
        if self._conditional:
            try:
                return self._call("put_object", **parameters, IfNoneMatch="*")
            except _NotImplementedByStore as exc:
                self._conditional = False
                log.warning("store_without_conditional_put", extra={"error": str(exc)})
        return self._call("put_object", **parameters)

    def _replace(self, parameters: dict[str, Any], etag: str) -> Any:
        if not (self._conditional and etag):
            return self._call("put_object", **parameters)
        # Ceph's gateway compares without the quotes that it writes itself
        for form in dict.fromkeys((etag, etag.strip('"'))):
            try:
                return self._call("put_object", **parameters, IfMatch=form)
            except ObjectExists:
                continue
            except _NotFound:
                break
            except _NotImplementedByStore:
                return self._call("put_object", **parameters)
        raise StoreUnavailable(f"{parameters['Key']} changed since it was read", "PutObject")

    def _is_md5(self, etag: str, body: bytes) -> bool:
        """Tell whether an ETag is the MD5 of what was sent."""
        match = _MD5.fullmatch(etag)
        if not match:
            return False
        small = len(body) <= _SMALL_BYTES
        return match[1].lower() == (_md5(body) if small else self._threads.run(_md5, body))

    def _look_for(self, key: str, size_bytes: int, metadata: dict[str, str]) -> None:
        """HEAD an object that was sent. Raises StoreUnavailable unless it is there as sent."""
        try:
            head = self.head(key)
        except StoreDenied as exc:
            # where the bucket may not be listed, this is said of what is not there, too
            raise StoreUnavailable(
                f"the answer to the PUT of {key} proves nothing, and looking it up failed: {exc}",
                exc.operation,
                exc.code,
            ) from exc
        if head is None:
            found = "nothing is there"
        elif head.size_bytes != size_bytes:
            found = f"what is there has {head.size_bytes} bytes of {size_bytes}"
        elif not metadata.items() <= head.metadata.items():
            found = "what is there has not the metadata that was sent"
        else:
            return
        raise StoreUnavailable(
            f"the store said that it stored {key}, and did not: {found}", "PutObject", UNPROVEN
        )

    def head(self, key: str) -> Head | None:
        """HEAD the object."""
        try:
            answer = self._call("head_object", Bucket=self._bucket, Key=key)
        except _NotFound:
            return None
        # HTTP lets a store write a field's name as it likes, and boto3 takes it as it came
        metadata = {name.lower(): value for name, value in answer.get("Metadata", {}).items()}
        return Head(metadata, answer.get("ContentLength", -1), answer.get("ETag", ""))

    def lacking(self, key: str) -> dict[str, str]:
        """HEAD the object and compare it with what a PUT asks for."""
        return self._options.lacking(self._call("head_object", Bucket=self._bucket, Key=key))

    def get(self, key: str) -> bytes:
        """GET the object."""
        answer = self._call("get_object", Bucket=self._bucket, Key=key)
        with _errors(), answer["Body"] as stream:
            body: bytes = stream.read()
        return body

    def delete(self, key: str) -> None:
        """DELETE the object."""
        self._call("delete_object", Bucket=self._bucket, Key=key)

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """LIST the keys, a page of at most 1,000 a request."""
        more: dict[str, Any] = {"StartAfter": after} if after else {}
        while True:
            page = self._call("list_objects_v2", Bucket=self._bucket, Prefix=prefix, **more)
            for found in page.get("Contents", ()):
                yield found["Key"]
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _call(self, operation: str, **parameters: Any) -> Any:
        with _errors():
            return getattr(self._client, operation)(**parameters, **self._options.every)


def _md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Turn whatever comes out of boto3 into the class that says what to do."""
    try:
        yield
    except StoreError:
        raise  # of the role
    except ClientError as exc:
        raise _classify(exc) from exc
    except ParamValidationError as exc:
        raise ObjectRefused(str(exc)) from exc
    except Exception as exc:  # the layers below boto3 raise classes without a common base
        name = type(exc).__name__
        raise StoreUnavailable(f"{name}: {exc}", code=name) from exc


class _NotFound(StoreDenied):
    """404: for HEAD an answer, for the rest a missing bucket."""


class _NotImplementedByStore(StoreDenied):
    """501: the store does not know a header we sent."""


def _classify(exc: ClientError) -> StoreError:
    """Turn S3's answer into what to do."""
    error = exc.response.get("Error", {})
    code = str(error.get("Code", ""))
    argument = str(error.get("ArgumentName", "")).lower()
    status = int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    text = f"{status} {exc}"
    kind: type[StoreError]
    if status == 412:
        kind = ObjectExists
    elif status == 501:
        kind = _NotImplementedByStore
    elif status >= 500 or status in (0, 408, 409, 429) or code in _TRANSIENT:
        kind = StoreUnavailable
    elif status == 404:
        kind = _NotFound
    elif status == 400 and exc.operation_name == "HeadObject":
        kind = StoreUnavailable  # its answer has no body, so no code: an expired token, say
    elif status >= 401 or code in _DENIED or code.startswith("KMS."):
        kind = StoreDenied
    elif status == 400 and not argument.startswith(HEADERS):
        kind = ObjectRefused
    else:
        kind = StoreDenied
    return kind(text, exc.operation_name, code)


def _client(settings: Settings) -> Any:
    session = botocore.session.get_session()
    if settings.s3_role_arn:
        # not by get_credentials, which would keep them for the clients
        source = session.get_component("credential_provider").load_credentials()
    else:
        source = session.get_credentials()
    if source is None:
        # a client made now would never get any; there may be some at the next attempt
        raise StoreDenied("no credentials were found", code="NoCredentialsError")
    if settings.s3_role_arn:
        role.assume(
            session,
            source,
            settings.s3_role_arn,
            settings.s3_role_external_id,
            role.session_name(settings.instance_id),
            settings.aws_region or None,
        )
    client = boto3.Session(botocore_session=session).client(
        "s3",
        region_name=settings.aws_region or None,
        config=Config(
            # attempts are ours to count: this is exactly one
            retries={"total_max_attempts": 1, "mode": "standard"},
            # uploads, replays and their HEADs; the pool does not block, it drops connections
            max_pool_connections=2 * settings.upload_concurrency + 2,
            connect_timeout=settings.s3_timeout,
            read_timeout=settings.s3_timeout,
            # our own ChecksumCRC32 header instead of a trailer in aws-chunked encoding
            request_checksum_calculation="when_required",
            s3={"payload_signing_enabled": False},
        ),
    )
    # "Expect: 100-continue" costs a round trip each, and a second with a server that ignores it
    client.meta.events.unregister("before-call.s3", add_expect_header)
    return client
