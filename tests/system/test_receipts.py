"""With RECEIPTS an answer names the ids of its events, which hold whatever comes after."""

import json
import subprocess
from typing import Any

import pytest

from tests.conftest import Serve, both_workers
from tests.support.client import Client
from tests.support.s3 import Bucket
from tests.support.server import BIN, Server

INVALID = "an event must be a JSON object"


def looked_up(server: Server, *receipts: str) -> tuple[int, list[str]]:
    """Return the exit code, and the state of each receipt."""
    options = [f"--receipt={receipt}" for receipt in receipts]
    command = [str(BIN / "estat"), "audit", "--json", *options]
    run = subprocess.run(command, env=server.environ, cwd="/", capture_output=True, check=False)
    report = json.loads(run.stdout)
    states = [" ".join({found["state"] for found in one["found"]}) for one in report["receipts"]]
    return run.returncode, states


@both_workers
@pytest.mark.quick
def test_an_answer_names_the_first_and_the_last_id_of_what_was_accepted(
    serve: Serve, bucket: Bucket
) -> None:
    server = serve(RECEIPTS="true")
    answers: list[Any] = [
        server.post('{"n":"a"}').json,
        server.post('[{"n":"b"},1,{"n":"c"},{"n":"d"}]').json,
        server.request("POST", "/collect.gif?n=e").json,
    ]
    first = answers[0]["ids"][0]
    stream = first.rpartition("-")[0]
    error = {"index": 1, "reason": INVALID}
    assert answers == [
        {"accepted": 1, "ids": [f"{stream}-1"] * 2},
        {"accepted": 3, "rejected": 1, "errors": [error], "ids": [f"{stream}-2", f"{stream}-4"]},
        {"accepted": 1, "ids": [f"{stream}-5"] * 2},
    ]
    for path in ("/collect?n=f", "/collect.gif?n=g"):
        assert b"ids" not in server.get(path).body
    assert "ids" not in server.post("[1]").json
    server.until(server.settled, "all is stored")
    stored = {line["body"]["n"]: line["id"] for line in bucket.stored()}
    assert stored == {name: f"{stream}-{n}" for n, name in enumerate("abcdefg", 1)}


@pytest.mark.quick
def test_an_event_is_on_disk_while_its_server_is_dead_and_stored_after(
    serve: Serve, bucket: Bucket
) -> None:
    server = serve(RECEIPTS="true", FLUSH_INTERVAL="10m")
    client = Client()
    client.must_send(server, 3, requests=2)
    server.kill()
    receipts = [f"{first}..{last}" for first, last, _ in client.receipts]
    assert looked_up(server, *receipts) == (3, ["on disk"] * 2)
    second = serve(RECEIPTS="true")
    second.must_store(client.accepted, bucket)
    unknown = client.receipts[0].first.rpartition("-")[0] + "-7"
    assert looked_up(second, *receipts) == (0, ["stored"] * 2)
    assert looked_up(second, *receipts, unknown) == (1, ["stored"] * 2 + ["unknown"])
