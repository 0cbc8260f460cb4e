"""Commands about who belongs to the lab."""
