"""The life of a ledger behind its recorder: backups, archives, deletions, retention, all of them on closed volumes."""
