"""``estat check``: tries everything that the server needs, and says what to do about the rest.

A line for each thing: ``ok``, ``warn`` or ``FAIL``. The bucket is tried with a
small object under DLQ_PREFIX, which must be proven to be stored, is read back, written
again (to see whether the store honours If-None-Match) and removed. What the settings ask
for with each object (key, class, tags) must then be there; what the bucket refuses is
told with its remedy (see ``refusals``).
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any

from estat import config, dlq_owner, identity, mounts
from estat.batch import crc32_of
from estat.cli import headroom, refusals
from estat.dlq import DeadLetterQueue
from estat.errors import (
    UNPROVEN,
    DiskError,
    ObjectExists,
    SettingsError,
    StoreDenied,
    StoreError,
)
from estat.server_directory import ServerDirectory
from estat.settings import Settings
from estat.stores import Store, Stores

_BODY = b"written by estat check\n"


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "check", help="check the settings, the DLQ directory and the bucket"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a line for each check; return 0, 1 when one failed, 2 when a setting is bad."""
    del args
    try:
        settings = config.load()
    except SettingsError as exc:
        for problem in exc.problems:
            _line("FAIL", "setting", problem)
        _misspelt()
        return 2
    _line("ok", "settings", "all valid")
    _misspelt()
    for warning in headroom.warnings(settings):
        _line("warn", "settings", warning)
    failed = [not check(settings) for check in (_dlq, _bucket)]
    return 1 if any(failed) else 0


def _misspelt() -> None:
    for name in config.misspelt_names():
        _line("warn", "settings", str(name))


def _dlq(settings: Settings) -> bool:
    try:
        for warning in dlq_owner.warnings(settings.dlq_dir):
            _line("warn", "dlq", warning)
        if settings.dlq_shared:
            return _shared(settings)
        dlq = DeadLetterQueue(settings.dlq_dir)
        dlq.create()
        totals = dlq.walk()
    except DiskError as exc:
        _line("FAIL", "dlq", f"{exc}; make DLQ_DIR a directory that the server may write to")
        return False
    _line("ok", "dlq", f"{settings.dlq_dir} is writable, {totals.files} files wait in it")
    for warning in mounts.warnings(settings.dlq_dir):
        _line("warn", "dlq", f"{warning}; set DLQ_DIR to a directory on a disk that stays")
    return True


def _shared(settings: Settings) -> bool:
    """Try what a server does that shares the directory. Raises DiskError."""
    directory = ServerDirectory(settings.dlq_dir)
    DeadLetterQueue(directory.path).create()
    directory.release()
    _line("ok", "dlq", f"{settings.dlq_dir} is writable, and locks work there")
    return True


def _bucket(settings: Settings) -> bool:
    key = f"{settings.dlq_prefix}/.check-{identity.new_stream()}"
    try:
        store = Stores(settings).get(settings.raw_bucket)
        by_answer = store.put(key, _BODY, crc32_of(_BODY), "text/plain", {})
    except StoreError as exc:
        todo = refusals.what_to_do(settings, key, _BODY, exc)
        where = refusals.subject(exc)
        _line("FAIL", where, f"can't write to {settings.raw_bucket}: {exc}; {todo}")
        return False
    if settings.s3_role_arn:
        _line("ok", "role", f"assumed {settings.s3_role_arn}")
    _line("ok", "bucket", f"wrote {key} to {settings.raw_bucket}")
    if not by_answer:
        _line(
            "warn",
            "bucket",
            "its answers name neither the CRC-32 nor the MD5 of what was sent: "
            "each PUT costs a HEAD, which proves that the object is stored",
        )
    rights = "s3:GetObject" + (" and kms:Decrypt" if settings.s3_kms_key_id else "")
    read = _try("read it back", lambda: _read_back(store, key), f"grant {rights}")
    read = _as_asked(settings, store, key) and read
    removed = _try(
        "remove it", lambda: store.delete(key), f"remove {key} by hand; only this check needs it"
    )
    return read and removed


def _read_back(store: Store, key: str) -> None:
    if store.head(key) is None or store.get(key) != _BODY:
        raise StoreDenied("what was read is not what was written", code=UNPROVEN)
    try:
        store.put(key, _BODY, crc32_of(_BODY), "text/plain", {})
    except ObjectExists:
        return
    _line(
        "warn", "bucket",
        "the store replaces objects despite If-None-Match; the server looks before it replays, "
        "but keep other writers away from RAW_PREFIX",
    )  # fmt: skip


def _as_asked(settings: Settings, store: Store, key: str) -> bool:
    """Tell whether the object has what the settings ask for."""
    asked = [name for name in refusals.VISIBLE if getattr(settings, name.lower())]
    if not asked:
        return True
    try:
        lacking = store.lacking(key)
    except StoreError as exc:
        _line("FAIL", "bucket", f"can't look at its encryption, class and tags: {exc}")
        return False
    for name, found in lacking.items():
        if found:
            _line("FAIL", "bucket", f"asked for {name}, found {found}; unset it, or use a "
                  "store that does what it asks for")  # fmt: skip
        else:
            _line("warn", "bucket", f"the store does not tell of {name}; grant s3:GetObjectTagging "
                  "to have this checked, nothing else needs it")  # fmt: skip
    kept = [name for name in asked if name not in lacking]
    if kept:
        _line("ok", "bucket", f"it is as asked: {', '.join(kept)}")
    return not any(lacking.values())


def _try(what: str, action: Callable[[], None], hint: str) -> bool:
    try:
        action()
    except StoreError as exc:
        todo = refusals.NO_STORE if exc.code == UNPROVEN else hint
        _line("FAIL", "bucket", f"can't {what}: {exc}; {todo}")
        return False
    _line("ok", "bucket", what)
    return True


def _line(status: str, subject: str, text: str) -> None:
    sys.stdout.write(f"{status:<4} {subject}: {text}\n")
