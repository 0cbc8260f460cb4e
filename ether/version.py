"""The version of Ether, and that of what its members say to each other, in one place."""

VERSION = "0.1.0"

WIRE = 2
"""The version of what members say to each other, which each of them announces. In version 1 the topics of answers,
batches, receipts and commands do not name their senders. The trees of both versions are one, so that members of both
find each other; a member of version 1 is served as it knows it (docs/wire-format.md)."""
