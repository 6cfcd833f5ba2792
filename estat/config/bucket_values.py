"""How the settings of an S3 bucket are written: key, class, tags, owner, role.

Each function takes the text and returns the value, or raises ValueError, as in
``values``. The rules are AWS's own; what fits them may still be refused by the
bucket, which ``estat check`` tells.
"""

import re
from collections.abc import Callable

#: Classes whose objects can be read at once: `estat audit`, and the comparison of ids after a
#: 412, read objects. GLACIER and DEEP_ARCHIVE want a restore first; the rest is not of general
#: purpose buckets, or given up (REDUCED_REDUNDANCY).
STORAGE_CLASSES = (
    "STANDARD", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR",
)  # fmt: skip

#: The settings that say how RAW_BUCKET is written to and read.
NAMES = (
    "S3_KMS_KEY_ID", "S3_STORAGE_CLASS", "S3_OBJECT_TAGS", "S3_EXPECTED_BUCKET_OWNER",
    "S3_ROLE_ARN", "S3_ROLE_EXTERNAL_ID",
)  # fmt: skip

# https://docs.aws.amazon.com/kms/latest/developerguide/concepts.html#key-id
_KEY = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|mrk-[0-9a-f]{32}"
_ALIAS = r"alias/[A-Za-z0-9/_-]{1,250}"
_KMS_ARN = re.compile(
    rf"arn:aws[a-z-]*:kms:(?P<region>[a-z0-9-]+):[0-9]{{12}}:(?:key/(?:{_KEY})|{_ALIAS})"
)
_KMS_NAME = re.compile(rf"{_KEY}|{_ALIAS}")
OWNER = re.compile(r"[0-9]{12}")
# https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
ROLE = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9_+=,.@/-]{1,576}")
EXTERNAL_ID = re.compile(r"[A-Za-z0-9_+=,.@:/-]{2,1224}")

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html
_TAG_TEXT = re.compile(r"[\w .:/=+@-]*")
_MAX_TAGS, _MAX_TAG_KEY_CHARS, _MAX_TAG_VALUE_CHARS = 10, 128, 256
_RESERVED = "aws:"


def kms_key(text: str) -> str:
    """Parse a KMS key's id or alias, or the ARN of either."""
    if not (_KMS_ARN.fullmatch(text) or _KMS_NAME.fullmatch(text)):
        raise ValueError
    return text


def kms_region(key: str) -> str:
    """Return the region that a key's ARN names; empty for an id or an alias."""
    match = _KMS_ARN.fullmatch(key)
    return match["region"] if match else ""


def storage_class(text: str) -> str:
    """Parse a storage class, in capitals as S3 writes it."""
    if text.upper() not in STORAGE_CLASSES:
        raise ValueError
    return text.upper()


def tags(text: str) -> tuple[str, ...]:
    """Parse ``key=value,key2=value2``; each tag is returned as ``key=value``."""
    found: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not (equals and 0 < len(key) <= _MAX_TAG_KEY_CHARS and key not in found):
            raise ValueError
        if len(value) > _MAX_TAG_VALUE_CHARS or not _TAG_TEXT.fullmatch(key + value):
            raise ValueError
        if key.lower().startswith(_RESERVED):
            raise ValueError
        found[key] = value
    if len(found) > _MAX_TAGS:
        raise ValueError
    return tuple(f"{key}={value}" for key, value in found.items())


def contradictions(raw_bucket: str, region: str, value_of: Callable[[str], str]) -> list[str]:
    """Find what can't have an effect, or can't be together; ``value_of`` gives a setting's text."""
    problems = []
    if raw_bucket.startswith("file:"):
        problems += [
            f"{name}={value_of(name)!r} is for an S3 bucket; RAW_BUCKET={raw_bucket!r} is a "
            "directory"
            for name in NAMES
            if value_of(name)
        ]
    if value_of("S3_ROLE_EXTERNAL_ID") and not value_of("S3_ROLE_ARN"):
        problems.append("S3_ROLE_EXTERNAL_ID needs S3_ROLE_ARN; without, no role is assumed")
    key = value_of("S3_KMS_KEY_ID")
    if region and kms_region(key) not in ("", region):
        problems.append(
            f"S3_KMS_KEY_ID={key!r} is in another region than AWS_REGION={region!r}; S3 takes only "
            "a key of the bucket's region"
        )
    return problems
