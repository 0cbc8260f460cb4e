"""What one user may do, as the settings file says it; apart from `rights`, because the settings are read by a process
that supervises mosquitto, too, and need nothing else of it."""

from typing import NamedTuple


class Rule(NamedTuple):
    """Topic filters of one user. `receive` is what it may be delivered."""

    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    receive: tuple[str, ...] = ()
