"""What an event is: the stored line, its names, and how a body is read.

Here are rules without I/O: the line that is stored, ids and object keys, the parser of
bodies and forms, the schema, gzip, and the finished batch as a value. It may use nothing
but ``errors``. What waits, writes, or knows a request or a setting does not belong here.
"""
