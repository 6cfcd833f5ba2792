"""gunicorn's configuration file for a host with low limits: the production one, and

LIMITS   limits to set before it, as in ``NOFILE=64 FSIZE=1048576``
"""

import os
import resource

for _name, _, _value in (word.partition("=") for word in os.environ["LIMITS"].split()):
    resource.setrlimit(getattr(resource, f"RLIMIT_{_name}"), (int(_value), int(_value)))

from estat.gunicorn_conf import *  # noqa: E402, F403
