"""Checks beyond a single value: settings that contradict each other, and unknown names.

Rules without I/O. A ``.env`` file is for this server alone, so every name in it that is
unknown is told. The environment is shared with other programs, so there a name is told only
if it is nearly a setting's. A value is never told, because it may be a secret.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import NamedTuple

from estat.config import parsers
from estat.config.settings import Settings

#: Header fields in which proxies tell addresses.
_WITH_ADDRESSES = re.compile(
    "(cloudfront-viewer-address|fastly-client-ip|true-client-ip|forwarded|x-appengine-user-ip"
    "|cf-connecting-ip(v6)?|x-(original-)?forwarded-for|x-(azure-client|client-|real-)ip"
    "|x-cluster-client-ip|x-envoy-external-address)"
)

#: The names of other programs' variables: boto3's, Python's, gunicorn's, the platform's.
_OTHERS = re.compile(
    "(AWS|BUILDAH|COMPOSE|CURL|DOCKER|ECS|KUBERNETES|LC|LD|MALLOC|OTEL|PIP|PODMAN|REQUESTS|SSL"
    "|SYSTEMD|XDG)_.*|(GEVENT|GUNICORN|PYTHON|VIRTUAL_ENV).*|(ALL|FTP|HTTP|HTTPS|NO)_PROXY"
    "|GID|HOME|HOSTNAME|IMAGE|LANG|LANGUAGE|LOGNAME|NO_COLOR|PATH|PORT|PWD|SENDFILE|SHELL|TERM"
    "|TMPDIR|TZ|UID|USER"
)

#: How alike two names are (of difflib, 1: the same): one letter more, less or another in seven.
_NEARLY, _SOMEHOW = 0.85, 0.6

# A line of a key that lost its quotes may look like an assignment (its base64 ends in "="): what
# is nearly no setting's name is told only if it is written as variables are.
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,39}")

_REFERENCE = re.compile(r"\$\{([^}:]+)")


def contradictions(s: Settings) -> list[str]:
    """Return a sentence for each pair of settings that can't be together."""
    return [*_of_store(s), *_of_bucket(s), *_of_clients(s), *_of_listeners_and_stop(s)]


def _of_store(s: Settings) -> Iterator[str]:
    if s.max_body_size > s.max_batch_body_size:
        yield (
            f"MAX_BODY_SIZE={s.max_body_size} is above MAX_BATCH_BODY_SIZE="
            f"{s.max_batch_body_size}; no such event could be sent"
        )
    for taken in (s.raw_prefix, f"{s.raw_prefix}_streams", f"{s.raw_prefix}_closed"):
        if f"{s.dlq_prefix}/".startswith(f"{taken}/"):
            yield (
                f"DLQ_PREFIX={s.dlq_prefix!r} lies within {taken!r}, which RAW_PREFIX names; "
                "unreadable files would mix with what readers expect there"
            )
    if s.fallback_bucket == s.raw_bucket:
        yield f"FALLBACK_BUCKET={s.fallback_bucket!r} is RAW_BUCKET; it must be another one"


def _of_bucket(s: Settings) -> Iterator[str]:
    if s.raw_bucket.startswith("file:"):
        for name in filter(s.text, parsers.BUCKET_SETTINGS):
            yield (
                f"{name}={s.text(name)!r} is for an S3 bucket; RAW_BUCKET={s.raw_bucket!r} is a "
                "directory"
            )
    if s.s3_role_external_id and not s.s3_role_arn:
        yield "S3_ROLE_EXTERNAL_ID needs S3_ROLE_ARN; without, no role is assumed"
    if s.aws_region and parsers.kms_region(s.s3_kms_key_id) not in ("", s.aws_region):
        yield (
            f"S3_KMS_KEY_ID={s.s3_kms_key_id!r} is in another region than "
            f"AWS_REGION={s.aws_region!r}; S3 takes only a key of the bucket's region"
        )


def _of_clients(s: Settings) -> Iterator[str]:
    if s.trusted_proxies == 0 and s.client_ip_header != "auto":
        yield (
            f"CLIENT_IP_HEADER={s.client_ip_header!r} counts only from a trusted proxy, and "
            "TRUSTED_PROXIES=0 trusts none"
        )
    if s.ip_mode == "hash" and not s.ip_hash_key:
        yield "IP_MODE='hash' needs IP_HASH_KEY; it must be at least 16 characters"
    for name in s.capture_headers:
        if s.ip_mode != "full" and _WITH_ADDRESSES.fullmatch(name):
            yield (
                f"CAPTURE_HEADERS={name!r} has client addresses in full, which "
                f"IP_MODE={s.ip_mode!r} is to keep out of what is stored"
            )
    if s.event_schema and s.event_format == "raw":
        yield "EVENT_SCHEMA says what JSON is taken; EVENT_FORMAT='raw' takes any text"
    if s.capture_write_key_name and not s.write_keys:
        yield "CAPTURE_WRITE_KEY_NAME=true needs WRITE_KEYS; without, no key has a name"


def _of_listeners_and_stop(s: Settings) -> Iterator[str]:
    private_port = s.metrics_addr.rpartition(":")[2]
    if private_port in ("0", s.http_addr.rpartition(":")[2]):
        yield (
            f"METRICS_ADDR={s.metrics_addr!r} needs a port of its own, other than that of "
            f"HTTP_ADDR={s.http_addr!r} and not 0: listeners are told apart by their ports"
        )
    if s.shutdown_timeout - s.drain_delay < 1:
        yield (
            f"DRAIN_DELAY={s.text('DRAIN_DELAY')} leaves less than 1s of SHUTDOWN_TIMEOUT="
            f"{s.text('SHUTDOWN_TIMEOUT')} to drain in"
        )


#: Settings of earlier versions, and why nobody needs them.
NOT_NEEDED = {"DLQ_SHARED": "every server has a directory of its own in DLQ_DIR"}


class UnknownSetting(NamedTuple):
    """A name that is no setting, and the setting's that is nearest; empty if none is near."""

    variable: str
    nearest: str

    def __str__(self) -> str:
        meant = f"; did you mean {self.nearest}?" if self.nearest else ""
        return f"{self.variable} is no setting{meant}"


def unknown_settings(
    from_file: Mapping[str, str], environ: Collection[str], settings: Collection[str]
) -> list[UnknownSetting]:
    """Return the names that are no settings, each once.

    ``from_file`` has the values as they are written. They tell which names others refer to
    (``${NAME}``): such a name is used, though it is no setting.
    """
    referred = {name for value in from_file.values() for name in _REFERENCE.findall(value)}
    names = [name for name in from_file if name not in referred]
    found = dict(_told(names, settings, _SOMEHOW, with_unlike=True))
    found |= dict(_told(environ, settings, _NEARLY, with_unlike=False))
    return [UnknownSetting(name, nearest) for name, nearest in found.items()]


def _told(
    names: Collection[str], settings: Collection[str], likeness: float, *, with_unlike: bool
) -> Iterator[tuple[str, str]]:
    for name in names:
        upper = name.upper()
        if name in settings or name in NOT_NEEDED or _OTHERS.fullmatch(upper):
            continue
        near = get_close_matches(upper, settings, n=1, cutoff=likeness)
        if near or (with_unlike and _VARIABLE.fullmatch(name)):
            yield name, near[0] if near else ""
