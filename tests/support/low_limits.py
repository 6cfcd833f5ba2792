"""gunicorn's configuration file for a host with low limits: the production one, and

LIMITS   limits to set before it, as in ``NOFILE=64 FSIZE=1048576``
"""

import os
import resource
import runpy
from pathlib import Path

for _name, _, _value in (word.partition("=") for word in os.environ["LIMITS"].split()):
    resource.setrlimit(getattr(resource, f"RLIMIT_{_name}"), (int(_value), int(_value)))

_production = runpy.run_path(str(Path(__file__).parents[2] / "conf" / "gunicorn.conf.py"))
globals().update({name: value for name, value in _production.items() if name[0] != "_"})
