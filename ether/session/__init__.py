"""Sessions: members and their states, leadership, holders of names; how a session is found."""
