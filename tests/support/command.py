"""Commands that are run to their end."""

import os
import subprocess
from collections.abc import Sequence
from typing import Any

_SECONDS = 120


def run(
    argv: Sequence[str | os.PathLike[str]], timeout: float = _SECONDS, **how: Any
) -> "subprocess.CompletedProcess[str]":
    """Run a command, and return what it wrote and its exit code, whatever that is."""
    return subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False, **how)
