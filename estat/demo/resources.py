"""The demo's page and what it asks for. Served by ``estat demo`` alone, never in production."""

import contextlib
import json
from importlib import resources
from typing import Any

import falcon

from estat.accounting import ledger
from estat.errors import StoreError
from estat.events.gzip import gunzip
from estat.pipeline.pipeline import Pipeline
from estat.stores.directory import DirectoryStore

#: The newest objects, with their events, are all that the page shows.
_OBJECTS = 8
_EVENTS = 300

_FILES = {
    "/demo": ("index.html", "text/html; charset=utf-8"),
    "/demo/away": ("away.html", "text/html; charset=utf-8"),
    "/demo/demo.css": ("demo.css", "text/css; charset=utf-8"),
    "/demo/demo.js": ("demo.js", "text/javascript; charset=utf-8"),
}

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}


def create_demo(pipeline: Pipeline) -> falcon.App[Any, Any]:
    """Return the WSGI application of everything under /demo."""
    app = falcon.App()
    for path, (name, content_type) in _FILES.items():
        app.add_route(path, _File(name, content_type))
    app.add_route("/demo/state", _State(pipeline))
    return app


class _File:
    def __init__(self, name: str, content_type: str) -> None:
        self._data = resources.files("estat.demo").joinpath("static", name).read_bytes()
        self._content_type = content_type

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        resp.set_headers(_HEADERS)
        resp.content_type = self._content_type
        resp.data = self._data


class _State:
    """``GET /demo/state``: the accounting, and the newest objects with their events.

    Each is read once. While the store is down these are the ones that were there before.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        settings = pipeline.settings
        self._pipeline = pipeline
        self._directory = settings.raw_bucket.removeprefix("file:")
        self._prefix = f"{settings.raw_prefix}/"
        self._store = DirectoryStore(self._directory)
        self._count = 0
        self._objects: dict[str, dict[str, Any]] = {}

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        with contextlib.suppress(StoreError):
            keys = list(self._store.list(self._prefix))
            self._count = len(keys)
            self._objects = {
                key: self._objects.get(key) or self._read(key) for key in keys[-_OBJECTS:]
            }
        terms = ledger.terms(self._pipeline.page)
        resp.set_headers(_HEADERS)
        resp.media = {
            "accepted": terms.accepted + terms.adopted,
            "pending": terms.pending,
            "in_dlq": terms.in_dlq,
            "stored": terms.stored,
            "problems": self._pipeline.problems(),
            "directory": self._directory,
            "count": self._count,
            "objects": list(reversed(self._objects.values())),
        }

    def _read(self, key: str) -> dict[str, Any]:
        data = self._store.get(key)
        try:
            lines = gunzip(data).splitlines()
            events = [json.loads(line) for line in lines[-_EVENTS:]]
        except ValueError:  # somebody else's file
            lines, events = [], []
        return {"key": key, "bytes": len(data), "count": len(lines), "events": events}
