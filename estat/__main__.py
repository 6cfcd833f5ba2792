"""``python -m estat``: the same as the ``estat`` command."""

import sys

from estat.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
