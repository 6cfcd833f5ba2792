"""A worker's memory stays within the formula of docs/sizing.md."""

import json
import random
import threading
from pathlib import Path

from tests.conftest import Serve
from tests.support import accounting
from tests.support.dlq_dir import events_on_disk
from tests.support.faulty_s3 import FaultyS3
from tests.support.server import Server, ask

MIB = 2**20
QUEUE_BYTES, BATCH_BYTES, BODY_BYTES = 4 * MIB, 2 * MIB, MIB // 2
UPLOAD_QUEUE, UPLOAD_CONCURRENCY, CLIENTS = 2, 2, 8
EVENT_BYTES, PER_REQUEST, REQUESTS = 16_000, 20, 120


def rss_bytes(server: Server, field: str) -> int:
    (worker,) = server.worker_pids()
    for line in Path(f"/proc/{worker}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(field)


def post_all(server: Server, seed: int, accepted: list[str], answers: list[int]) -> None:
    """Post events that hardly compress: random digits, so that P is not small either."""
    rng = random.Random(seed)
    connection = server.connection()
    for number in range(REQUESTS):
        names = [f"{seed}-{number}-{i}" for i in range(PER_REQUEST)]
        body = b"\n".join(
            json.dumps({"n": n, "x": f"{rng.getrandbits(4 * EVENT_BYTES - 800):x}"}).encode()
            for n in names
        )
        answer = ask(connection, "POST", "/collect", body, {"Content-Type": "application/jsonl"})
        answers.append(answer.status)
        if answer.status == 202:
            accepted += names
    connection.close()


def test_memory_stays_within_the_formula_with_large_events_and_s3_hanging(
    serve: Serve, s3: FaultyS3
) -> None:
    server = serve(
        via=s3,
        QUEUE_BYTES=str(QUEUE_BYTES),
        BATCH_BYTES=str(BATCH_BYTES),
        UPLOAD_QUEUE=str(UPLOAD_QUEUE),
        UPLOAD_CONCURRENCY=str(UPLOAD_CONCURRENCY),
        MAX_BATCH_BODY_SIZE=str(BODY_BYTES),
        BATCH_SIZE="5000",
        FLUSH_INTERVAL="1s",
        S3_TIMEOUT="2s",
    )
    base = rss_bytes(server, "VmRSS")
    s3.fail("hang")
    accepted: list[str] = []
    answers: list[int] = []
    clients = [
        threading.Thread(target=post_all, args=(server, seed, accepted, answers))
        for seed in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()

    sent = len(answers) * PER_REQUEST * EVENT_BYTES
    # P is taken as large as L: hexadecimal digits compress to half of it at best
    formula = (
        base
        + 2 * QUEUE_BYTES
        + 5 * BATCH_BYTES
        + (UPLOAD_QUEUE + UPLOAD_CONCURRENCY + 10) * BATCH_BYTES
        + (2 * CLIENTS + 10) * BODY_BYTES
    )
    assert sent > 2 * formula, "far more was sent than may be held"
    peak = rss_bytes(server, "VmHWM")
    print(f"base {base >> 20} MiB, peak {peak >> 20} MiB, formula {formula >> 20} MiB")
    assert peak <= 1.25 * formula
    assert set(answers) <= {202, 503}
    server.until(server.all_on_disk, "what was accepted is on disk")
    accounting.check(accepted, [], events_on_disk(server.dlq_dir))
    accounting.check_equation(server.metrics())
