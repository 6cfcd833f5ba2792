"""The contenders, in the order in which they take turns; the first is what the others are held to.

Each measurement has its own. A new one is a new row: what to start, and what to
send to it. Commands and variables may name ``{port}``, ``{directory}`` (an empty
one of the server's own), ``{bin}`` (where this interpreter's commands are),
``{python}`` (the interpreter) and ``{root}`` (the repository).
"""

from dataclasses import dataclass, field, replace

DURABILITIES = ("memory", "journal", "fsync")


@dataclass(frozen=True)
class Contender:
    """A row of the report: a server, and the load for it."""

    name: str
    command: str
    environ: dict[str, str] = field(default_factory=dict, hash=False)
    #: The path that answers 200 once it serves; None: an open port is all there is to see.
    ready_path: str | None = None
    events_per_request: int = 1
    connections: int = 32
    #: How many of its requests are tried one by one before; None: all.
    tried: int | None = None

    @property
    def content_type(self) -> str:
        """What its requests are."""
        return "application/json" if self.events_per_request == 1 else "application/x-ndjson"


def _estat(name: str, durability: str = "journal", **more: str) -> Contender:
    environ = {
        "HTTP_ADDR": "127.0.0.1:{port}",
        "RAW_BUCKET": "file:{directory}/bucket",
        "DLQ_DIR": "{directory}/dlq",
        "DURABILITY": durability,
        "FLUSH_INTERVAL": "120s",
        "WEB_CONCURRENCY": "1",
        "LOG_LEVEL": "warning",
    }
    command = "{bin}/gunicorn -c {root}/conf/gunicorn.conf.py estat.wsgi:app"
    return Contender(name, command, environ | more, ready_path="/health")


def _compiled(contender: Contender) -> Contender:
    """Return the same on the compiled build, which ``make bench`` puts into build/fast."""
    name = f"{contender.name}, compiled"
    command = f"{contender.command} --chdir {{root}}/build/fast"
    environ = {**contender.environ, "PYTHONPATH": "{root}/build/fast"}
    return replace(contender, name=name, command=command, environ=environ)


def _access(store_url: str) -> dict[str, str]:
    return {
        "RAW_BUCKET": "bench",
        "AWS_ENDPOINT_URL_S3": store_url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def _with_s3(name: str, store_url: str, durability: str = "journal", **more: str) -> Contender:
    return _estat(name, durability, **_access(store_url), **more)


#: gunicorn as it comes, but for what would make the two unlike: connections that end during a
#: round, a parser that depends on what is installed, a socket in the user's home.
BARE = Contender(
    "bare Falcon on stock gevent worker",
    "{bin}/gunicorn --worker-class gevent --workers 1 --bind 127.0.0.1:{port} --keep-alive 75"
    " --http-parser python --no-control-socket --log-level warning bench.bare:app",
)

FLOOR = Contender("floor: bare gevent echo", "{python} -m bench.echo {port}")

#: What the machine and the driver add to each latency.
LATENCY_FLOOR = replace(FLOOR, connections=64)

RECOVERY = _estat("estat")

_NDJSON = replace(_estat("estat, NDJSON of 100"), events_per_request=100)
NDJSON = (_NDJSON, _compiled(_NDJSON))

OVERHEAD = (
    BARE,
    FLOOR,
    *(_estat(f"estat, DURABILITY={level}", level) for level in DURABILITIES),
    *(_compiled(_estat(f"estat, DURABILITY={level}", level)) for level in DURABILITIES),
    *NDJSON,
)

_LEVELS = tuple(_estat(f"DURABILITY={level}", level) for level in DURABILITIES)

DURABILITY = (
    *_LEVELS,
    *(replace(one, name=f"{one.name}, one connection", connections=1) for one in _LEVELS),
)


def stored(store_url: str) -> tuple[Contender, ...]:
    """Return the ones whose answers wait for the store, beside those that do not."""
    settings = {"journal": {}, "stored": {}, "stored, 30ms": {"STORED_INTERVAL": "30ms"}}
    found = []
    for connections in (32, 512):
        for name, more in settings.items():
            durability = name.partition(",")[0]
            prefix = {"RAW_PREFIX": f"{len(found)}.raw"}  # tells whose objects are whose
            one = _with_s3(
                f"{name}, {connections} connections", store_url, durability, **more, **prefix
            )
            found.append(replace(one, connections=connections, tried=1))
    return tuple(found)


#: The ones whose answers are timed while batches are uploaded, and while the DLQ is replayed.
LATENCY = (*_LEVELS[1:], *map(_compiled, _LEVELS[1:]))
REPLAY = (_LEVELS[1], _compiled(_LEVELS[1]))

#: As many connections for each of two workers as there are for one elsewhere.
WORKERS = tuple(
    replace(_estat(f"WEB_CONCURRENCY={count}", WEB_CONCURRENCY=str(count)), connections=64)
    for count in (1, 2)
)


def to_store(contender: Contender, store_url: str) -> Contender:
    """Return the one with a store, and batches so small that uploads go on all the time."""
    small = {"BATCH_SIZE": "1000", "FLUSH_INTERVAL": "1s"}
    environ = {**contender.environ, **_access(store_url), **small}
    return replace(contender, environ=environ, connections=64)


def start(store_url: str) -> tuple[Contender, ...]:
    """Return the ones that are started, with each kind of store; an open port is enough."""
    each = _estat("file: store"), _with_s3("S3", store_url)
    return tuple(replace(contender, ready_path=None) for contender in each)


def memory(store_url: str, dlq_bytes: int) -> Contender:
    """Return the one that keeps all defaults, but for the size of the DLQ."""
    return _with_s3("DURABILITY=journal", store_url, DLQ_MAX_SIZE_BYTES=str(dlq_bytes))


def outage(durability: str, store_url: str, events_per_request: int) -> Contender:
    """Return the one that loses its S3, with the defaults for all that an outage touches."""
    contender = _with_s3(f"DURABILITY={durability}", store_url, durability)
    return replace(contender, events_per_request=events_per_request)
