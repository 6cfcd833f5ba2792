"""Start the server with a page on which to watch events arrive.

It listens on 127.0.0.1, with a directory in the place of S3; the page is at
/demo. The settings of the environment and of .env are ignored.

Example: estat demo --port 9000
"""

import argparse
import os

from estat.cli import serve
from estat.cli.arguments import add_number
from estat.cli.output import say
from estat.config import loading

_HOST = "127.0.0.1"
_DIRECTORY = "estat-demo"  # what was stored is there again at the next start


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Register the options."""
    add_number(parser, "--port", 8080, "listen on port N", high=65535)
    parser.add_argument(
        "--dir", metavar="DIR", default=_DIRECTORY, help="keep objects and DLQ in DIR [%(default)s]"
    )


def run(args: argparse.Namespace) -> int:
    """Replace this process by gunicorn with the demo's application."""
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
        }
    )
    say("", f"  Open       http://{address}/demo", f"  Objects in {directory}")
    say("  Stop with  Ctrl-C", "")
    return serve.become_gunicorn("estat.demo.wsgi:app")
