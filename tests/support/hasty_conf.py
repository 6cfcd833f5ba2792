"""gunicorn's configuration file for a host whose minutes are short: the production one, and

LEASE       the seconds for which a server goes on without a proof that its directory is its own;
            others wait three times as long before they take it for dead
BOOT_FILE   a file that names the boot of the host, in place of the kernel's
"""

import os

from gevent import monkey

monkey.patch_all()  # before anything that imports ssl, sockets or threads

# isort: split
from estat.disk import server_directory  # noqa: E402

if "LEASE" in os.environ:  # before any other module takes it from there
    server_directory.LEASE_SECONDS = float(os.environ["LEASE"])
    server_directory.SILENCE_SECONDS = 3 * server_directory.LEASE_SECONDS
if "BOOT_FILE" in os.environ:
    server_directory._BOOT_ID = os.environ["BOOT_FILE"]

# isort: split
from estat.gunicorn_conf import *  # noqa: E402, F403
