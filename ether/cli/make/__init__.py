"""Commands that make or check files."""
