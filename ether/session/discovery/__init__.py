"""How a session is found: on this machine, on a broker, on the local network."""
