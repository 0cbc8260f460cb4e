"""Decisions without I/O on which two processes must agree: presence, heartbeats, requests, order. Time is an
argument."""
