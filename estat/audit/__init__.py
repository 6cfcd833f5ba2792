"""What ids prove, and where the evidence comes from.

``verdict`` judges; the other modules read objects, records, DLQ directories and journals.
Nothing is changed or locked, so an audit may run beside a server. How it is shown is
``cli``'s business.
"""
