"""``estat demo``: the real server on a local directory, with a page to watch it on."""

import argparse
import os
import socket
from typing import Any

from estat.cli import serve
from estat.cli.arguments import add_number
from estat.cli.output import CommandError, say
from estat.config import loading

_HOST = "127.0.0.1"
_DIRECTORY = "estat-demo"  # what was stored is there again at the next start


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
        "--dir", metavar="DIR", default=_DIRECTORY, help="keep objects and DLQ in DIR [%(default)s]"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Replace this process by gunicorn with the demo's application."""
    try:
        socket.create_server((_HOST, args.port)).close()
    except OSError as exc:
        raise CommandError(f"can't listen on port {args.port}: {exc.strerror}") from exc
    directory = os.path.abspath(args.dir)
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
    say("", f"  Open       http://{address}/demo", f"  Objects in {directory}")
    say("  Stop with  Ctrl-C", "")
    return serve.become_gunicorn("estat.demo.wsgi:app")
