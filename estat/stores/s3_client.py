"""The boto3 client of a bucket, and the credentials that its requests are signed with.

With S3_ROLE_ARN these are the role's, which botocore renews within the attempt that finds them
near their end:

    valid for over 15 minutes   used as they are
    15 minutes or less          one attempt at a time asks STS first; all use the old ones
                                until there are new ones
    expired, or none yet        every attempt asks STS first, and fails without an answer

So an outage of STS is an outage of the store only once the credentials have expired.
"""

import logging
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import AssumeRoleCredentialFetcher, Credentials, RefreshableCredentials
from botocore.handlers import add_expect_header
from botocore.session import Session

from estat.config.settings import Settings
from estat.errors import ASSUME_ROLE, StoreDenied
from estat.log import Seldom
from estat.stores import s3_errors

log = logging.getLogger(__name__)
_seldom = Seldom(log)

_RENEW_SECONDS = 900  # ahead of the end of the role's credentials
_MARGIN_SECONDS = 5  # a request that is signed now should arrive before the end

_ONE_ATTEMPT = {"total_max_attempts": 1, "mode": "standard"}  # attempts are ours to count


def client(settings: Settings) -> Any:
    """Return a client made for many small uploads. Raises StoreDenied without credentials."""
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
        credentials = _of_role(session, source, settings)
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


def session_name(instance_id: str) -> str:
    """Return the name under which the role's requests show in CloudTrail."""
    return f"estat-{instance_id}"  # 7 to 54 of the 2 to 64 characters that STS allows


def _of_role(session: Session, source: Credentials, settings: Settings) -> RefreshableCredentials:
    """Return the role's credentials; ``source`` is who may assume it. STS is not asked yet."""
    role_arn = settings.s3_role_arn

    def sts(service: str, **keys: str) -> Any:
        # half of an attempt: near the end of credentials that still work, a PUT follows
        seconds = settings.s3_timeout / 2
        config = Config(retries=_ONE_ATTEMPT, connect_timeout=seconds, read_timeout=seconds)
        region = settings.aws_region or None
        return session.create_client(service, region_name=region, config=config, **keys)

    def fetch() -> dict[str, str]:
        try:
            return dict(fetcher.fetch_credentials())
        except Exception as exc:
            # who asks needs credentials, too: the error names what it was that failed
            found = s3_errors.store_error(exc)
            text = f"assuming {role_arn}: {found}"
            _seldom.warning("role_not_assumed", "sts", error=text)
            raise type(found)(text, found.operation or ASSUME_ROLE, found.code) from exc

    asked = {"RoleSessionName": session_name(settings.instance_id)}
    if settings.s3_role_external_id:
        asked["ExternalId"] = settings.s3_role_external_id
    fetcher = AssumeRoleCredentialFetcher(sts, source, role_arn, extra_args=asked)
    # it would log each failure with a traceback; each is in an attempt's error, and told above
    logging.getLogger("botocore.credentials").setLevel(logging.ERROR)
    return RefreshableCredentials(
        access_key="",
        secret_key="",
        token="",
        expiry_time=datetime.fromtimestamp(0, UTC),  # so the first request asks
        refresh_using=fetch,
        method="assume-role",
        advisory_timeout=_RENEW_SECONDS,
        mandatory_timeout=_MARGIN_SECONDS,
    )
