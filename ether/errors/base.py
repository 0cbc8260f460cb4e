"""The base class of the error tree, in a module of its own, so that each part of the tree can import it."""


class EtherError(Exception):
    """The base of every error that Ether raises on purpose."""
