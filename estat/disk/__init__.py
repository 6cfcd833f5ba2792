"""What lies in DLQ_DIR: files and locks, journals, the dead letter queue, whose a directory is.

Each file format is drawn in the module that writes it. Everything blocks and raises
``DiskError``; callers go through ``threads``. When a file is written, sent or deleted is
``pipeline``'s business.
"""
