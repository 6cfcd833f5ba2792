"""The settings: each is declared once here, with its default, its bounds and one sentence.

The reference page and the example file are generated from these declarations and the
sentences below them (see ``reference``); ``loading`` reads their values.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple, Self
from zoneinfo import ZoneInfo

from estat.config import parsers
from estat.config.durability import Durability
from estat.config.parsers import Declaration
from estat.events.schema import Schema


def _setting(declaration: Declaration, default: str | None = "") -> Any:
    declared = declaration._replace(default=default)
    return field(metadata={"declaration": declared}, repr=not declared.secret)


def _seconds(default: str, low: str, high: str) -> Any:
    parse = parsers.between(parsers.duration, parsers.duration(low), parsers.duration(high))
    valid = f"a duration from {low} to {high}, e.g. 120s, 24h or 500ms"
    return _setting(Declaration(parse, valid), default)


def _bytes(default: str, low: str, high: str) -> Any:
    parse = parsers.between(parsers.size, parsers.size(low), parsers.size(high))
    valid = f"a size from {low} to {high}, e.g. 16384, 8MiB or 18GB"
    return _setting(Declaration(parse, valid), default)


def _count(default: str, low: int, high: int) -> Any:
    parse = parsers.between(parsers.whole, low, high)
    return _setting(Declaration(parse, f"a whole number from {low} to {high}"), default)


def _choice(default: str, options: Iterable[str], unset: Callable[[], str] = str) -> Any:
    *others, last = options
    valid = f"{', '.join(others)} or {last}"
    return _setting(Declaration(parsers.choice(options), valid, unset), default)


class StopTimes(NamedTuple):
    """When each share of a worker's drain ends, in seconds from its beginning."""

    requests: float  # in flight
    uploads: float
    disk: float


@dataclass(frozen=True)
class Settings:
    """All settings, parsed: durations in seconds, sizes in bytes."""

    raw_bucket: str = _setting(parsers.BUCKET, None)
    """The bucket that stores the events. `file:DIR` stores them in a local directory."""
    raw_prefix: str = _setting(parsers.PREFIX, "raw")
    """Prefix of all keys of stored events."""
    dlq_prefix: str = _setting(parsers.PREFIX, "raw_dlq")
    """Prefix for damaged files, which are kept for a person to look at. Not within RAW_PREFIX."""
    rejected_prefix: str = _setting(parsers.PREFIX)
    """Prefix for events and requests that were refused for their content. Empty: they are not
    kept."""
    aws_region: str = _setting(parsers.REGION)
    """The bucket's region. Empty: as boto3 finds it."""
    s3_kms_key_id: str = _setting(parsers.KMS_KEY)
    """KMS key to encrypt objects with (SSE-KMS with a bucket key). Empty: the bucket's default."""
    s3_storage_class: str = _choice("", parsers.STORAGE_CLASSES)
    """Storage class of the objects. Empty: STANDARD."""
    s3_object_tags: tuple[str, ...] = _setting(parsers.TAGS)
    """Tags for each object, e.g. `team=web,retention=1y`."""
    s3_expected_bucket_owner: str = _setting(parsers.OWNER)
    """AWS account that must own the bucket, or S3 refuses all requests. Empty: any."""
    s3_role_arn: str = _setting(parsers.ROLE)
    """Role to assume for the bucket. Empty: the credentials that boto3 finds."""
    s3_role_external_id: str = _setting(parsers.EXTERNAL_ID)
    """External id that the role's trust policy asks for."""
    partition_tz: ZoneInfo = _setting(parsers.TIME_ZONE, "UTC")  # noqa: RUF009 - a field, made by a helper
    """Time zone of the partitions `dt=` and `hr=`."""

    http_addr: str = _setting(parsers.ADDRESS, ":8080")
    """Address to listen on."""
    web_concurrency: int = _count("1", 1, 64)
    """Number of worker processes."""
    max_body_size: int = _bytes("16384", "64", "16MiB")
    """Largest size of one event."""
    max_batch_body_size: int = _bytes("1MiB", "64", "64MiB")
    """Largest size of a request body."""
    max_batch_events: int = _count("1000", 1, 100_000)
    """Most events in one request."""
    read_timeout: float = _seconds("8s", "100ms", "10m")
    """Time limit for a request's head, and for each 64 KiB of its body, to arrive."""
    keepalive: float = _seconds("75s", "1s", "1h")
    """How long an idle connection stays open. Set it above the balancer's idle timeout."""

    durability: Durability = _choice("journal", Durability)  # noqa: RUF009 - a field, made by a helper
    """What accepted events survive: `memory` an outage of S3 and a stop, `journal` also killed
    processes, `fsync` also a power failure, `stored` also the loss of host and disk."""
    stored_interval: float = _seconds("250ms", "10ms", "10s")
    """With DURABILITY=stored: age at which a batch is closed."""
    stored_strict: bool = _setting(parsers.FLAG, "false")
    """With DURABILITY=stored: refuse new events while the store is down."""
    channel_size: int = _count("4000", 1, 10_000_000)
    """Most events in a worker's queue."""
    queue_bytes: int = _bytes("16MiB", "1KiB", "4GiB")
    """Most bytes in a worker's queue."""
    batch_size: int = _count("5000", 1, 1_000_000)
    """Most events in a batch."""
    batch_bytes: int = _bytes("8MiB", "1KiB", "256MiB")
    """Most uncompressed bytes in a batch."""
    flush_interval: float = _seconds("120s", "10ms", "1h")
    """Age at which a batch is closed."""

    upload_queue: int = _count("4", 1, 1000)
    """Most batches that wait for an upload."""
    upload_concurrency: int = _count("4", 1, 64)
    """Uploads at a time, in each worker."""
    s3_timeout: float = _seconds("3s", "10ms", "5m")
    """Time limit for one attempt to store a batch."""
    s3_app_retries: int = _count("2", 0, 20)
    """Attempts after the first, before a batch goes to the DLQ."""
    s3_conditional_put: bool = _setting(parsers.FLAG, "true")
    """Send `If-None-Match: *`, so that no object is overwritten."""

    dlq_dir: str = _setting(parsers.DIRECTORY, "/tmp/dlq")  # noqa: S108 - the established default
    """Directory of the dead letter queue and the journals. Put it on a disk that stays."""
    dlq_max_age: float = _seconds("24h", "1s", "3650d")
    """Older files are sent last and rarely, but not deleted."""
    dlq_max_size_bytes: int = _bytes("18GB", "4KiB", "1000TiB")
    """Largest size of DLQ_DIR, for all servers that share it."""
    dlq_overflow: str = _choice("reject", ("reject", "drop_oldest"))
    """When the DLQ is full: refuse new events, or delete the oldest files."""
    fallback_bucket: str = _setting(parsers.BUCKET)
    """Bucket for what a stop could not store in RAW_BUCKET. Empty: it stays in DLQ_DIR."""

    shutdown_timeout: float = _seconds("25s", "1s", "1h")
    """Time limit for a stop, DRAIN_DELAY included."""
    drain_delay: float = _seconds("0s", "0s", "10m")
    """How long to serve on with `/ready` at 503 before a stop begins."""

    trusted_proxies: int | tuple[parsers.Network, ...] = _setting(parsers.PROXIES, "1")
    """Proxies in front of the server: their number, or their networks."""
    client_ip_header: str = _choice(
        "auto", ("auto", "x-forwarded-for", "forwarded", "cloudfront-viewer-address")
    )
    """Header field in which the proxies name the client's address. `auto`: X-Forwarded-For, else
    Forwarded."""
    ip_mode: str = _choice("full", ("full", "truncate", "hash", "drop"))
    """What is stored of the client's address: all of it, its /24 or /48, a hash with IP_HASH_KEY,
    or nothing."""
    ip_hash_key: str = _setting(parsers.HASH_KEY)
    """Key of IP_MODE=hash. The same key gives the same hash for an address."""
    capture_headers: tuple[str, ...] = _setting(parsers.HEADER_NAMES)
    """Header fields to store with each event, e.g. `referer,cookie`. `-` becomes `_` in names."""
    allowed_origins: tuple[str, ...] = _setting(parsers.ORIGINS, parsers.ANY_ORIGIN)
    """Origins whose web pages may send events, besides the server's own. `*`: all."""
    write_keys: tuple[parsers.WriteKey, ...] = _setting(parsers.WRITE_KEYS)
    """Keys, one of which each request must have. Empty: everyone may send."""
    capture_write_key_name: bool = _setting(parsers.FLAG, "false")
    """Store the write key's name with each event, as `write_key`."""
    capture_query: bool = _setting(parsers.FLAG, "false")
    """Store the URL's query beside the events of a body, as `query`."""
    fallback_charset: str = _setting(parsers.CHARSET)
    """Encoding of queries and forms that are not UTF-8 and name no encoding. Empty: their bytes
    become U+FFFD."""
    accepted_status: str = _choice("202", ("202", "200"))
    """Status of the answer to an accepted POST."""
    receipts: bool = _setting(parsers.FLAG, "false")
    """Name the ids of the first and the last event in the answer to a POST."""
    event_schema: Schema | None = _setting(parsers.SCHEMA)  # noqa: RUF009 - a field, made by a helper
    """JSON Schema that each event must match. Empty: any JSON object is an event."""
    event_format: str = _choice("json", ("json", "raw"))
    """`json`: an event is a JSON object. `raw`: a request is one event of any text, stored as a
    string, for jobs that read the Go server's records."""
    metrics_addr: str = _setting(parsers.ADDRESS)
    """Second address to listen on. `/metrics` and `/openapi.json` are then only there. Empty: they
    are at HTTP_ADDR."""

    instance_id: str = _setting(parsers.INSTANCE)
    """This server's name in object keys. Empty: the host's name."""
    log_level: str = _choice("info", ("debug", "info", "warning", "error"))
    """Lowest level to log."""
    log_format: str = _choice(
        "", ("json", "console"), lambda: "console" if os.isatty(2) else "json"
    )
    """`json`: one object a line. `console`: text for people, the default on a terminal."""

    @property
    def stop_times(self) -> StopTimes:
        """Three equal shares of SHUTDOWN_TIMEOUT, less what passes outside of the drain."""
        seconds = self.shutdown_timeout - self.drain_delay
        seconds -= min(1.0, seconds / 5)  # the arbiter's own steps
        return StopTimes(seconds / 3, 2 * seconds / 3, seconds)

    def without(self, *names: str) -> Self:
        """Return the settings with some, named by their variables, not set."""
        return replace(self, **{name.lower(): declarations()[name].unset() for name in names})

    def text(self, name: str) -> str:
        """Return a setting's value as its variable may be set to, by the variable's name."""
        match getattr(self, name.lower()):
            case None:
                return ""
            case bool(value):
                return str(value).lower()
            case float(value):
                return parsers.duration_text(value)  # there are no other fractions
            case tuple(several):
                return ",".join(map(str, several))
            case other:
                return str(other)


def declarations() -> dict[str, Declaration]:
    """Return every setting's declaration by the name of its variable, in order."""
    return {f.name.upper(): f.metadata["declaration"] for f in fields(Settings)}
