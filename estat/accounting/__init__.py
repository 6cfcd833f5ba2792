"""What the server counts: shared memory, metrics, and the ledger that must close.

    accepted + adopted = stored + pending + in the DLQ + set aside + handed over + dropped

It may use ``config`` for the names of write keys. It holds numbers alone: whoever moves
events tells the ledger, and decides nothing here.
"""
