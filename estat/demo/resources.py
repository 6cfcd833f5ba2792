"""The demo's page and what it asks for. Served by ``estat demo`` alone, never in production."""

import json
from importlib import resources
from typing import Any

import falcon

from estat.accounting import ledger
from estat.accounting.shared_memory import SharedPage
from estat.config.settings import Settings
from estat.events.gzip import gunzip
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


def create_demo(settings: Settings, page: SharedPage) -> falcon.App[Any, Any]:
    """Return the WSGI application of everything under /demo."""
    app = falcon.App()
    for path, (name, content_type) in _FILES.items():
        app.add_route(path, _File(name, content_type))
    app.add_route("/demo/state", _State(settings, page))
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
    """``GET /demo/state``: the accounting, and the newest objects with their events."""

    def __init__(self, settings: Settings, page: SharedPage) -> None:
        self._page = page
        self._directory = settings.raw_bucket.removeprefix("file:")
        self._prefix = f"{settings.raw_prefix}/"
        self._store = DirectoryStore(self._directory)
        self._objects: dict[str, dict[str, Any]] = {}

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        keys = list(self._store.list(self._prefix))
        objects = self._newest(keys[-_OBJECTS:])
        terms = ledger.terms(self._page)
        resp.set_headers(_HEADERS)
        resp.media = {
            "accepted": terms.accepted + terms.adopted,
            "pending": terms.pending,
            "stored": terms.stored,
            "directory": self._directory,
            "count": len(keys),
            "objects": objects,
        }

    def _newest(self, keys: list[str]) -> list[dict[str, Any]]:
        """Return objects, the newest first; each is read once."""
        self._objects = {key: self._objects.get(key) or self._read(key) for key in keys}
        return list(reversed(self._objects.values()))

    def _read(self, key: str) -> dict[str, Any]:
        data = self._store.get(key)
        lines = gunzip(data).splitlines()
        events = [json.loads(line) for line in lines[-_EVENTS:]]
        return {"key": key, "bytes": len(data), "count": len(lines), "events": events}
