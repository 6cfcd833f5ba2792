"""Settings that are valid each by itself but not together."""

from estat.config import bucket_values
from estat.config.settings import Settings

#: Header fields in which proxies tell addresses.
_WITH_ADDRESSES = {
    "x-forwarded-for", "forwarded", "cloudfront-viewer-address", "x-real-ip", "x-client-ip",
    "x-original-forwarded-for", "x-cluster-client-ip", "true-client-ip", "cf-connecting-ip",
    "cf-connecting-ipv6", "fastly-client-ip", "x-envoy-external-address", "x-azure-clientip",
    "x-appengine-user-ip",
}  # fmt: skip


def find(s: Settings) -> list[str]:
    """Return a sentence for each contradiction."""
    problems = []
    if s.max_body_size > s.max_batch_body_size:
        problems.append(
            f"MAX_BODY_SIZE={s.max_body_size} is above MAX_BATCH_BODY_SIZE="
            f"{s.max_batch_body_size}; no such event could be sent"
        )
    problems += [
        f"DLQ_PREFIX={s.dlq_prefix!r} lies within {taken!r}, which RAW_PREFIX names; "
        "unreadable files would mix with what readers expect there"
        for taken in (s.raw_prefix, f"{s.raw_prefix}_streams")
        if f"{s.dlq_prefix}/".startswith(f"{taken}/")
    ]
    if s.fallback_bucket == s.raw_bucket:
        problems.append(
            f"FALLBACK_BUCKET={s.fallback_bucket!r} is RAW_BUCKET; it must be another one"
        )
    problems += bucket_values.contradictions(s.raw_bucket, s.aws_region, s.text)
    if s.trusted_proxies == 0 and s.client_ip_header != "auto":
        problems.append(
            f"CLIENT_IP_HEADER={s.client_ip_header!r} counts only from a trusted proxy, and "
            "TRUSTED_PROXIES=0 trusts none"
        )
    if s.ip_mode == "hash" and not s.ip_hash_key:
        problems.append("IP_MODE='hash' needs IP_HASH_KEY; it must be at least 16 characters")
    problems += [
        f"CAPTURE_HEADERS={name!r} has client addresses in full, which IP_MODE={s.ip_mode!r} "
        "is to keep out of what is stored"
        for name in s.capture_headers
        if s.ip_mode != "full" and name in _WITH_ADDRESSES
    ]
    private_port = s.metrics_addr.rpartition(":")[2]
    if private_port in ("0", s.http_addr.rpartition(":")[2]):
        problems.append(
            f"METRICS_ADDR={s.metrics_addr!r} needs a port of its own, other than that of "
            f"HTTP_ADDR={s.http_addr!r} and not 0: listeners are told apart by their ports"
        )
    if s.event_schema and s.event_format == "raw":
        problems.append("EVENT_SCHEMA says what JSON is taken; EVENT_FORMAT='raw' takes any text")
    if s.capture_write_key_name and not s.write_keys:
        problems.append("CAPTURE_WRITE_KEY_NAME=true needs WRITE_KEYS; without, no key has a name")
    if s.shutdown_timeout - s.drain_delay < 1:
        problems.append(
            f"DRAIN_DELAY={s.text('DRAIN_DELAY')} leaves less than 1s of SHUTDOWN_TIMEOUT="
            f"{s.text('SHUTDOWN_TIMEOUT')} to drain in"
        )
    return problems
