"""What the settings ask for with each request to a bucket, as parameters of boto3's calls."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from estat.config.settings import Settings

#: Header fields that only these options send: an error that names one is about the settings.
HEADERS = (
    "x-amz-server-side-encryption",
    "x-amz-storage-class",
    "x-amz-tagging",
    "x-amz-expected-bucket-owner",
)


class ObjectOptions:
    """The parameters of every request, those of a PUT, and whether an object has them."""

    def __init__(self, settings: Settings) -> None:
        self.every: dict[str, str] = {}
        self.put: dict[str, Any] = {}
        self._key = settings.s3_kms_key_id
        self._storage_class = settings.s3_storage_class
        self._tags = len(settings.s3_object_tags)
        if settings.s3_expected_bucket_owner:
            self.every["ExpectedBucketOwner"] = settings.s3_expected_bucket_owner
        if self._key:
            self.put |= {
                "ServerSideEncryption": "aws:kms",
                "SSEKMSKeyId": self._key,
                # else every PUT and every GET is a request to KMS, with its price and its limit
                "BucketKeyEnabled": True,
            }
        if self._storage_class:
            self.put["StorageClass"] = self._storage_class
        if self._tags:
            self.put["Tagging"] = urlencode(
                [tag.partition("=")[::2] for tag in settings.s3_object_tags]
            )

    def lacking(self, head: Mapping[str, Any]) -> dict[str, str]:
        """Compare an object's HEAD with the settings; return what was found, by setting."""
        found = {}
        encryption = str(head.get("ServerSideEncryption", "no encryption"))
        key = str(head.get("SSEKMSKeyId", ""))
        if self._key and not (encryption == "aws:kms" and _is_same_key(self._key, key)):
            found["S3_KMS_KEY_ID"] = f"{encryption}, {key or 'no key'}"
        storage_class = str(head.get("StorageClass", "STANDARD"))  # the field is left out then
        if self._storage_class not in ("", storage_class):
            found["S3_STORAGE_CLASS"] = storage_class
        tags = int(head.get("TagCount", 0))
        if self._tags != tags and self._tags:
            found["S3_OBJECT_TAGS"] = f"{tags} tags" if tags else ""
        return found


def _is_same_key(asked: str, found: str) -> bool:
    """Compare keys; S3 answers with a key's ARN, so what an alias stands for it alone knows."""
    if "alias/" in asked:
        return bool(found)
    return found == asked or found.endswith(f"/{asked}")
