"""``python -m estat``: the same as the ``estat`` command."""

import os
import signal
import sys

if os.getpid() == 1:
    # The first process of a container does not get a SIGTERM that it has no handler for. So one
    # that comes this early waits until gunicorn has its handlers (hooks.when_ready).
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

from estat.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
