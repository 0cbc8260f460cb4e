"""The base class of the error tree, in a module of its own, so that each part of the tree can import it."""

from ether.errors.tracebacks import lines_of


class EtherError(Exception):
    """The base of every error that Ether raises on purpose."""

    after = ""
    """`Class.method` of a method that had run to its end when this was raised about what it has returned."""

    _ends_at_users_line = True

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows of it: the user's lines and the sentence (IPython asks for this method)."""
        return [part.rstrip("\n") for part in lines_of(self)]
