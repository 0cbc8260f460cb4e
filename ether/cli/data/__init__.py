"""Commands for what was recorded."""
