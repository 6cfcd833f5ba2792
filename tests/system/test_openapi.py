"""Every answer that a generator of requests can get conforms to /openapi.json."""

import subprocess
from pathlib import Path

from tests.conftest import Serve
from tests.support.server import BIN, Server

EXAMPLES = 100

#: What a schema can't say: that a text is JSON, and that 413 is a refusal.
NOT_FOR_US = "positive_data_acceptance,negative_data_rejection"


def test_generated_requests_are_answered_as_described(tmp_path: Path) -> None:
    settings = {"RAW_BUCKET": f"file:{tmp_path / 'store'}", "WRITE_KEYS": "web:s3cret"}
    settings["RECEIPTS"] = "true"
    with Server(tmp_path, settings) as server:
        run = subprocess.run(
            [
                str(BIN / "schemathesis"),
                "run",
                f"{server.url}/openapi.json",
                "--checks",
                "all",
                "--exclude-checks",
                NOT_FOR_US,
                "--continue-on-failure",
                "--max-examples",
                str(EXAMPLES),
                "--suppress-health-check",
                "all",
                "--request-timeout",
                "20",
                "--no-color",
                "--header",
                "Authorization: Bearer s3cret",
            ],
            cwd=tmp_path,
            env=server.environ,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert run.returncode == 0, run.stdout + run.stderr
        requests = server.metrics()["http_requests_total"]
        assert requests >= EXAMPLES / 2, "events were sent"
        assert server.metrics()["events_accepted_total"] > 0
        assert "Traceback" not in server.log_text()


def test_a_query_that_is_too_long_is_refused_as_described(serve: Serve) -> None:
    server = serve()
    answer = server.get("/collect?" + "a" * 20_000)
    described = server.get("/openapi.json").json["paths"]["/collect"]["get"]["responses"]
    assert str(answer.status) in described
    assert answer.headers["Content-Type"] in described["414"]["content"]
