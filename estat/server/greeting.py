"""The first screen of a start: what a person wants to know of the server, and may try."""

import shlex
from collections.abc import Iterator

from estat import __version__, build
from estat.config import loading, parsers
from estat.config.durability import Durability
from estat.config.settings import Settings

#: Settings that have lines of their own.
_TOLD = {"RAW_BUCKET", "RAW_PREFIX", "DLQ_DIR", "DURABILITY", "HTTP_ADDR", "METRICS_ADDR"}


def lines(settings: Settings, addresses: list[str], *, interactive: bool) -> Iterator[str]:
    """Yield the lines; what to try only where somebody can type it.

    ``addresses`` are what the server listens on, as gunicorn writes them.
    """
    level, everything = settings.durability, settings.log_level == "debug"
    scheme = "" if settings.raw_bucket.startswith("file:") else "s3://"
    yield from ("", f"  Estat Ingest {__version__} ({build()})")
    yield f"  Listens on   {', '.join(addresses)}"
    yield f"  Stores in    {scheme}{settings.raw_bucket}/{settings.raw_prefix}/"
    yield f"  Durability   {level.value}: what is accepted survives {level.survives}"
    yield f"  DLQ          {settings.dlq_dir}"
    for name, text in loading.effective(settings, changed=not everything).items():
        if name not in _TOLD:
            yield f"  Setting      {name}={text}"
    if not everything:
        yield "  Defaults     all other settings; estat check --settings prints them"
    if interactive and addresses[0].startswith("http"):
        yield from _to_try(settings, addresses[0])
    yield ""


def _to_try(settings: Settings, address: str) -> Iterator[str]:
    scheme, _, place = address.partition("://")
    fields = ["Content-Type: application/json"]
    fields += ["X-Write-Key: KEY"] if settings.write_keys else []
    options = " ".join(f"-H '{field}'" for field in fields)
    url = f"{scheme}://{parsers.reachable(place)}/collect"
    yield f'  Try          curl -d \'{{"hello":"world"}}\' {options} {url}'
    if settings.raw_bucket.startswith("file:"):
        place = shlex.quote(f"{settings.raw_bucket[5:]}/{settings.raw_prefix}")
        stored = settings.durability is Durability.STORED  # before the answer
        soon = "Then" if stored else f"After {settings.text('FLUSH_INTERVAL')}"
        yield f"  {soon:<12} zcat {place}/dt=*/hr=*/*.jsonl.gz"
    yield "  Stop         Ctrl-C; what is in memory is stored first"
