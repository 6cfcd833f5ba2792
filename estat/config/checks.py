"""Checks beyond a single value, without I/O: contradictions, and settings that lose events."""

import re
from collections.abc import Iterator

from estat.config import parsers
from estat.config.settings import Settings, declarations

#: Header fields in which proxies tell addresses.
_WITH_ADDRESSES = re.compile(
    "(cloudfront-viewer-address|fastly-client-ip|true-client-ip|forwarded|x-appengine-user-ip"
    "|cf-connecting-ip(v6)?|x-(original-)?forwarded-for|x-(azure-client|client-|real-)ip"
    "|x-cluster-client-ip|x-envoy-external-address)"
)

#: An origin of http on its own port, of a host that has a domain: it may have a page of https too.
_PUBLIC_HTTP = re.compile(r"http://(.*\.[a-z][a-z0-9-]*)$")

_BALANCER_IDLE_SECONDS = 60


def contradictions(s: Settings) -> list[str]:
    """Return a sentence for each pair of settings that can't be together."""
    return [*_of_store(s), *_of_bucket(s), *_of_clients(s), *_of_listeners_and_stop(s)]


def _of_store(s: Settings) -> Iterator[str]:
    if s.max_body_size > s.max_batch_body_size:
        yield (
            f"MAX_BODY_SIZE={s.max_body_size} is above MAX_BATCH_BODY_SIZE="
            f"{s.max_batch_body_size}; no such event could be sent"
        )
    records = [f"{s.raw_prefix}{end}" for end in ("", "_streams", "_closed")]
    for taken in records:
        if f"{s.dlq_prefix}/".startswith(f"{taken}/"):
            yield (
                f"DLQ_PREFIX={s.dlq_prefix!r} lies within {taken!r}, which RAW_PREFIX names; "
                "unreadable files would mix with what readers expect there"
            )
    for taken in (*records, s.dlq_prefix) if s.rejected_prefix else ():
        own, other = f"{s.rejected_prefix}/", f"{taken}/"
        if own.startswith(other) or other.startswith(own):
            yield (
                f"REJECTED_PREFIX={s.rejected_prefix!r} is, or lies within or around, {taken!r}, "
                "where readers expect something else than what was refused"
            )
    if s.receipts and not s.durability.journaled:
        yield (
            f"RECEIPTS=true needs a journal; DURABILITY={s.durability.value!r} answers before "
            "events have ids"
        )
    for name in () if s.durability.stored else ("STORED_INTERVAL", "STORED_STRICT"):
        if s.text(name) != declarations()[name].default:
            yield f"{name}={s.text(name)} needs DURABILITY=stored; without, no answer waits"
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
    if s.ip_hash_key and s.ip_mode != "hash":
        yield f"IP_HASH_KEY is for IP_MODE=hash; IP_MODE={s.ip_mode!r} does not hash addresses"
    for name in s.capture_headers:
        if s.ip_mode != "full" and _WITH_ADDRESSES.fullmatch(name):
            yield (
                f"CAPTURE_HEADERS={name!r} has client addresses in full, which "
                f"IP_MODE={s.ip_mode!r} is to keep out of what is stored"
            )
    if s.event_schema and s.event_format == "raw":
        yield "EVENT_SCHEMA says what JSON is taken; EVENT_FORMAT='raw' takes any text"
    if s.fallback_charset and s.event_format == "raw" and not s.capture_query:
        yield "FALLBACK_CHARSET is for queries and forms; EVENT_FORMAT='raw' takes text as UTF-8"
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


def losing(s: Settings) -> Iterator[str]:
    """Yield a sentence for each valid setting by which events may be lost unheard."""
    yield from _unlisted_origins(s.allowed_origins)
    if s.write_keys:
        yield (
            "what can't set a header field (beacons, images, forms, browsers' reports) gets 401 "
            "with WRITE_KEYS and does not show it; put ?key= into its URL (data-key for /estat.js)"
        )
    if s.accepted_status == "200" and s.max_body_size < s.max_batch_body_size:
        yield (
            "ACCEPTED_STATUS=200 is for SDKs, and many put a batch into one object: that is one "
            f"event, and gets 413 beyond MAX_BODY_SIZE={s.max_body_size}; raise it to the size of "
            "their requests"
        )
    if s.max_batch_events > s.channel_size and s.event_format == "json":
        yield (
            f"MAX_BATCH_EVENTS={s.max_batch_events} is above CHANNEL_SIZE={s.channel_size}: a "
            "request of more events than that always gets 413; raise CHANNEL_SIZE"
        )
    if s.max_batch_body_size > s.queue_bytes and s.event_format == "json":
        yield (
            f"MAX_BATCH_BODY_SIZE={s.max_batch_body_size} is above QUEUE_BYTES={s.queue_bytes}: "
            "a request of more than that always gets 413; raise QUEUE_BYTES"
        )
    if s.trusted_proxies != 0 and s.keepalive <= _BALANCER_IDLE_SECONDS:
        yield (
            f"KEEPALIVE={s.text('KEEPALIVE')} is not above 60s, an AWS balancer's idle timeout: it "
            "answers 502 when a request meets the end of a connection; raise it, or lower that"
        )


def _unlisted_origins(listed: tuple[str, ...]) -> Iterator[str]:
    for origin in listed:
        for other in (origin.replace("*.", ""), _PUBLIC_HTTP.sub(r"https://\1", origin)):
            if other not in listed:
                yield (
                    f"ALLOWED_ORIGINS has {origin} and not {other}: pages of that are refused; add "
                    "it, if there are any"
                )
