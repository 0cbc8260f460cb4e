"""What outlives a message: the outbox of a process, the ledger of a session, and what explains both.

Nothing of threads' lives is in here: what these modules are given and return are values, files and errors.
"""
