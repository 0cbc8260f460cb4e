"""New code for instances that run: which files they are made of, and how a successor takes over."""
