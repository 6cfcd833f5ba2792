"""The contenders, in the order in which they take turns; the first is what the others are held to.

Each measurement has its own. A new one is a new row: a server (what to start) or
one that is there, and what to send to it. Commands and variables may name
``{port}``, ``{directory}`` (an empty one of the server's own), ``{bin}`` (where
this interpreter's commands are), ``{python}`` (the interpreter) and ``{root}``
(the repository).
"""

from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Server:
    """What to start, and when it serves."""

    name: str
    command: tuple[str, ...]
    environ: dict[str, str] = field(default_factory=dict, hash=False)
    #: The path that answers 200 once it serves; None: an open port is all there is to see.
    ready_path: str | None = None


@dataclass(frozen=True)
class Contender:
    """A row of the report."""

    name: str
    server: Server
    events_per_request: int = 1
    content_type: str = "application/json"
    path: str = "/collect"
    connections: int = 32


_BARE = Server(
    "bare",
    ("{bin}/gunicorn", "-c", "{root}/bench/bare_conf.py", "-k", "gevent", "-w", "1",
     "-b", "127.0.0.1:{port}", "bench.bare:app"),
)  # fmt: skip

_ECHO = Server("echo", ("{python}", "-m", "bench.echo", "{port}"))


def _estat(durability: str, suffix: str = "", /, **more: str) -> Server:
    return Server(
        f"estat-{durability}{suffix}",
        ("{bin}/gunicorn", "-c", "{root}/conf/gunicorn.conf.py", "estat.wsgi:app"),
        {
            "HTTP_ADDR": "127.0.0.1:{port}",
            "RAW_BUCKET": "file:{directory}/bucket",
            "DLQ_DIR": "{directory}/dlq",
            "DURABILITY": durability,
            "FLUSH_INTERVAL": "120s",
            "WEB_CONCURRENCY": "1",
            "LOG_LEVEL": "warning",
        }
        | more,
        ready_path="/health",
    )


DURABILITIES = ("memory", "journal", "fsync")

_ESTAT = {durability: _estat(durability) for durability in DURABILITIES}

RECOVERY = _ESTAT["journal"]

NDJSON = Contender("estat, NDJSON of 100", _ESTAT["journal"], 100, "application/x-ndjson")

FLOOR = Contender("floor: bare gevent echo", _ECHO)

OVERHEAD = (
    Contender("bare Falcon on stock gevent worker", _BARE),
    FLOOR,
    *(Contender(f"estat, DURABILITY={name}", server) for name, server in _ESTAT.items()),
    NDJSON,
)

DURABILITY = (
    *(Contender(f"DURABILITY={name}", server) for name, server in _ESTAT.items()),
    *(
        Contender(f"DURABILITY={name}, one connection", server, connections=1)
        for name, server in _ESTAT.items()
    ),
)


#: As many connections for each of two workers as there are for one elsewhere.
WORKERS = tuple(
    Contender(
        f"WEB_CONCURRENCY={count}",
        _estat("journal", f"-workers-{count}", WEB_CONCURRENCY=str(count)),
        connections=64,
    )
    for count in (1, 2)
)


def latency(durability: str, store_url: str) -> Contender:
    """Return the one whose batches are small, so that uploads go on all the time."""
    server = _estat(
        durability, "-s3", **_s3(store_url), BATCH_SIZE="1000", FLUSH_INTERVAL="1s"
    )  # fmt: skip
    return Contender(f"DURABILITY={durability}", server, connections=64)


#: What the machine and the driver add to each latency.
LATENCY_FLOOR = Contender(FLOOR.name, _ECHO, connections=64)


def start(store_url: str) -> tuple[Contender, ...]:
    """Return the ones that are started, with each kind of store; an open port is enough."""
    return (
        Contender("file: store", replace(_ESTAT["journal"], name="file", ready_path=None)),
        Contender("S3", replace(_estat("journal", "-s3", **_s3(store_url)), ready_path=None)),
    )


def memory(store_url: str, dlq_bytes: int) -> Contender:
    """Return the one that keeps all defaults, but for the size of the DLQ."""
    server = _estat("journal", "-s3", **_s3(store_url), DLQ_MAX_SIZE_BYTES=str(dlq_bytes))
    return Contender("DURABILITY=journal", server)


def outage(durability: str, store_url: str, events_per_request: int) -> Contender:
    """Return the one that loses its S3, with the defaults for all that an outage touches."""
    server = _estat(durability, "-s3", **_s3(store_url))
    name = f"DURABILITY={durability}"
    if events_per_request == 1:
        return Contender(name, server)
    return Contender(name, server, events_per_request, "application/x-ndjson")


def _s3(store_url: str) -> dict[str, str]:
    return {
        "RAW_BUCKET": "bench",
        "AWS_ENDPOINT_URL_S3": store_url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
