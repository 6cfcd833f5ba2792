"""gunicorn's settings for the bare resource: stock, but for what would make the two unlike."""

from gevent import monkey

monkey.patch_all()  # before anything that imports ssl, sockets or threads

accesslog = None
loglevel = "warning"
keepalive = 75  # as estat's: no connection ends during a round
http_parser = "python"  # as estat's; "auto" takes whatever is installed
control_socket_disable = True  # a socket in the user's home, of no use here
