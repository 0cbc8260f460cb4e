"""The operating system: processes, private files, services, health."""
