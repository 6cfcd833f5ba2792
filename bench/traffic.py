"""Turns the hits of an access log into requests as a load balancer hands them on.

An event is the hit with all its fields. Every request carries its own hit's user
agent and client address in the headers, so that they repeat as in real traffic.
"""

import gzip
import json
from typing import NamedTuple

from bench.contenders import Contender
from bench.errors import BenchError
from estat.cli import combined_log
from tests.support.hits import access_log

_HEAD = (
    b"POST %b HTTP/1.1\r\n"
    b"X-Forwarded-For: %b\r\n"
    b"X-Forwarded-Proto: https\r\n"
    b"X-Forwarded-Port: 443\r\n"
    b"Host: collect.example.com\r\n"
    b"X-Amzn-Trace-Id: Root=1-67891233-%024x\r\n"
    b"Content-Length: %d\r\n"
    b"User-Agent: %b\r\n"
    b"Accept: */*\r\n"
    b"Content-Type: %b\r\n"
    b"\r\n"
)


class Hit(NamedTuple):
    """One event, and who sent it."""

    event: bytes
    address: bytes
    agent: bytes


def read_hits(directory: str) -> list[Hit]:
    """Read the access log that the tests use; ``directory`` is where one may be made.

    Raises BenchError.
    """
    hits = []
    try:
        with gzip.open(access_log(directory)) as lines:
            for line in lines:
                try:
                    hits.append(_hit(combined_log.parse(line.rstrip(b"\r\n"))))
                except ValueError:
                    continue  # a real log has a few lines that are no hits
    except OSError as exc:
        raise BenchError(f"the access log can't be read: {exc}") from exc
    if not hits:
        raise BenchError("the access log holds no hit in the combined format")
    return hits


def requests(hits: list[Hit], contender: Contender) -> list[bytes]:
    """Return the requests of one contender, each with the same number of events."""
    size = contender.events_per_request
    # what is left over at the end would be a request with fewer events
    groups = [hits[end - size : end] for end in range(size, len(hits) + 1, size)]
    if not groups:
        raise BenchError(f"{contender.name}: the access log has fewer than {size} hits")
    return [_request(contender, group, number) for number, group in enumerate(groups, start=1)]


def write(path: str, contents: list[bytes]) -> None:
    """Write requests in the format that post.lua reads."""
    with open(path, "wb") as file:
        file.writelines(b"%d\n%b" % (len(content), content) for content in contents)


def _hit(parsed: combined_log.Hit) -> Hit:
    event = json.loads(parsed.event)
    event["address"] = parsed.address.decode("utf-8", "replace")
    event["agent"] = parsed.agent.decode("utf-8", "replace")
    encoded = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
    return Hit(encoded, parsed.address, parsed.agent)


def _request(contender: Contender, group: list[Hit], number: int) -> bytes:
    body = b"\n".join(hit.event for hit in group)
    head = _HEAD % (
        contender.path.encode(), group[0].address, number, len(body), group[0].agent,
        contender.content_type.encode(),
    )  # fmt: skip
    return head + body
