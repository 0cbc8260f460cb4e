"""Ports, private folders and connections of clients."""
