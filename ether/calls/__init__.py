"""Ask and answer: calls of other instances, calls that survive, leases."""
