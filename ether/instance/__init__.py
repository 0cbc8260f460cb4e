"""One user object of a session: its methods, its schedule, its devices, its safe state."""
