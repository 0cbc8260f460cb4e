"""What outlives a message: the ledger of a session, outboxes, journals of calls."""
