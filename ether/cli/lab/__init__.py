"""Commands for a running session."""
