"""A bucket in S3. boto3 and botocore are imported by the ``s3`` modules of this package alone.

One attempt a call: retries and deadlines are the caller's.

What proves a PUT, the first that applies:

    the answer names our CRC-32          stored; another one: damaged, whatever else it says
    its ETag is the MD5 of what we sent  stored
    a HEAD finds our length, metadata    stored: a store that encrypts, or knows no checksums
    nothing does                         not stored: a web server says 200, too
"""

import base64
import logging
import struct
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError
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
from estat.events.gzip import MAX_BYTES, TOO_LARGE
from estat.stores.s3_credentials import Credentials
from estat.stores.s3_errors import OF_KEYS, UNNAMED, NotFound, NotImplementedByStore, store_errors
from estat.stores.store import BYTES, Head, is_md5
from estat.threads import Offload

log = logging.getLogger(__name__)

_ONE_ATTEMPT = {"total_max_attempts": 1, "mode": "standard"}  # attempts are ours to count


class S3Store:
    """One S3 bucket."""

    def __init__(
        self, bucket: str, settings: Settings, credentials: Credentials, wait_seconds: float
    ) -> None:
        self.bare_etags = False
        self._settings = settings
        self._credentials = credentials
        self._wait_seconds = wait_seconds  # of each request, for the first credentials
        self._conditional = settings.s3_conditional_put
        self._every = {"Bucket": bucket}  # parameters of every request
        if settings.s3_expected_bucket_owner:
            self._every["ExpectedBucketOwner"] = settings.s3_expected_bucket_owner
        self._asked_for = _asked_for(settings)
        self._threads = Offload(1)
        try:
            self._client = _client(settings, credentials)
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
            "Key": key,
            "Body": body,
            "ContentType": content_type,
            "Metadata": metadata,
            "ChecksumCRC32": checksum,
            **self._asked_for,
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
        if named or self._threads.run(is_md5, answer.get("ETag", ""), body):
            return True
        self._look_for(key, len(body), metadata)
        return False

    def _create(self, parameters: dict[str, Any]) -> Any:
        if self._conditional:
            try:
                return self._call("put_object", **parameters, IfNoneMatch="*")
            except NotImplementedByStore as exc:
                self._conditional = False
                log.warning("store_without_conditional_put", extra={"error": str(exc)})
        return self._call("put_object", **parameters)

    def _replace(self, parameters: dict[str, Any], etag: str) -> Any:
        if not (self._conditional and etag):
            return self._call("put_object", **parameters)
        # Ceph's gateway compares without the quotes that it writes itself
        for form in dict.fromkeys((etag, etag.strip('"'))):
            try:
                answer = self._call("put_object", **parameters, IfMatch=form)
            except ObjectExists:
                continue
            except NotFound:
                break
            except NotImplementedByStore:
                return self._call("put_object", **parameters)
            self.bare_etags = form != etag
            return answer
        raise StoreUnavailable(f"{parameters['Key']} changed since it was read", "PutObject")

    def _look_for(self, key: str, size_bytes: int, metadata: dict[str, str]) -> None:
        """HEAD an object that was sent. Raises StoreUnavailable unless it is there as sent."""
        try:
            head = self.head(key)
        except StoreDenied as exc:
            # without the right to list the bucket, a missing object is answered with 403, too
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
            answer = self._call("head_object", Key=key)
        except NotFound:
            return None
        # HTTP lets a store write a field's name as it likes, and boto3 takes it as it came
        metadata = {name.lower(): value for name, value in answer.get("Metadata", {}).items()}
        return Head(metadata, answer.get("ContentLength", -1), answer.get("ETag", ""))

    def lacking(self, key: str) -> dict[str, str]:
        """HEAD the object and compare it with what a PUT asks for."""
        return _lacking(self._settings, self._call("head_object", Key=key))

    def get(self, key: str) -> bytes:
        """GET the object."""
        answer = self._call("get_object", Key=key)
        with store_errors(), answer["Body"] as stream:
            # the length that it names is looked at first, for nothing is read then
            size = answer.get("ContentLength", 0)
            body: bytes = stream.read(MAX_BYTES + 1) if size <= MAX_BYTES else b""
        if max(size, len(body)) > MAX_BYTES:
            raise ObjectRefused(TOO_LARGE)
        return body

    def delete(self, key: str) -> None:
        """DELETE the object."""
        self._call("delete_object", Key=key)

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """LIST the keys: each request returns at most 1,000."""
        more: dict[str, Any] = {"StartAfter": after} if after else {}
        while True:
            page = self._call("list_objects_v2", Prefix=prefix, **more)
            for found in page.get("Contents", ()):
                yield found["Key"]
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _call(self, operation: str, **parameters: Any) -> Any:
        self._credentials.wait(self._wait_seconds)
        try:
            with store_errors():
                return getattr(self._client, operation)(**parameters, **self._every)
        except StoreError as exc:
            # an answer to a HEAD has no body that could name the reason
            if exc.code in OF_KEYS or (operation == "head_object" and exc.code in UNNAMED):
                self._credentials.renew()
            raise


def _client(settings: Settings, credentials: Credentials) -> Any:
    """Return a boto3 client made for many small uploads. It asks nobody.

    Its requests are signed with ``credentials`` and with nothing else.
    """
    session = botocore.session.get_session()
    provider = SimpleNamespace(load_credentials=lambda: credentials)
    session.register_component("credential_provider", provider)
    made = boto3.Session(botocore_session=session).client(
        "s3",
        region_name=settings.aws_region or None,
        config=Config(
            retries=_ONE_ATTEMPT,
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
    made.meta.events.unregister("before-call.s3", add_expect_header)
    return made


def _asked_for(settings: Settings) -> dict[str, Any]:
    """Return the parameters of a PUT that only the settings add."""
    tags = [tag.partition("=")[::2] for tag in settings.s3_object_tags]
    asked: dict[str, Any] = {
        "StorageClass": settings.s3_storage_class,
        "Tagging": urlencode(tags),
        "SSEKMSKeyId": settings.s3_kms_key_id,
    }
    if settings.s3_kms_key_id:
        # without a bucket key every PUT and every GET is a request to KMS, with its price and limit
        asked |= {"ServerSideEncryption": "aws:kms", "BucketKeyEnabled": True}
    return {name: value for name, value in asked.items() if value}


def _lacking(settings: Settings, head: Mapping[str, Any]) -> dict[str, str]:
    """Compare an object's HEAD with the settings; return what was found, by setting."""
    found = {}
    encryption = str(head.get("ServerSideEncryption", "no encryption"))
    key, asked = str(head.get("SSEKMSKeyId", "")), settings.s3_kms_key_id
    if asked and not (encryption == "aws:kms" and _is_same_key(asked, key)):
        found["S3_KMS_KEY_ID"] = f"{encryption}, {key or 'no key'}"
    storage_class = str(head.get("StorageClass", "STANDARD"))  # the field is left out then
    if settings.s3_storage_class not in ("", storage_class):
        found["S3_STORAGE_CLASS"] = storage_class
    tags = int(head.get("TagCount", 0))
    if len(settings.s3_object_tags) not in (0, tags):
        found["S3_OBJECT_TAGS"] = f"{tags} tags" if tags else ""
    return found


def _is_same_key(asked: str, found: str) -> bool:
    """Compare keys; S3 answers with a key's ARN, so what an alias stands for it alone knows."""
    if "alias/" in asked:
        return bool(found)
    return found == asked or found.endswith(f"/{asked}")
