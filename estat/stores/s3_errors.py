"""What the answers of S3 and STS, and the errors of boto3, mean for a batch.

Whatever is not known to be the fault of one object is an outage of the store.
"""

import contextlib
import socket
from collections.abc import Iterator

from botocore.exceptions import ClientError, EndpointConnectionError, ParamValidationError

from estat.errors import (
    NO_NAME,
    ObjectExists,
    ObjectRefused,
    StoreDenied,
    StoreError,
    StoreUnavailable,
)

#: Header fields that only the settings add: an error that names one is about the settings.
_HEADERS_OF_SETTINGS = (
    "x-amz-server-side-encryption",
    "x-amz-storage-class",
    "x-amz-tagging",
    "x-amz-expected-bucket-owner",
)

# Error codes with a 4xx status that speak of the moment, not of the request: the store is busy, an
# expired token is renewed by what gave it, or the body was damaged on its way.
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_TRANSIENT = {
    "BadDigest",
    "ConditionalRequestConflict",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteBody",
    "OperationAborted",
    "RequestLimitExceeded",
    "RequestTimeout",
    "RequestTimeTooSkewed",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TokenRefreshRequired",
    "TooManyRequestsException",
    "XAmzContentChecksumMismatch",  # MinIO's BadDigest
    "XAmzContentSHA256Mismatch",
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

#: What botocore calls a 400 whose body is not S3's: that of a proxy, or of a HEAD, which has none.
UNNAMED = {"", "400"}

#: Error codes that say that the keys are not valid, or not any more.
OF_KEYS = ("ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "TokenRefreshRequired")

# What is asked for credentials: no answer to it is about an object.
_FOR_CREDENTIALS = {"AssumeRole", "AssumeRoleWithWebIdentity", "CreateToken", "GetRoleCredentials"}


class NotFound(StoreDenied):
    """404: for HEAD an answer, for the rest a missing bucket."""


class NotImplementedByStore(StoreDenied):
    """501: the store does not know a header we sent."""


@contextlib.contextmanager
def store_errors() -> Iterator[None]:
    """Raise the StoreError that says what to do for whatever boto3 raises inside."""
    try:
        yield
    except StoreError:
        raise  # of the credentials
    except ParamValidationError as exc:
        raise ObjectRefused(str(exc)) from exc
    except Exception as exc:  # the layers below boto3 raise classes without a common base
        raise store_error(exc) from exc


def store_error(exc: Exception) -> StoreError:
    """Return what to do about an answer, or about what was raised without one."""
    if isinstance(exc, ClientError):
        return _of_answer(exc)
    cause: BaseException | None = exc
    while cause:  # a source of credentials wraps it
        if isinstance(cause, EndpointConnectionError):
            return _without_connection(cause)
        cause = cause.__cause__ or cause.__context__
    name = type(exc).__name__
    return StoreUnavailable(f"{name}: {exc}", code=name)


def _without_connection(exc: EndpointConnectionError) -> StoreError:
    """Tell apart what boto3 has one sentence for: no such name, nobody there, no way there."""
    url, cause = exc.kwargs["endpoint_url"], exc.kwargs.get("error", exc)
    while cause.__cause__:
        cause = cause.__cause__
    reason = getattr(cause, "strerror", None) or cause
    code, what = type(exc).__name__, f"no connection to {url}"
    if isinstance(cause, socket.gaierror):
        code, what = NO_NAME, f"the name in {url} can't be resolved"
    return StoreUnavailable(f"{code}: {what}: {reason}", code=code)


def _of_answer(exc: ClientError) -> StoreError:
    error = exc.response.get("Error", {})
    code = str(error.get("Code", ""))
    argument = str(error.get("ArgumentName", "")).lower()
    status = int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    kind: type[StoreError]
    if exc.operation_name in _FOR_CREDENTIALS:
        kind = StoreUnavailable if _is_transient(status, code) else StoreDenied
    elif status == 412:
        kind = ObjectExists
    elif status == 501:
        kind = NotImplementedByStore
    elif _is_transient(status, code):
        kind = StoreUnavailable
    elif status == 404:
        kind = NotFound
    elif status == 400 and code in UNNAMED:
        kind = StoreUnavailable  # S3 itself names a reason for what is an object's fault
    elif status == 413:
        kind = ObjectRefused  # a proxy's limit for bodies
    elif status >= 401 or code in _DENIED or code.startswith("KMS."):
        kind = StoreDenied
    elif status == 400 and not argument.startswith(_HEADERS_OF_SETTINGS):
        kind = ObjectRefused
    else:
        kind = StoreDenied
    return kind(f"{status} {exc}", exc.operation_name, code)


def _is_transient(status: int, code: str) -> bool:
    return status >= 500 or status in (0, 408, 409, 429) or code in _TRANSIENT
