"""Builds the package; with ESTAT_COMPILE=1 mypyc compiles what an event passes through.

The same source runs either way: without a compiler, or where a module is not on this list,
Python reads it as it is.
"""

import os
import sys

from setuptools import setup

#: What an event passes through, from its request to its batch. Classes that inherit from
#: gunicorn's or gevent's stay interpreted, for mypyc can't build on them.
COMPILED = """
    accounting/ledger accounting/metrics accounting/shared_memory
    disk/journal disk/journal_file
    events/batch events/form events/ids events/json_text events/long_text events/media_type
    events/parser events/stored_line
    pipeline/admission pipeline/answers pipeline/breaker pipeline/collector pipeline/open_batch
    pipeline/pipeline pipeline/queue pipeline/stream
    server/connection server/plain_request server/responses
    web/client_address web/collect web/cors web/environ web/request_context web/turns web/write_keys
"""

COMPILER = "mypy[mypyc] >=2.4,<3"

#: Types of other packages make no faster code, and are not there where only the build's are.
OPTIONS = ["--config-file=", "--ignore-missing-imports"]

wanted = os.environ.get("ESTAT_COMPILE") == "1"
extensions = []
# the others need no compiler, and some run before it is there
if wanted and not {"egg_info", "dist_info", "sdist"} & set(sys.argv):
    from mypyc.build import mypycify

    paths = [f"estat/{name}.py" for name in COMPILED.split()]
    extensions = mypycify(OPTIONS + paths, opt_level="3", debug_level="0", group_name="estat")

setup(ext_modules=extensions, setup_requires=[COMPILER] if wanted else [])
