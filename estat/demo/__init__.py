"""The demo: the server as it is, and a page on which a person watches events arrive."""

#: A file that says that the directory which it is in goes at the end.
TEMPORARY = ".temporary"
