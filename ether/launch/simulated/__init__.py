"""A simulated lab: what `ether run --sim` puts in place of devices."""
