"""The invented access log has the shape of a real one, and nothing of its content."""

import gzip
import ipaddress
import os
import subprocess
import sys
from collections import Counter
from itertools import islice, pairwise
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from estat.cli import combined_log
from tests.support import hits
from tests.support.server import ROOT

REAL_LOG = ROOT.parent / "shared" / "data" / "access.log.gz"

DOCUMENTATION = [
    ipaddress.ip_network(network)
    for network in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
]

LINES = [line.encode("ascii") for line in hits.combined_log_lines(10_000)]
HITS = [combined_log.parse(line) for line in LINES]


def _share(part: int) -> float:
    return part / len(LINES)


def _ratio(lines: list[bytes]) -> float:
    text = b"\n".join(lines)
    return len(text) / len(gzip.compress(text, 6))


def test_one_seed_gives_the_same_lines_in_every_process() -> None:
    # hash randomization must not leak in
    script = "from tests.support import hits; print(*hits.combined_log_lines(300, 7), sep='\\n')"
    printed = {
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
            timeout=30,
        ).stdout
        for seed in ("1", "2")
    }
    assert printed == {"\n".join(hits.combined_log_lines(300, 7)) + "\n"}


def test_another_seed_gives_other_lines() -> None:
    assert list(hits.combined_log_lines(100, 1)) != list(hits.combined_log_lines(100, 2))


def test_a_shorter_log_is_the_beginning_of_a_longer_one() -> None:
    assert list(hits.combined_log_lines(50)) == list(islice(hits.combined_log_lines(500), 50))


def test_every_address_is_reserved_for_documentation() -> None:
    for line in LINES:
        address = ipaddress.ip_address(line.split(b" ")[0].decode())
        assert any(address in network for network in DOCUMENTATION), address


def test_every_referrer_is_on_a_reserved_domain() -> None:
    for line in LINES:
        referrer = line.split(b'"')[3].decode()
        if referrer != "-":
            host = urlsplit(referrer).hostname or ""
            assert host.endswith((".example", "example.com", "example.net", "example.org")), host


def test_clients_come_back_and_bring_several_hits_in_a_row() -> None:
    clients = [(hit.address, hit.agent) for hit in HITS]
    assert 1000 < len({address for address, _ in clients}) < 2500
    assert 0.4 < _share(sum(one == other for one, other in pairwise(clients))) < 0.75


def test_paths_have_a_heavy_tail() -> None:
    requests = Counter(line.split(b'"')[1] for line in LINES)
    assert 0.25 < _share(sum(count for _, count in requests.most_common(6))) < 0.4
    assert 0.05 < _share(sum(count == 1 for count in requests.values())) < 0.2


def test_statuses_and_missing_fields_are_about_as_frequent_as_in_real_traffic() -> None:
    statuses = Counter(line.split(b'" ')[1].split(b" ")[0] for line in LINES)
    assert 0.88 < _share(statuses[b"200"]) < 0.94
    assert all(statuses[status] for status in (b"206", b"301", b"304", b"403", b"404"))
    assert 0.25 < _share(sum(b' "-" "' in line for line in LINES)) < 0.5
    assert 0.01 < _share(sum(not hit.agent for hit in HITS)) < 0.03
    assert 0.04 < _share(sum(b'"bytes":null' in hit.event for hit in HITS)) < 0.1


def test_there_are_other_methods_long_agents_and_escaped_bytes() -> None:
    methods = Counter(line.split(b'"')[1].split(b" ")[0] for line in LINES)
    assert set(methods) == {b"GET", b"HEAD", b"POST"}
    assert any(len(hit.agent) > 200 for hit in HITS)
    assert any(b"\\xef" in line for line in LINES)
    assert any(b'\\"' in line for line in LINES)


@pytest.mark.skipif(not REAL_LOG.exists(), reason="the real log is not here")
def test_it_compresses_like_the_real_log() -> None:
    with gzip.open(REAL_LOG) as file:
        real = file.read().splitlines()
    assert _ratio(LINES) == pytest.approx(_ratio(real), rel=0.2)
    assert len(b"".join(LINES)) == pytest.approx(len(b"".join(real)), rel=0.2)
    assert not set(LINES) & set(real)


def test_the_environment_names_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESTAT_TEST_LOG", "/some/access.log")
    assert hits.access_log(tmp_path) == "/some/access.log"
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not REAL_LOG.exists(), reason="the real log is not here")
def test_the_real_log_is_used_if_it_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ESTAT_TEST_LOG", raising=False)
    assert Path(hits.access_log(tmp_path)) == REAL_LOG
    assert not list(tmp_path.iterdir())


def test_without_the_real_log_one_is_generated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ESTAT_TEST_LOG", raising=False)
    # a repository with nothing beside it
    monkeypatch.setattr(hits, "__file__", str(tmp_path / "repo" / "tests" / "support" / "hits.py"))
    path = hits.access_log(tmp_path)
    assert Path(path).parent == tmp_path
    with gzip.open(path) as file:
        assert file.read().splitlines() == LINES
