"""What ids prove, and where the evidence comes from.

``auditor`` has the order in which all is read, ``verdict`` judges; the other modules read
objects, records, DLQ directories and journals. Nothing is changed or locked, so an audit may
run beside a server. The command line is ``cli``'s business.
"""
