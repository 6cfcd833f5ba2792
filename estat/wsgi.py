"""What gunicorn serves: ``estat.wsgi:app``. Each worker imports it after its fork.

The post_worker_init hook starts the pipeline (see ``server.hooks``). Until then every
event is refused with 503. A process that gunicorn started without its configuration file,
or that is no worker, ends when it imports this (see ``server.launch``).
"""

from estat.pipeline.pipeline import Pipeline
from estat.server import inherited
from estat.server.unread_body import UnreadBodies
from estat.web.app import Front

_pipeline = Pipeline(
    inherited.settings(), inherited.page(), inherited.slot(), inherited.directory()
)
app = UnreadBodies(_pipeline, Front(_pipeline))
