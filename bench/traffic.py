"""Turns the hits of an access log into requests as a load balancer hands them on.

An event is the hit with all its fields. Every request carries its own hit's user
agent and client address in the headers, so that they repeat as in real traffic.

Requests are handed on in a file: each behind a line with its length in bytes.
``post.lua`` reads it too.
"""

import functools
import gzip
import json
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

from bench import BenchError
from bench.contenders import Contender
from estat.cli import combined_log
from tests.support.hits import access_log

_HEAD = (
    b"POST /collect HTTP/1.1\r\n"
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


@functools.cache
def hits() -> list[Hit]:
    """Read the access log that the tests use, once. Raises BenchError."""
    found = []
    try:
        with tempfile.TemporaryDirectory() as directory, gzip.open(access_log(directory)) as lines:
            for line in lines:
                try:
                    found.append(_hit(combined_log.hit_of(line.rstrip(b"\r\n"))))
                except ValueError:
                    continue  # a real log has a few lines that are no hits
    except OSError as exc:
        raise BenchError(f"the access log can't be read: {exc}") from exc
    if not found:
        raise BenchError("the access log holds no hit in the combined format")
    return found


def requests(contender: Contender) -> list[bytes]:
    """Return the requests of one contender, each with the same number of events."""
    size = contender.events_per_request
    # what is left over at the end would be a request with fewer events
    groups = [hits()[end - size : end] for end in range(size, len(hits()) + 1, size)]
    if not groups:
        raise BenchError(f"{contender.name}: the access log has fewer than {size} hits")
    return [_request(contender, group, number) for number, group in enumerate(groups, start=1)]


def write(path: str, contents: list[bytes]) -> None:
    """Write requests to a file."""
    with open(path, "wb") as file:
        file.writelines(b"%d\n%b" % (len(content), content) for content in contents)


def read(path: str) -> Iterator[bytes]:
    """Yield the requests of a file."""
    with open(path, "rb") as file:
        while length := file.readline():
            yield file.read(int(length))


def _hit(parsed: combined_log.Hit) -> Hit:
    event = json.loads(parsed.event)
    event["address"] = parsed.address.decode("utf-8", "replace")
    event["agent"] = parsed.agent.decode("utf-8", "replace")
    encoded = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
    return Hit(encoded, parsed.address, parsed.agent)


def _request(contender: Contender, group: list[Hit], number: int) -> bytes:
    body = b"\n".join(hit.event for hit in group)
    _, address, agent = group[0]
    content_type = contender.content_type.encode()
    return _HEAD % (address, number, len(body), agent, content_type) + body
