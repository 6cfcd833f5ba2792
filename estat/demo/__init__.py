"""The demo: the server as it is, and a page on which a person watches events arrive.

It puts a page and its data beside the intake, in an application of its own. The server
knows nothing of it.
"""
