"""Decisions without I/O: who is there, who has answered, who gets a message. Time is an argument."""
