"""The contenders, in the order in which they take turns; the first is what the others are held to.

A new one is a new row: a server (what to start) or one that is there, and what
to send to it. Commands and variables may name ``{port}``, ``{directory}`` (an
empty one of the server's own), ``{bin}`` (where this interpreter's commands
are) and ``{root}`` (the repository).
"""

from dataclasses import dataclass, field


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


_BARE = Server(
    "bare",
    ("{bin}/gunicorn", "-c", "{root}/bench/bare_conf.py", "-k", "gevent", "-w", "1",
     "-b", "127.0.0.1:{port}", "bench.bare:app"),
)  # fmt: skip


def _estat(durability: str) -> Server:
    return Server(
        f"estat-{durability}",
        ("{bin}/gunicorn", "-c", "{root}/conf/gunicorn.conf.py", "estat.wsgi:app"),
        {
            "HTTP_ADDR": "127.0.0.1:{port}",
            "RAW_BUCKET": "file:{directory}/bucket",
            "DLQ_DIR": "{directory}/dlq",
            "DURABILITY": durability,
            "FLUSH_INTERVAL": "120s",
            "WEB_CONCURRENCY": "1",
            "LOG_LEVEL": "warning",
        },
        ready_path="/health",
    )


_MEMORY = _estat("memory")

CONTENDERS = (
    Contender("bare Falcon on stock gevent worker", _BARE),
    Contender("estat, DURABILITY=memory", _MEMORY),
    Contender("estat, NDJSON of 100", _MEMORY, 100, "application/x-ndjson"),
)
