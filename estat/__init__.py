"""Estat Ingest: takes events over HTTP and puts every accepted one into S3, exactly once."""

__version__ = "0.1.0"
