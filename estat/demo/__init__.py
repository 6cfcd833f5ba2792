"""The demo: the server as it is, and a page on which a person watches events arrive.

It puts a page and its data beside the intake, in an application of its own. The server
knows nothing of it.
"""

#: The name of a file that marks its directory as one to remove when the demo ends.
TEMPORARY = ".temporary"
