"""The output, read by somebody else's reader."""

import time
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.support.client import Client

dataset = pytest.importorskip("pyarrow.dataset")


def test_pyarrow_reads_the_objects_as_a_hive_partitioned_dataset(
    serve: Serve, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    server = serve(workers=2, RAW_BUCKET=f"file:{store}", BATCH_SIZE="50")
    client = Client()
    client.must_send(server, count=10, requests=30)
    client.must_send(server, count=7, requests=3)
    assert server.stop() == 0

    table = dataset.dataset(
        store / "raw", format="json",
        partitioning=dataset.partitioning(flavor="hive"),
    ).to_table()  # fmt: skip

    assert table.num_rows == len(client.accepted) == 321
    assert sorted(body["n"] for body in table["body"].to_pylist()) == sorted(client.accepted)
    for second, day, hour in zip(
        table["ts"].to_pylist(), table["dt"].to_pylist(), table["hr"].to_pylist(), strict=True
    ):
        at = time.gmtime(second)
        assert (str(day), int(hour)) == (
            f"{at.tm_year}-{at.tm_mon:02}-{at.tm_mday:02}", at.tm_hour
        )  # fmt: skip
