"""The boto3 client of a bucket."""

from types import SimpleNamespace
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.handlers import add_expect_header

from estat.config.settings import Settings
from estat.stores.s3_credentials import Credentials

_ONE_ATTEMPT = {"total_max_attempts": 1, "mode": "standard"}  # attempts are ours to count


def client(settings: Settings, credentials: Credentials) -> Any:
    """Return a client made for many small uploads. It asks nobody; boto3's errors come as they are.

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
