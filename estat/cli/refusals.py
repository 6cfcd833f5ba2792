"""What to do about an object that the bucket did not take, for ``estat check``.

If the store's answer names its reason, that decides. A plain "Access Denied" names none. Then
the object is written again without one setting at a time: the setting without which the bucket
takes the object is the one to look at. No write leaves out the expected owner.
"""

import re

from estat.config.settings import Settings
from estat.errors import (
    ASSUME_ROLE,
    NO_NAME,
    UNPROVEN,
    NoCredentials,
    StoreDenied,
    StoreError,
    StoreUnavailable,
)
from estat.events.batch import Batch
from estat.stores import Stores

_DIRECTORY = "make it a directory that the server's user may read and write"
_GENERAL = "check RAW_BUCKET, AWS_REGION, the credentials and the role's rights"
_ON_THE_WAY = "check the network, AWS_ENDPOINT_URL_S3 and the proxy (HTTPS_PROXY, NO_PROXY)"
#: What to do about an answer of success behind which nothing is stored.
NO_STORE = (
    "what answers there is no S3, or does not store what it is sent: check AWS_ENDPOINT_URL_S3, "
    "the proxy (HTTPS_PROXY, NO_PROXY) and whatever stands before the store"
)
_BUSY = "the store, or what stands before it, is busy or out of order: try again"
_REFUSED = "its message says why; it would refuse batches, too, and keep them in the DLQ"
_LOOK_RIGHT = (
    "grant s3:GetObject: the store's answer to a PUT proves nothing, so each object is looked up"
)
_KMS_RIGHTS = (
    "grant kms:GenerateDataKey and kms:Decrypt on the key S3_KMS_KEY_ID, in the policy of who "
    "writes and in the key's own"
)
_TAG_RIGHT = "grant s3:PutObjectTagging, which S3_OBJECT_TAGS needs"

#: By the right whose lack S3's message names.
_RIGHTS = {"kms:": _KMS_RIGHTS, "s3:PutObjectTagging": _TAG_RIGHT}

# what came instead of an answer, in the names of botocore's errors
_LATE = "(Connect|Read)TimeoutError"
_AWAY = (
    "ConnectionClosedError|ConnectionError|EndpointConnectionError|HTTPClientError"
    "|ProxyConnectionError|ResponseStreamingError|SSLError"
)

#: By a pattern of the code of S3's answer, or of the name of what came instead.
_S3 = {
    r"KMS\.NotFoundException": "check S3_KMS_KEY_ID: the key must be in the bucket's region, and "
    "one of another account than the writer's must be given by its ARN",
    r"KMS\.DisabledException": "enable the key S3_KMS_KEY_ID in KMS; until then nothing is stored",
    r"KMS\.KMSInvalidStateException": "make the key S3_KMS_KEY_ID usable again in KMS: its "
    "deletion is pending, or its key material is missing",
    r"KMS\..*": "check the key S3_KMS_KEY_ID in KMS",
    "InvalidStorageClass": "set S3_STORAGE_CLASS to a class that the bucket has",
    "InvalidTag": "change S3_OBJECT_TAGS to what the message asks for",
    # a 400 that is not in the form of S3's has the code 400, or none
    f"{UNPROVEN}|NoSuchKey|400|": NO_STORE,
    "NotImplemented": "use a store that has what docs/bucket.md says is asked of it",
    "ExpiredToken(Exception)?": _GENERAL,
    NO_NAME: "no name server knows the store: check AWS_ENDPOINT_URL_S3, AWS_REGION and the DNS",
    _LATE: f"the store does not answer, or not within S3_TIMEOUT: {_ON_THE_WAY}",
    _AWAY: f"the store can't be reached: {_ON_THE_WAY}",
}

_STS_BUSY = "STS is busy or away: try again"

#: By a pattern of the code of STS's answer, or of the name of what came instead.
_STS = {
    "AccessDenied": "name who asks in the trust policy of S3_ROLE_ARN, and grant it sts:AssumeRole "
    "on that role; S3_ROLE_EXTERNAL_ID must be what the trust policy asks for",
    "NoRegionError": "set AWS_REGION",
    "RegionDisabledException": "enable STS for AWS_REGION in the role's account",
    "InvalidClientTokenId|SignatureDoesNotMatch": "check the credentials that are to assume the "
    "role",
    "ExpiredToken": "renew the credentials that are to assume the role",
    f"{NO_NAME}|{_LATE}|{_AWAY}": "let the server reach STS over HTTPS, in a VPC without internet "
    "through an interface endpoint; check AWS_REGION",
}

#: STS refuses the token in AWS_WEB_IDENTITY_TOKEN_FILE.
_WEB_IDENTITY_REFUSED = "ExpiredToken(Exception)?|IDPRejectedClaim|InvalidIdentityToken"

#: What may be left out of a try, and what to do when the bucket then takes the object.
_OPTIONAL = {
    "S3_OBJECT_TAGS": _TAG_RIGHT,
    "S3_KMS_KEY_ID": _KMS_RIGHTS,
    "S3_STORAGE_CLASS": "set S3_STORAGE_CLASS to a class that the bucket and its policy allow",
}


def explain(settings: Settings, batch: Batch, error: StoreError) -> tuple[str, str]:
    """Return what refused a PUT (bucket, credentials or role), and what to do about it.

    May try the PUT again in other ways, and removes what it wrote.
    """
    if settings.raw_bucket.startswith("file:"):
        return "bucket", _DIRECTORY
    if not isinstance(error, NoCredentials):
        return "bucket", _of_bucket(settings, batch, error)
    if error.operation == ASSUME_ROLE:
        busy = _STS_BUSY if error.is_busy else "check S3_ROLE_ARN and S3_ROLE_EXTERNAL_ID"
        return "role", _found(_STS, error.code) or busy
    return "credentials", _of_credentials(settings, error)


def explain_read(settings: Settings, error: StoreError) -> str:
    """Return what to do where an object that was written can't be read."""
    if settings.raw_bucket.startswith("file:"):
        return _DIRECTORY
    right = "grant s3:GetObject" + " and kms:Decrypt" * bool(settings.s3_kms_key_id)
    busy = isinstance(error, StoreUnavailable)
    return _found(_S3, error.code) or (_BUSY if busy else right)


def visible(settings: Settings) -> list[str]:
    """Return the settings that are given and whose effect an object shows."""
    return [name for name in _OPTIONAL if getattr(settings, name.lower())]


def _found(remedies: dict[str, str], code: str) -> str:
    matching = (todo for pattern, todo in remedies.items() if re.fullmatch(pattern, code))
    return next(matching, "")


def _of_bucket(settings: Settings, batch: Batch, error: StoreError) -> str:
    by_code = _found(_S3, error.code)
    if by_code:
        return by_code
    if error.operation == "HeadObject":
        return _LOOK_RIGHT
    if isinstance(error, StoreUnavailable):
        return _BUSY
    if not isinstance(error, StoreDenied):
        return _REFUSED
    named = (todo for right, todo in _RIGHTS.items() if right in str(error))
    return next(named, "") or _by_elimination(settings, batch)


def _of_credentials(settings: Settings, error: NoCredentials) -> str:
    if settings.s3_role_arn:
        whose = "the credentials that are to assume S3_ROLE_ARN are at fault, not that role: "
    else:
        whose = "the server has no credentials: "
    if re.fullmatch(_WEB_IDENTITY_REFUSED, error.code):
        return f"{whose}renew the token in AWS_WEB_IDENTITY_TOKEN_FILE, check its issuer"
    if error.operation and error.is_busy:
        return whose + _STS_BUSY
    if error.operation == "AssumeRoleWithWebIdentity":
        return f"{whose}let the trust policy of AWS_ROLE_ARN name the issuer and who has its token"
    return (
        f"{whose}check where they come from: the environment, a profile, or the endpoint that "
        "gives the task's, the pod's or the instance's role"
    )


def _by_elimination(settings: Settings, batch: Batch) -> str:
    owner = settings.s3_expected_bucket_owner
    unnamed = settings.without("S3_EXPECTED_BUCKET_OWNER")
    if owner and not _lists(settings) and _lists(unnamed):
        return (
            f"the bucket belongs to another account than S3_EXPECTED_BUCKET_OWNER={owner}: "
            "check both before anything is sent there"
        )
    given = visible(settings)
    for name in given:
        try:
            store = Stores(settings.without(name)).get(batch.bucket)
            store.put(batch.key, batch.payload, batch.crc32, batch.content_type, batch.metadata)
        except StoreError:
            continue
        try:
            store.delete(batch.key)
        except StoreError:
            by_hand = f"remove {batch.key} by hand, which this check wrote without it"
            return f"{_OPTIONAL[name]}; {by_hand}"
        return f"{_OPTIONAL[name]} (without {name} the bucket takes the object)"
    if owner:
        given.append("S3_EXPECTED_BUCKET_OWNER")
    return f"{_GENERAL}, also those that {', '.join(given)} want" if given else _GENERAL


def _lists(settings: Settings) -> bool:
    try:
        next(Stores(settings).get(settings.raw_bucket).list(f"{settings.dlq_prefix}/"), None)
    except StoreError:
        return False
    return True
