"""gunicorn's configuration file of the kill tests: the production one, and places to die at.

    FAILPOINTS         names from ``_PLACES``, with commas between them
    FAILPOINT_DEATHS   how many processes die at each of them; the others live on
    FAILPOINT_UP_TO    a process dies when it comes there for the n-th time, 1 <= n <= this
    FAILPOINT_VICTIM   "worker", or "group": arbiter and workers at once
    FAILPOINT_SEED     n is drawn from it, anew for each worker and place
    FAILPOINT_DIARY    a file with one line for each death, place and pid, written just before it

Nothing is simulated: the process kills itself with SIGKILL between two steps of the real code.
"""

import functools
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

from estat.gunicorn_conf import *  # noqa: F403 - first, for it patches what the others import

# isort: split
import boto3  # noqa: F401 - imported before the fork, so that a worker's next life begins soon

from estat.accounting.ledger import Ledger
from estat.disk import files
from estat.disk.dlq import Claim, DeadLetterQueue
from estat.disk.journal import Journal, Journals
from estat.pipeline.delivery import Delivery
from estat.pipeline.uploader import Spill, Uploader
from estat.server import hooks

_DIARY = os.open(os.environ["FAILPOINT_DIARY"], os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)

#: How many times this worker still passes each place; empty in the arbiter.
_left: dict[str, int] = {}


def post_fork(server: Any, worker: Any) -> None:
    """Decide where this worker is going to die."""
    hooks.post_fork(server, worker)
    rng = random.Random(f"{os.environ['FAILPOINT_SEED']}-{worker.age}")
    for place in os.environ["FAILPOINTS"].split(","):
        _left[place] = rng.randint(1, int(os.environ["FAILPOINT_UP_TO"]))


def _wanted(place: str) -> bool:
    size = os.fstat(_DIARY).st_size
    deaths = Counter(line.split()[0] for line in os.pread(_DIARY, size, 0).decode().splitlines())
    return deaths[place] < int(os.environ["FAILPOINT_DEATHS"])


def _reach(place: str) -> None:
    if place not in _left:
        return
    _left[place] -= 1
    if _left[place] <= 0 and _wanted(place):
        os.write(_DIARY, f"{place} {os.getpid()}\n".encode())
        if os.environ["FAILPOINT_VICTIM"] == "group":
            os.killpg(0, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def _before(
    place: str, owner: Any, name: str, applies: Callable[..., bool] = lambda *_, **__: True
) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if applies(*args, **kwargs):
            _reach(place)
        return original(*args, **kwargs)

    setattr(owner, name, wrapped)


def _after(
    place: str, owner: Any, name: str, applies: Callable[..., bool] = lambda *_, **__: True
) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        if applies(*args, **kwargs):
            _reach(place)
        return result

    setattr(owner, name, wrapped)


def _is_fresh(_: object, batch: Any, *__: object, **___: object) -> bool:
    return bool(batch.accepted_at)  # of events that this process has accepted


def _was_recovered(_: object, batch: Any, *__: object, **___: object) -> bool:
    return not batch.accepted_at and batch.events > 0  # a stream's record has none


def _has_journal(_: object, upload: Any) -> bool:
    return upload.journal is not None


def _leaves_others(path: str) -> bool:
    """Tell whether other journals of the same stream are still to be recovered."""
    return path.endswith(".journal") and any(
        name.endswith(".journal") for name in os.listdir(os.path.dirname(path))
    )


_PLACES: dict[str, Callable[[str], None]] = {
    # the group is in the page cache, and nobody knows
    "appended": lambda place: _after(place, Journals, "append"),
    # in the thread that has just synced
    "synced": lambda place: _after(place, Journal, "append"),
    "sealed": lambda place: _before(place, Uploader, "submit", _has_journal),
    "attempting": lambda place: _before(place, Delivery, "attempt", _is_fresh),
    "put": lambda place: _after(place, Delivery, "attempt", _is_fresh),
    "put_booked": lambda place: _after(place, Ledger, "store"),
    "spilled": lambda place: _after(place, Spill, "_write", _is_fresh),
    "spilled_booked": lambda place: _after(place, Ledger, "spill"),
    "recovered": lambda place: _after(place, DeadLetterQueue, "write", _was_recovered),
    "recovered_booked": lambda place: _after(place, Ledger, "recover"),
    "between_journals": lambda place: _after(place, files, "remove", _leaves_others),
    "replayed": lambda place: _after(place, Claim, "remove"),
    "replayed_booked": lambda place: _after(place, Ledger, "replay"),
}

for _name in os.environ["FAILPOINTS"].split(","):
    _PLACES[_name](_name)
