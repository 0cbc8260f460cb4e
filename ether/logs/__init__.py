"""Log records: shipped from every process to the session, and written to the session's log file."""
