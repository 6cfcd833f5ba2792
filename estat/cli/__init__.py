"""The ``estat`` command."""
