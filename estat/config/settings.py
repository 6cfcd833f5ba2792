"""The settings: each is declared once here, with its default, its bounds and one sentence.

The reference page and the example file are generated from these declarations
(see ``reference``); ``loading`` reads their values.
"""

import os
import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple, Self
from zoneinfo import ZoneInfo

from estat.config import parsers
from estat.config.durability import Durability
from estat.events import ids
from estat.events.schema import Schema


class Declaration(NamedTuple):
    """What is known of a setting besides its type.

    ``parse`` makes its value of a text, or raises ValueError, KeyError or SettingsError.
    ``valid`` says what it takes, as the end of the sentence "it must be …".
    """

    parse: Callable[[str], Any]
    default: str | None  # None: required
    valid: str
    doc: str
    unset: Callable[[], Any]  # the value of an empty default
    secret: bool


def _setting(
    parse: Callable[[str], Any],
    default: str | None,
    valid: str,
    doc: str,
    *,
    unset: Callable[[], Any] = str,
    secret: bool = False,
) -> Any:
    declaration = Declaration(parse, default, valid, doc, unset, secret)
    return field(metadata={"declaration": declaration}, repr=not secret)


def _seconds(default: str, low: str, high: str, doc: str) -> Any:
    parse = parsers.between(parsers.duration, parsers.duration(low), parsers.duration(high))
    return _setting(
        parse, default, f"a duration from {low} to {high}, e.g. 120s, 24h or 500ms", doc
    )


def _bytes(default: str, low: str, high: str, doc: str) -> Any:
    parse = parsers.between(parsers.size, parsers.size(low), parsers.size(high))
    return _setting(parse, default, f"a size from {low} to {high}, e.g. 16384, 8MiB or 18GB", doc)


def _count(default: str, low: int, high: int, doc: str) -> Any:
    parse = parsers.between(parsers.whole, low, high)
    return _setting(parse, default, f"a whole number from {low} to {high}", doc)


def _flag(default: str, doc: str) -> Any:
    return _setting(parsers.flag, default, "true or false", doc)


def _choice(options: Iterable[str], default: str, doc: str, **more: Any) -> Any:
    *others, last = options
    return _setting(parsers.choice(options), default, f"{', '.join(others)} or {last}", doc, **more)


def _text(expected: re.Pattern[str], valid: str, doc: str, **more: Any) -> Any:
    """Declare a text of one form, which may be left empty."""
    return _setting(parsers.pattern(expected), "", valid, doc, **more)


def _default_instance() -> str:
    """Return the host's name, without what an object's key can't have."""
    cleaned = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:48]
    return cleaned or "instance"


_PREFIX = "letters, digits and -_.=!*'() in parts joined by /, none of them . or .."
_BUCKET = "an S3 bucket's name that does not end with --x-s3, or file:DIR for a local directory"
_ADDRESS = "HOST:PORT or :PORT, the port from 0 to 65535"


class StopTimes(NamedTuple):
    """When each share of a worker's drain ends, in seconds from its beginning."""

    requests: float  # in flight
    uploads: float
    disk: float


@dataclass(frozen=True)
class Settings:
    """All settings, parsed: durations in seconds, sizes in bytes."""

    raw_bucket: str = _setting(
        parsers.bucket,
        None,
        _BUCKET,
        "The bucket that stores the events. `file:DIR` stores them in a local directory.",
    )
    raw_prefix: str = _setting(
        parsers.prefix, "raw", _PREFIX, "Prefix of all keys of stored events."
    )
    dlq_prefix: str = _setting(
        parsers.prefix,
        "raw_dlq",
        _PREFIX,
        "Prefix for damaged files, which are kept for a person to look at. Not within RAW_PREFIX.",
    )
    rejected_prefix: str = _setting(
        parsers.prefix,
        "",
        _PREFIX,
        "Prefix for events and requests that were refused for their content. Empty: they are not "
        "kept.",
    )
    aws_region: str = _text(
        re.compile(r"[a-z0-9-]*"),
        "a region's name, e.g. eu-central-1",
        "The bucket's region. Empty: as boto3 finds it.",
    )
    s3_kms_key_id: str = _text(
        parsers.KMS_KEY,
        "a key id, alias/NAME, or the ARN of a key or an alias",
        "KMS key to encrypt objects with (SSE-KMS with a bucket key). Empty: the bucket's default.",
    )
    s3_storage_class: str = _choice(
        parsers.STORAGE_CLASSES, "", "Storage class of the objects. Empty: STANDARD."
    )
    s3_object_tags: tuple[str, ...] = _setting(
        parsers.tags,
        "",
        "at most 10 tags as key=value,key2=value2; keys of 128 and values of 256 characters at "
        "most, of letters, digits, spaces and +-=._:/@; each key once, none that begins with aws:",
        "Tags for each object, e.g. `team=web,retention=1y`.",
        unset=tuple,
    )
    s3_expected_bucket_owner: str = _text(
        parsers.OWNER,
        "the 12 digits of an AWS account",
        "AWS account that must own the bucket, or S3 refuses all requests. Empty: any.",
    )
    s3_role_arn: str = _text(
        parsers.ROLE,
        "a role's ARN, e.g. arn:aws:iam::123456789012:role/NAME",
        "Role to assume for the bucket. Empty: the credentials that boto3 finds.",
    )
    s3_role_external_id: str = _text(
        parsers.EXTERNAL_ID,
        "2 to 1,224 letters, digits and _+=,.@:/-",
        "External id that the role's trust policy asks for.",
    )
    partition_tz: ZoneInfo = _setting(  # noqa: RUF009 - a field, made by a helper
        ZoneInfo,
        "UTC",
        "a name from the tz database, e.g. UTC or Asia/Seoul",
        "Time zone of the partitions `dt=` and `hr=`.",
    )

    http_addr: str = _setting(parsers.address, ":8080", _ADDRESS, "Address to listen on.")
    web_concurrency: int = _count("1", 1, 64, "Number of worker processes.")
    max_body_size: int = _bytes("16384", "64", "16MiB", "Largest size of one event.")
    max_batch_body_size: int = _bytes("1MiB", "64", "64MiB", "Largest size of a request body.")
    max_batch_events: int = _count("1000", 1, 100_000, "Most events in one request.")
    read_timeout: float = _seconds(
        "8s",
        "100ms",
        "10m",
        "Time limit for a request's head, and for each 64 KiB of its body, to arrive.",
    )
    keepalive: float = _seconds(
        "75s",
        "1s",
        "1h",
        "How long an idle connection stays open. Set it above the balancer's idle timeout.",
    )

    durability: Durability = _choice(  # noqa: RUF009 - a field, made by a helper
        Durability,
        "journal",
        "What accepted events survive: `memory` an outage of S3 and a stop, `journal` also killed "
        "processes, `fsync` also a power failure, `stored` also the loss of host and disk.",
    )
    stored_interval: float = _seconds(
        "250ms", "10ms", "10s", "With DURABILITY=stored: age at which a batch is closed."
    )
    stored_strict: bool = _flag(
        "false", "With DURABILITY=stored: refuse new events while the store is down."
    )
    channel_size: int = _count("4000", 1, 10_000_000, "Most events in a worker's queue.")
    queue_bytes: int = _bytes("16MiB", "1KiB", "4GiB", "Most bytes in a worker's queue.")
    batch_size: int = _count("5000", 1, 1_000_000, "Most events in a batch.")
    batch_bytes: int = _bytes("8MiB", "1KiB", "256MiB", "Most uncompressed bytes in a batch.")
    flush_interval: float = _seconds("120s", "10ms", "1h", "Age at which a batch is closed.")

    upload_queue: int = _count("4", 1, 1000, "Most batches that wait for an upload.")
    upload_concurrency: int = _count("4", 1, 64, "Uploads at a time, in each worker.")
    s3_timeout: float = _seconds("3s", "10ms", "5m", "Time limit for one attempt to store a batch.")
    s3_app_retries: int = _count(
        "2", 0, 20, "Attempts after the first, before a batch goes to the DLQ."
    )
    s3_conditional_put: bool = _flag(
        "true", "Send `If-None-Match: *`, so that no object is overwritten."
    )

    dlq_dir: str = _setting(
        parsers.directory,
        "/tmp/dlq",  # noqa: S108 - the established default
        "the path of a directory, without ~, $ or quotes",
        "Directory of the dead letter queue and the journals. Put it on a disk that stays.",
    )
    dlq_max_age: float = _seconds(
        "24h", "1s", "3650d", "Older files are sent last and rarely, but not deleted."
    )
    dlq_max_size_bytes: int = _bytes(
        "18GB", "4KiB", "1000TiB", "Largest size of DLQ_DIR, for all servers that share it."
    )
    dlq_overflow: str = _choice(
        ("reject", "drop_oldest"),
        "reject",
        "When the DLQ is full: refuse new events, or delete the oldest files.",
    )
    fallback_bucket: str = _setting(
        parsers.bucket,
        "",
        _BUCKET,
        "Bucket for what a stop could not store in RAW_BUCKET. Empty: it stays in DLQ_DIR.",
    )

    shutdown_timeout: float = _seconds(
        "25s", "1s", "1h", "Time limit for a stop, DRAIN_DELAY included."
    )
    drain_delay: float = _seconds(
        "0s", "0s", "10m", "How long to serve on with `/ready` at 503 before a stop begins."
    )

    trusted_proxies: int | tuple[parsers.Network, ...] = _setting(
        parsers.proxies,
        "1",
        "a number of proxies, or networks such as 10.0.0.0/8,fd00::/8",
        "Proxies in front of the server: their number, or their networks.",
    )
    client_ip_header: str = _choice(
        ("auto", "x-forwarded-for", "forwarded", "cloudfront-viewer-address"),
        "auto",
        "Header field in which the proxies name the client's address. `auto`: X-Forwarded-For, "
        "else Forwarded.",
    )
    ip_mode: str = _choice(
        ("full", "truncate", "hash", "drop"),
        "full",
        "What is stored of the client's address: all of it, its /24 or /48, a hash with "
        "IP_HASH_KEY, or nothing.",
    )
    ip_hash_key: str = _text(
        parsers.HASH_KEY,
        "at least 16 characters",
        "Key of IP_MODE=hash. The same key gives the same hash for an address.",
        secret=True,
    )
    capture_headers: tuple[str, ...] = _setting(
        parsers.header_names,
        "",
        "at most 20 names of header fields (letters, digits, hyphens) with commas between; none "
        "of a credential, which is never stored (authorization, proxy-authorization, x-write-key), "
        "and none that is a name in the record (id, ts, ip, write-key, query, path, body)",
        "Header fields to store with each event, e.g. `referer,cookie`. `-` becomes `_` in names.",
        unset=tuple,
    )
    allowed_origins: tuple[str, ...] = _setting(
        parsers.origins,
        "*",
        "*, or origins separated by commas, e.g. https://example.com,http://localhost:3000: "
        "scheme://host or scheme://host:port, no path, no slash at the end, names beyond ASCII as "
        "xn--…; https://*.example.com for all hosts below one; null; file://",
        "Origins whose web pages may send events, besides the server's own. `*`: all.",
    )
    write_keys: tuple[parsers.WriteKey, ...] = _setting(
        parsers.write_keys,
        "",
        f"up to {parsers.MAX_WRITE_KEYS} different keys separated by commas, each key or name:key; "
        "a key has letters, digits and ._~+/- with = only at its end, a name letters, digits and "
        "_.-; an unnamed key is called key and its place, e.g. key1",
        "Keys, one of which each request must have. Empty: everyone may send.",
        secret=True,
        unset=tuple,
    )
    capture_write_key_name: bool = _flag(
        "false", "Store the write key's name with each event, as `write_key`."
    )
    capture_query: bool = _flag(
        "false", "Store the URL's query beside the events of a body, as `query`."
    )
    fallback_charset: str = _setting(
        parsers.charset,
        "",
        "a label of an encoding that contains ASCII, as pages name it, e.g. euc-kr or windows-1252",
        "Encoding of queries and forms that are not UTF-8 and name no encoding. Empty: their bytes "
        "become U+FFFD.",
    )
    accepted_status: str = _choice(
        ("202", "200"), "202", "Status of the answer to an accepted POST."
    )
    receipts: bool = _flag(
        "false", "Name the ids of the first and the last event in the answer to a POST."
    )
    event_schema: Schema | None = _setting(  # noqa: RUF009 - a field, made by a helper
        parsers.schema,
        "",
        "a file with a JSON Schema",
        "JSON Schema that each event must match. Empty: any JSON object is an event.",
        unset=lambda: None,
    )
    event_format: str = _choice(
        ("json", "raw"),
        "json",
        "`json`: an event is a JSON object. `raw`: a request is one event of any text, stored as a "
        "string, for jobs that read the Go server's records.",
    )
    metrics_addr: str = _setting(
        parsers.address,
        "",
        _ADDRESS,
        "Second address to listen on. `/metrics` and `/openapi.json` are then only there. Empty: "
        "they are at HTTP_ADDR.",
    )

    instance_id: str = _text(
        ids.INSTANCE,
        "letters, digits, . and -, 48 at most",
        "This server's name in object keys. Empty: the host's name.",
        unset=_default_instance,
    )
    log_level: str = _choice(("debug", "info", "warning", "error"), "info", "Lowest level to log.")
    log_format: str = _choice(
        ("json", "console"),
        "",
        "`json`: one object a line. `console`: text for people, the default on a terminal.",
        unset=lambda: "console" if os.isatty(2) else "json",
    )

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
