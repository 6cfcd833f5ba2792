"""Process 1 of a PID namespace: starts a command, and ends when every process there has ended.

Its exit status is the command's. Workers whose arbiter was killed become its children, and end
in their own time.
"""

import os
import sys

_command = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_status = 1
while True:
    try:
        _pid, _ended = os.wait()
    except ChildProcessError:
        break
    if _pid == _command:
        _status = os.waitstatus_to_exitcode(_ended)
sys.exit(_status if _status >= 0 else 128 - _status)
