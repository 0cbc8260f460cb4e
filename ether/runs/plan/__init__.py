"""What is checked before a run begins: plans, calls, time and disk."""
