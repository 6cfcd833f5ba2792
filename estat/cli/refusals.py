"""What to do about an object that the bucket did not take, for ``estat check``.

If the store's answer names its reason, that decides. A plain "Access Denied" names none. Then
the object is written again without one setting at a time: the setting without which the bucket
takes the object is the one to look at. No write leaves out the expected owner.
"""

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
from estat.events.batch import crc32_of
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
_STS_BUSY = "STS is busy or away: try again"
_KMS_RIGHTS = (
    "grant kms:GenerateDataKey and kms:Decrypt on the key S3_KMS_KEY_ID, in the policy of who "
    "writes and in the key's own"
)
_TAG_RIGHT = "grant s3:PutObjectTagging, which S3_OBJECT_TAGS needs"

#: What it says of credentials that were good once.
_EXPIRED = ("ExpiredToken", "ExpiredTokenException")

#: By the code of S3's answer.
_S3 = {
    "KMS.NotFoundException": "check S3_KMS_KEY_ID: the key must be in the bucket's region, and one "
    "of another account than the writer's must be given by its ARN",
    "KMS.DisabledException": "enable the key S3_KMS_KEY_ID in KMS; until then nothing is stored",
    "KMS.KMSInvalidStateException": "make the key S3_KMS_KEY_ID usable again in KMS: its deletion "
    "is pending, or its key material is missing",
    "InvalidStorageClass": "set S3_STORAGE_CLASS to a class that the bucket has",
    "InvalidTag": "change S3_OBJECT_TAGS to what the message asks for",
    UNPROVEN: NO_STORE,
    "NoSuchKey": NO_STORE,
    "NotImplemented": "use a store that has what docs/bucket.md says is asked of it",
    # what botocore calls a 400 that is not in the form of S3's
    "": NO_STORE,
    "400": NO_STORE,
}

#: By the right whose lack S3's message names.
_RIGHTS = {"kms:": _KMS_RIGHTS, "s3:PutObjectTagging": _TAG_RIGHT}

#: By the code of STS's answer.
_STS = {
    "AccessDenied": "name who asks in the trust policy of S3_ROLE_ARN, and grant it sts:AssumeRole "
    "on that role; S3_ROLE_EXTERNAL_ID must be what the trust policy asks for",
    "ValidationError": "check S3_ROLE_ARN and S3_ROLE_EXTERNAL_ID",
    "NoRegionError": "set AWS_REGION",
    "RegionDisabledException": "enable STS for AWS_REGION in the role's account",
    "InvalidClientTokenId": "check the credentials that are to assume the role",
    "SignatureDoesNotMatch": "check the credentials that are to assume the role",
    "ExpiredToken": "renew the credentials that are to assume the role",
}
_STS_UNREACHABLE = (
    "let the server reach STS over HTTPS, in a VPC without internet through an interface "
    "endpoint; check AWS_REGION"
)

_LATE = ("ConnectTimeoutError", "ReadTimeoutError")
_AWAY = (
    *("ConnectionClosedError", "ConnectionError", "EndpointConnectionError", "HTTPClientError"),
    *("ProxyConnectionError", "ResponseStreamingError", "SSLError"),
)

#: By what came instead of an answer, in the names of botocore's errors.
_NO_ANSWER = {
    NO_NAME: "no name server knows the store: check AWS_ENDPOINT_URL_S3, AWS_REGION and the DNS",
    **dict.fromkeys(_LATE, f"the store does not answer, or not within S3_TIMEOUT: {_ON_THE_WAY}"),
    **dict.fromkeys(_AWAY, f"the store can't be reached: {_ON_THE_WAY}"),
}

_OF_CODES = _S3 | _NO_ANSWER

#: What botocore asks AWS for to get such credentials.
_FOR_CREDENTIALS = "AssumeRole AssumeRoleWithWebIdentity CreateToken GetRoleCredentials"

#: STS refuses the token in AWS_WEB_IDENTITY_TOKEN_FILE.
_WEB_IDENTITY_REFUSED = "ExpiredTokenException IDPRejectedClaim InvalidIdentityToken ExpiredToken"

#: What may be left out of a try, and what to do when the bucket then takes the object.
_OPTIONAL = {
    "S3_OBJECT_TAGS": _TAG_RIGHT,
    "S3_KMS_KEY_ID": _KMS_RIGHTS,
    "S3_STORAGE_CLASS": "set S3_STORAGE_CLASS to a class that the bucket and its policy allow",
}

#: The settings whose effect an object shows.
VISIBLE = tuple(_OPTIONAL)


def explain(settings: Settings, key: str, body: bytes, error: StoreError) -> tuple[str, str]:
    """Return what refused a PUT (bucket, credentials or role), and what to do about it.

    May try the PUT again in other ways, and removes what it wrote.
    """
    if settings.raw_bucket.startswith("file:"):
        return "bucket", _DIRECTORY
    if not isinstance(error, NoCredentials):
        return "bucket", _of_bucket(settings, key, body, error)
    if error.operation == ASSUME_ROLE:
        return "role", _of_role(error)
    return "credentials", _of_credentials(settings, error)


def explain_read(settings: Settings, error: StoreError) -> str:
    """Return what to do where an object that was written can't be read."""
    if settings.raw_bucket.startswith("file:"):
        return _DIRECTORY
    if error.code in _OF_CODES:
        return _OF_CODES[error.code]
    if isinstance(error, StoreUnavailable):
        return _BUSY
    return "grant s3:GetObject" + " and kms:Decrypt" * bool(settings.s3_kms_key_id)


def _of_bucket(settings: Settings, key: str, body: bytes, error: StoreError) -> str:
    if error.code in _OF_CODES:
        return _OF_CODES[error.code]
    if error.operation == "HeadObject":
        return _LOOK_RIGHT
    if error.code.startswith("KMS."):
        return "check the key S3_KMS_KEY_ID in KMS"
    if isinstance(error, StoreUnavailable) and error.code not in _EXPIRED:
        return _BUSY
    if not isinstance(error, StoreDenied):
        return _GENERAL if error.code in _EXPIRED else _REFUSED
    named = (todo for right, todo in _RIGHTS.items() if right in str(error))
    return next(named, "") or _by_elimination(settings, key, body)


def _of_credentials(settings: Settings, error: NoCredentials) -> str:
    if settings.s3_role_arn:
        whose = "the credentials that are to assume S3_ROLE_ARN are at fault, not that role: "
    else:
        whose = "the server has no credentials: "
    if error.code in _WEB_IDENTITY_REFUSED.split():
        return f"{whose}renew the token in AWS_WEB_IDENTITY_TOKEN_FILE, check its issuer"
    if error.operation in _FOR_CREDENTIALS.split() and error.is_busy:
        return whose + _STS_BUSY
    if error.operation == "AssumeRoleWithWebIdentity":
        return f"{whose}let the trust policy of AWS_ROLE_ARN name the issuer and who has its token"
    return (
        f"{whose}check where they come from: the environment, a profile, or the endpoint that "
        "gives the task's, the pod's or the instance's role"
    )


def _of_role(error: NoCredentials) -> str:
    if error.code in _STS:
        return _STS[error.code]
    if error.code in _NO_ANSWER:
        return _STS_UNREACHABLE
    return _STS_BUSY if error.is_busy else _STS["ValidationError"]


def _by_elimination(settings: Settings, key: str, body: bytes) -> str:
    if _is_of_another(settings):
        return (
            "the bucket belongs to another account than S3_EXPECTED_BUCKET_OWNER="
            f"{settings.s3_expected_bucket_owner}: check both before anything is sent there"
        )
    given = [name for name in _OPTIONAL if getattr(settings, name.lower())]
    for name in given:
        try:
            store = Stores(settings.without(name)).get(settings.raw_bucket)
            store.put(key, body, crc32_of(body), "text/plain", {})
        except StoreError:
            continue
        try:
            store.delete(key)
        except StoreError:
            return f"{_OPTIONAL[name]}; remove {key} by hand, which this check wrote without it"
        return f"{_OPTIONAL[name]} (without {name} the bucket takes the object)"
    if settings.s3_expected_bucket_owner:
        given.append("S3_EXPECTED_BUCKET_OWNER")
    return f"{_GENERAL}, also those that {', '.join(given)} want" if given else _GENERAL


def _is_of_another(settings: Settings) -> bool:
    """Return whether the bucket can be listed only without naming its expected owner."""
    if not settings.s3_expected_bucket_owner or _lists(settings):
        return False
    return _lists(settings.without("S3_EXPECTED_BUCKET_OWNER"))


def _lists(settings: Settings) -> bool:
    try:
        next(Stores(settings).get(settings.raw_bucket).list(f"{settings.dlq_prefix}/"), None)
    except StoreError:
        return False
    return True
