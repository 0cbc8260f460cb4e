"""Log records on their way to the session, and the file that keeps them."""
