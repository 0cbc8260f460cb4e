"""One process's connection to its session: the link with its dispatch thread, retransmission, and the worker that runs
jobs."""
