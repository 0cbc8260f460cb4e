"""What runs on another machine for a session: the daemon, its part in one session, and what it may run."""
