"""The ``estat`` command: one module for each subcommand, thin.

A module registers its arguments (``add_parser``) and prints what the other packages find.
It may use every package; nothing may use it.
"""
