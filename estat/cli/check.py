"""Check the settings, the DLQ directory and the bucket.

Prints a line for each thing that the server needs: ok, warn, or FAIL with
what to do. It writes a small object under DLQ_PREFIX, reads it and removes
it. Exit status: 0 if nothing failed, 1 if something did, 2 for a wrong
setting.

Example: RAW_BUCKET=my-bucket DLQ_DIR=/var/lib/estat/dlq estat check
"""

# ``store_probe`` looks whether the store does what it says, ``refusals`` knows what to do if the
# bucket refuses. If settings ask for a key, a class or tags, the object must have them.

import argparse
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from estat.cli import refusals, store_probe
from estat.cli.output import say
from estat.cli.store_probe import Finding
from estat.config import checks, loading
from estat.config.settings import Settings
from estat.disk import dlq_dir, files
from estat.disk.dlq import DeadLetterQueue
from estat.disk.dlq_file import OVERHEAD_BYTES
from estat.disk.server_directory import SERVERS, ServerDirectory, queues
from estat.errors import UNPROVEN, DiskError, SettingsError, StoreError
from estat.stores import PATIENT_SECONDS, Stores
from estat.stores.store import Store

#: Of a batch's lines, what is left when they are compressed, at most as a rule.
_COMPRESSED = 0.25
#: A worker's batches outside of the upload queue and the uploaders: open, waiting, in the sealer.
_UNSENT_BATCHES = 3

_MB = 10**6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Register the option."""
    parser.add_argument(
        "--settings", action="store_true", help="only print all settings in force, as in .env"
    )


def run(args: argparse.Namespace) -> int:
    """Print a line for each check; return 0, 1 when one failed, 2 when a setting is bad."""
    try:
        settings = loading.load()
    except SettingsError as exc:
        _print(("FAIL", "setting", problem) for problem in exc.problems)
        return 2
    if args.settings:
        say(*_lines(loading.effective(settings)))
        return 0
    return 1 if _print(_findings(settings)) else 0


def _lines(given: Mapping[str, str]) -> Iterator[str]:
    return (f"{name}={text}" for name, text in given.items())


def _print(findings: Iterable[Finding]) -> bool:
    """Print each finding as it comes; return whether one of them is a failure."""
    failed = False
    for status, subject, text in findings:
        say(f"{status:<4} {subject}: {text}")
        failed |= status == "FAIL"
    return failed


def _findings(settings: Settings) -> Iterator[Finding]:
    changed = " ".join(_lines(loading.effective(settings, changed=True)))
    yield "ok", "settings", f"all valid; not the default: {changed}"
    for name in loading.unknown_names():
        yield "warn", "settings", str(name)
    for warning in (*checks.losing(settings), *too_small(settings)):
        yield "warn", "settings", warning
    with dlq_dir.acting_as_owner(settings.dlq_dir):
        yield from _dlq(settings)
    # a directory is the bucket of the user whose DLQ_DIR it is, too
    is_directory = settings.raw_bucket.startswith("file:")
    with dlq_dir.acting_as_owner(settings.dlq_dir, is_directory):
        yield from _bucket(settings)


def too_small(settings: Settings) -> list[str]:
    """Return a sentence for each setting that is valid, but too small for the others.

    The sums are those of docs/sizing.md and docs/shutdown.md. They are about the worst case:
    with little load a server may do with less.
    """
    told: list[str] = []
    needed = needed_bytes(settings)
    if settings.dlq_overflow == "reject" and settings.dlq_max_size_bytes < needed:
        told.append(
            f"DLQ_MAX_SIZE_BYTES={settings.dlq_max_size_bytes} is below the "
            f"{math.ceil(needed / _MB)}MB that memory and journals can hold: requests get 503 "
            "dlq_full with an empty DLQ, under load, or far below that always; raise it, or lower "
            "WEB_CONCURRENCY, QUEUE_BYTES, BATCH_BYTES or UPLOAD_QUEUE"
        )
    uploads = settings.stop_times.uploads - settings.stop_times.requests
    if uploads < settings.s3_timeout:
        told.append(
            f"SHUTDOWN_TIMEOUT={settings.text('SHUTDOWN_TIMEOUT')} less "
            f"DRAIN_DELAY={settings.text('DRAIN_DELAY')} leaves {uploads:.3g}s for uploads at a "
            f"stop, less than one attempt of S3_TIMEOUT={settings.text('S3_TIMEOUT')}: raise "
            "SHUTDOWN_TIMEOUT, or batches wait in the DLQ for the next start"
        )
    return told


def needed_bytes(settings: Settings) -> int:
    """Return what DLQ_MAX_SIZE_BYTES must have room for: all that memory and journals can hold."""
    lines = max(settings.batch_bytes, settings.max_batch_body_size)
    sent = settings.upload_queue + settings.upload_concurrency
    batches = _UNSENT_BATCHES + sent
    # the queue twice: as it fills, and what the collector has just taken from it
    exposed = 2 * settings.queue_bytes + _UNSENT_BATCHES * lines
    exposed += math.ceil((sent + 1) * lines * _COMPRESSED)
    journals = batches * lines if settings.durability.journaled else 0
    overhead = (settings.channel_size + batches) * OVERHEAD_BYTES
    return settings.web_concurrency * (exposed + journals + overhead)


def _dlq(settings: Settings) -> Iterator[Finding]:
    """Check that the server can write to DLQ_DIR and that files stay there.

    A directory that is not there is made for that, and removed: the server's user is to make it.
    """
    real = Path(os.path.realpath(settings.dlq_dir))
    missing = [path for path in (real / SERVERS, real, *real.parents) if not path.exists()]
    try:
        for warning in dlq_dir.owner_warnings(settings.dlq_dir):
            yield "warn", "dlq", warning
        # a server has a directory of its own there
        ServerDirectory.make(settings.dlq_dir).release()
        waiting = sum(DeadLetterQueue(path).walk().files for path in queues(str(real)))
    except DiskError as exc:
        yield "FAIL", "dlq", f"{exc}; make DLQ_DIR a directory that the server may write to"
        return
    finally:
        for path in missing:
            files.remove_empty(str(path))
    yield "ok", "dlq", f"{settings.dlq_dir} is writable, {waiting} files wait in it"
    for warning in dlq_dir.mount_warnings(settings.dlq_dir, synced=settings.durability.synced):
        yield "warn", "dlq", f"{warning}; set DLQ_DIR to a directory on a disk that stays"


def _bucket(settings: Settings) -> Iterator[Finding]:
    """Write an object as the server does, look at it, and remove it."""
    batch = store_probe.probe(settings)
    store = None
    try:
        stores = Stores(settings)
        credentials = stores.credentials(settings.raw_bucket)
        if credentials:
            credentials.wait(PATIENT_SECONDS)
            took = f"from {credentials.source} in {credentials.took_seconds:.1f}s"
            yield "ok", "credentials", took
        store = stores.get(settings.raw_bucket)
        by_answer = store_probe.put(store, batch)
    except StoreError as exc:
        subject, remedy = refusals.explain(settings, batch, exc)
        with suppress(StoreError):
            if store and exc.code == UNPROVEN:
                remedy = store_probe.why_unproven(store, batch)
        yield "FAIL", subject, f"can't write to {settings.raw_bucket}: {exc}; {remedy}"
        if store:  # the object may be there all the same, or a part of it
            store_probe.remove(store, batch.key)
        return
    try:
        if settings.s3_role_arn:
            yield "ok", "role", f"assumed {settings.s3_role_arn}"
        yield "ok", "bucket", f"wrote {batch.key} to {settings.raw_bucket}"
        yield from store_probe.findings(settings, store, batch, by_answer=by_answer)
        yield from _as_asked(settings, store, batch.key)
    finally:  # also after Ctrl-C, or where nobody reads on
        removed = store_probe.remove(store, batch.key)
    yield removed


def _as_asked(settings: Settings, store: Store, key: str) -> Iterator[Finding]:
    """Tell whether the object has what the settings ask for."""
    asked = refusals.visible(settings)
    try:
        lacking = store.lacking(key) if asked else {}
    except StoreError as exc:
        yield "FAIL", "bucket", f"can't look at its encryption, class and tags: {exc}"
        return
    for name, found in lacking.items():
        if found:
            remedy = "unset it, or use a store that does what it asks for"
            yield "FAIL", "bucket", f"asked for {name}, found {found}; {remedy}"
        else:
            remedy = "grant s3:GetObjectTagging to have this checked, nothing else needs it"
            yield "warn", "bucket", f"the store does not tell of {name}; {remedy}"
    kept = [name for name in asked if name not in lacking]
    if kept:
        yield "ok", "bucket", f"it is as asked: {', '.join(kept)}"
