"""Settings: each is declared once here, with its default, its bounds and one sentence.

``load`` reads the environment and a ``.env`` file in the working directory (the
environment wins), checks everything, and tells all problems together. The
reference page and the example file are generated from the declarations (see
``reference``). ``os.environ`` is read in this module alone.
"""

import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, NamedTuple, get_args
from typing import Literal as L  # noqa: N817 - the declarations read better short
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dotenv import dotenv_values

from estat.errors import SettingsError

Network = IPv4Network | IPv6Network

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+)\s*(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?")
_SIZE_UNITS = {
    "": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
_PREFIX = re.compile(r"[A-Za-z0-9!_.*'()=-]+(?:/[A-Za-z0-9!_.*'()=-]+)*")
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_INSTANCE = re.compile(r"[A-Za-z0-9.-]{1,48}")
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\s/]*):(?P<port>\d{1,5})")


class Declaration(NamedTuple):
    """What is known of a setting besides its type."""

    parse: Callable[[str], Any]
    default: str | None  # None: required
    valid: str
    doc: str
    group: str
    secret: bool


def duration(text: str) -> float:
    """Parse ``500ms``, ``120s``, ``24h`` into seconds."""
    match = _DURATION.fullmatch(text)
    if not match:
        raise ValueError
    return float(match[1]) * _DURATION_UNITS[match[2]]


def size(text: str) -> int:
    """Parse ``16384``, ``8MiB``, ``18GB`` into bytes."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError
    return int(match[1]) * _SIZE_UNITS[match[2] or ""]


def _whole(text: str) -> int:
    if not re.fullmatch(r"\d+", text):
        raise ValueError
    return int(text)


def _flag(text: str) -> bool:
    return {"true": True, "1": True, "false": False, "0": False}[text.lower()]


def _choice(options: Any) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in get_args(options):
            raise ValueError
        return text.lower()

    return parse


def _pattern(pattern: re.Pattern[str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError
        return text

    return parse


def _prefix(text: str) -> str:
    return _pattern(_PREFIX)(text.strip("/"))


def _bucket(text: str) -> str:
    if text.startswith("file:"):
        path = text.removeprefix("file:")
        if not path:
            raise ValueError
        return "file:" + os.path.abspath(path.removeprefix("//"))
    if ".." in text:
        raise ValueError
    return _pattern(_BUCKET)(text)


def _address(text: str) -> str:
    match = _ADDRESS.fullmatch(text)
    if not match or int(match["port"]) > 65535:
        raise ValueError
    return f"{match['host'] or '0.0.0.0'}:{int(match['port'])}"  # noqa: S104 - what ":8080" means


def _proxies(text: str) -> int | tuple[Network, ...]:
    if re.fullmatch(r"\d+", text):
        return int(text)
    return tuple(ip_network(part.strip()) for part in text.split(","))


def _zone(text: str) -> ZoneInfo:
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, OSError) as exc:
        raise ValueError from exc


def _default_instance() -> str:
    cleaned = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:48]
    return cleaned or "instance"


def _between(
    parse: Callable[[str], float], low: float, high: float
) -> Callable[[str], float]:
    def bounded(text: str) -> float:
        value = parse(text)
        if not low <= value <= high:
            raise ValueError
        return value

    return bounded


def _setting(
    parse: Callable[[str], Any], default: str | None, valid: str, doc: str, group: str,
    secret: bool = False,
) -> Any:  # fmt: skip
    return field(metadata={"declaration": Declaration(parse, default, valid, doc, group, secret)})


def _seconds(default: str, low: str, high: str, doc: str, group: str) -> Any:
    parse = _between(duration, duration(low), duration(high))
    return _setting(parse, default, f"a duration from {low} to {high}, as 120s, 24h or 500ms",
                    doc, group)  # fmt: skip


def _bytes(default: str, low: str, high: str, doc: str, group: str) -> Any:
    parse = _between(size, size(low), size(high))
    return _setting(parse, default, f"a size from {low} to {high}, as 16384, 8MiB or 18GB",
                    doc, group)  # fmt: skip


def _count(default: str, low: int, high: int, doc: str, group: str) -> Any:
    parse = _between(_whole, low, high)
    return _setting(parse, default, f"a whole number from {low} to {high}", doc, group)


def _not_yet(default: str, feature: str, group: str) -> Any:
    """Declare a setting of the contract whose feature is not there: refused, never ignored."""

    def parse(text: str) -> str:
        if text.lower() != default:
            raise ValueError
        return text.lower()

    only = f"only {default}" if default else "only the empty value"
    return _setting(parse, default, f"{only}: {feature} is not available in this version",
                    f"Reserved: {feature} is not available in this version.", group)  # fmt: skip


STORE, HTTP, QUEUE, UPLOAD, DLQ, STOP, CLIENT, LOG = (
    "Where events go", "HTTP", "Queue and batches", "Uploads", "Dead letter queue", "Shutdown",
    "Clients and privacy", "Logs and identity",
)  # fmt: skip

Durability = L["memory"]


@dataclass(frozen=True)
class Settings:
    """All settings, parsed: durations in seconds, sizes in bytes."""

    raw_bucket: str = _setting(
        _bucket, None, "an S3 bucket's name, or file:DIR for a local directory",
        "The bucket that events are stored in; `file:DIR` stores the same keys under DIR.", STORE,
    )  # fmt: skip
    raw_prefix: str = _setting(
        _prefix, "raw", "letters, digits and -_.=!*'() in parts joined by /",
        "What every object's key begins with.", STORE,
    )  # fmt: skip
    dlq_prefix: str = _setting(
        _prefix, "raw_dlq", "letters, digits and -_.=!*'() in parts joined by /",
        "Where files that can't be read go, for a person to look at; never RAW_PREFIX.", STORE,
    )  # fmt: skip
    aws_region: str = _setting(
        _pattern(re.compile(r"[a-z0-9-]*")), "", "a region's name, as eu-central-1",
        "The bucket's region; empty: as boto3 finds it.", STORE,
    )  # fmt: skip
    partition_tz: ZoneInfo = _setting(
        _zone, "UTC", "a name from the tz database, as UTC or Asia/Seoul",
        "The time zone of the dt= and hr= partitions.", STORE,
    )  # fmt: skip

    http_addr: str = _setting(
        _address, ":8080", "HOST:PORT or :PORT",
        "The address to listen on.", HTTP,
    )  # fmt: skip
    web_concurrency: int = _count("1", 1, 64, "Worker processes.", HTTP)
    max_body_size: int = _bytes("16384", "64", "16MiB", "The largest single event.", HTTP)
    max_batch_body_size: int = _bytes(
        "1MiB", "64", "64MiB", "The largest request body.", HTTP)
    max_batch_events: int = _count("1000", 1, 100_000, "Events in one request, at most.", HTTP)
    read_timeout: float = _seconds(
        "8s", "100ms", "10m",
        "How long each 64 KiB of a request body may take to arrive.", HTTP)
    keepalive: float = _seconds(
        "75s", "1s", "1h",
        "How long an idle connection stays open; above the idle timeout of the balancer in front.",
        HTTP)

    durability: str = _setting(
        _choice(Durability), "memory",
        "memory (journal and fsync are not available in this version)",
        "What an acknowledgement survives.", QUEUE,
    )  # fmt: skip
    channel_size: int = _count(
        "4000", 1, 10_000_000, "Events that may wait in the queue.", QUEUE)
    queue_bytes: int = _bytes(
        "16MiB", "1KiB", "4GiB", "Bytes that may wait in the queue.", QUEUE)
    batch_size: int = _count("5000", 1, 1_000_000, "Events in a batch, at most.", QUEUE)
    batch_bytes: int = _bytes(
        "8MiB", "1KiB", "256MiB", "Uncompressed bytes in a batch, at most.", QUEUE)
    flush_interval: float = _seconds(
        "120s", "10ms", "1h", "The age at which a batch is closed.", QUEUE)

    upload_queue: int = _count(
        "4", 1, 1000, "Closed batches that may wait for an uploader.", UPLOAD)
    upload_concurrency: int = _count("4", 1, 64, "Uploads at a time.", UPLOAD)
    s3_timeout: float = _seconds("3s", "10ms", "5m", "The deadline of one attempt.", UPLOAD)
    s3_app_retries: int = _count(
        "2", 0, 20, "Attempts after the first, before a batch goes to the DLQ.", UPLOAD)
    s3_conditional_put: bool = _setting(
        _flag, "true", "true or false",
        "Send `If-None-Match: *`, so that no object is ever replaced.", UPLOAD,
    )  # fmt: skip

    dlq_dir: str = _setting(
        os.path.abspath, "/tmp/dlq", "a directory",  # noqa: S108 - the established default
        "The directory of the dead letter queue.", DLQ,
    )  # fmt: skip
    dlq_max_age: float = _seconds(
        "24h", "1s", "3650d", "The age from which a file is retried last and rarely.", DLQ)
    dlq_max_size_bytes: int = _bytes(
        "18GB", "1KiB", "1000TiB", "The largest size of the dead letter queue.", DLQ)
    dlq_overflow: str = _setting(
        _choice(L["reject", "drop_oldest"]), "reject", "reject or drop_oldest",
        "When the DLQ is full: refuse new events, or delete the oldest files.", DLQ,
    )  # fmt: skip
    dlq_shared: str = _not_yet("false", "a DLQ directory shared by several hosts", DLQ)
    fallback_bucket: str = _not_yet("", "a fallback bucket", DLQ)

    shutdown_timeout: float = _seconds(
        "25s", "1s", "1h", "How long a stop may take in all, DRAIN_DELAY included.", STOP)
    drain_delay: float = _seconds(
        "0s", "0s", "10m",
        "How long to go on serving with /ready red before a stop begins.", STOP)

    trusted_proxies: int | tuple[Network, ...] = _setting(
        _proxies, "1", "a number of proxies, or networks such as 10.0.0.0/8,fd00::/8",
        "The proxies in front: how many of them, or their networks.", CLIENT,
    )  # fmt: skip
    ip_mode: str = _not_yet("full", "shortening client addresses", CLIENT)
    ip_hash_key: str = _not_yet("", "hashing client addresses", CLIENT)
    capture_headers: str = _not_yet("", "storing further headers", CLIENT)
    allowed_origins: str = _not_yet("*", "answering cross-origin requests", CLIENT)
    write_keys: str = _not_yet("", "asking for a write key", CLIENT)
    event_format: str = _not_yet("json", "the raw record format", CLIENT)
    metrics_addr: str = _not_yet("", "a listener of its own for the metrics", CLIENT)

    instance_id: str = _setting(
        _pattern(_INSTANCE), "", "letters, digits, . and -, 48 at most",
        "This server's name in object keys; empty: the host's name.", LOG,
    )  # fmt: skip
    log_level: str = _setting(
        _choice(L["debug", "info", "warning", "error"]), "info", "debug, info, warning or error",
        "The least severe lines to log.", LOG,
    )  # fmt: skip
    log_format: str = _setting(
        _choice(L["json", "console"]), "json", "json or console",
        "One JSON object a line, or lines for people.", LOG,
    )  # fmt: skip


def declarations() -> dict[str, Declaration]:
    """Return every setting's declaration by the name of its variable, in order."""
    return {f.name.upper(): f.metadata["declaration"] for f in fields(Settings)}


def load(environ: Mapping[str, str] | None = None, env_file: str = ".env") -> Settings:
    """Read and check all settings.

    Variables of ``env_file`` that boto3 reads (``AWS_…``) are put into the
    environment, where boto3 looks for them. Raises SettingsError with every
    problem found.
    """
    from_file = {
        name: value for name, value in dotenv_values(env_file).items() if value is not None
    }
    if environ is None:
        for name, value in from_file.items():
            if name.startswith("AWS_"):
                os.environ.setdefault(name, value)
        environ = os.environ
    given = {**from_file, **environ}
    values: dict[str, Any] = {}
    problems: list[str] = []
    for name, declared in declarations().items():
        text = given.get(name, "").strip()
        if not text:
            if declared.default is None:
                problems.append(f"{name} is not set; it must be {declared.valid}")
                continue
            text = declared.default
            if not text:
                values[name.lower()] = _default_instance() if name == "INSTANCE_ID" else ""
                continue
        try:
            values[name.lower()] = declared.parse(text)
        except (ValueError, KeyError):
            shown = "(hidden)" if declared.secret else repr(text)
            problems.append(f"{name}={shown} is not valid; it must be {declared.valid}")
    if not problems:
        settings = Settings(**values)
        problems = _contradictions(settings)
    if problems:
        raise SettingsError(problems)
    return settings


def _contradictions(s: Settings) -> list[str]:
    """Find settings that are valid each by itself but not together."""
    problems = []
    if s.max_body_size > s.max_batch_body_size:
        problems.append(
            f"MAX_BODY_SIZE={s.max_body_size} is above MAX_BATCH_BODY_SIZE="
            f"{s.max_batch_body_size}; no such event could be sent"
        )
    if s.raw_prefix == s.dlq_prefix or s.dlq_prefix.startswith(s.raw_prefix + "/"):
        problems.append(
            f"DLQ_PREFIX={s.dlq_prefix!r} lies within RAW_PREFIX={s.raw_prefix!r}; "
            "unreadable files would mix with events"
        )
    if s.shutdown_timeout - s.drain_delay < 1:
        problems.append(
            f"DRAIN_DELAY={s.drain_delay:g}s leaves less than 1s of SHUTDOWN_TIMEOUT="
            f"{s.shutdown_timeout:g}s to drain in"
        )
    return problems


def effective(settings: Settings) -> dict[str, str]:
    """Return every setting's value as text, secrets hidden, for the log line at start."""
    shown = {}
    for name, declared in declarations().items():
        value = getattr(settings, name.lower())
        if isinstance(value, tuple):
            value = ",".join(map(str, value))
        shown[name] = "(hidden)" if declared.secret and value else str(value)
    return shown
