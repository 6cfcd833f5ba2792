"""Estat Ingest: takes events over HTTP and puts every accepted one into S3, exactly once."""

from importlib.util import find_spec

__version__ = "1.0.0rc1"


def build() -> str:
    """Return which build this is: ``compiled`` or ``interpreted``; see setup.py."""
    module = find_spec("estat.events.batch")
    is_source = module is None or str(module.origin).endswith(".py")
    return "interpreted" if is_source else "compiled"
