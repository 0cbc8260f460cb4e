"""Commands for this machine and its services."""
