"""The settings: declared once, parsed, loaded, checked together, and their reference page.

It may use ``events``, for a schema is read at start. This is the only package that reads the
environment. What a setting does belongs to the part that obeys it.
"""
