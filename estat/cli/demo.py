"""``estat demo``: the real server on a local directory, with a page to watch it on."""

import argparse
import os
import socket
import tempfile
from typing import Any

import estat
from estat.cli import serve
from estat.cli.arguments import add_number
from estat.cli.output import CommandError, say
from estat.config import loading
from estat.demo import TEMPORARY

_HOST = "127.0.0.1"
_CONFIGURATION = os.path.join(os.path.dirname(estat.__file__), "demo", "gunicorn_conf.py")


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "demo",
        help="start the server with a page on which to watch events arrive",
        description="Starts the server on 127.0.0.1 with a directory instead of S3, and a page at "
        "/demo that sends events and shows them arrive. The settings of the environment and of "
        ".env are ignored.",
    )
    add_number(parser, "--port", 8080, "listen on port N", high=65535)
    parser.add_argument(
        "--dir", metavar="DIR", help="keep objects and DLQ in DIR [a temporary directory]"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Replace this process by gunicorn with the demo's application."""
    try:
        socket.create_server((_HOST, args.port)).close()
    except OSError as exc:
        raise CommandError(f"can't listen on port {args.port}: {exc.strerror}") from exc
    directory = os.path.abspath(args.dir) if args.dir else _temporary()
    address = f"{_HOST}:{args.port}"
    loading.replace_environment(
        {
            "HTTP_ADDR": address,
            "RAW_BUCKET": f"file:{directory}",
            "DLQ_DIR": os.path.join(directory, "dlq"),
            "FLUSH_INTERVAL": "3s",
            "TRUSTED_PROXIES": "0",
            "WEB_CONCURRENCY": "1",  # gunicorn reads it too, and takes no empty one
            "INSTANCE_ID": "demo",
            "LOG_LEVEL": "warning",
            "LOG_FORMAT": "console",
        }
    )
    kept = "" if args.dir else " (removed at the end)"
    say("", f"  Open       http://{address}/demo", f"  Objects in {directory}{kept}")
    say("  Stop with  Ctrl-C", "")
    return serve.become_gunicorn(_CONFIGURATION, "estat.demo.wsgi:app")


def _temporary() -> str:
    """Make a directory with the mark by which the server removes it when it stops."""
    directory = tempfile.mkdtemp(prefix="estat-demo-")
    with open(os.path.join(directory, TEMPORARY), "x", encoding="utf-8"):
        return directory
