"""What everything that Ether raises on purpose begins with."""


class EtherError(Exception):
    """Base of everything Ether raises on purpose."""
