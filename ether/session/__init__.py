"""Who is in a session, who leads it, and who has which name."""
