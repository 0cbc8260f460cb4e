"""How much anybody may have of anything: one number each, from the settings file (docs/brokers.md)."""

from typing import NamedTuple

LONGEST_KEEP_ALIVE_S = 65_535
"""What its field can say. As a quota it means that there is none: also that a client may ask for no keep-alive."""


class Quotas(NamedTuple):
    """Beyond each number somebody is refused or ended with a reason; nothing grows for ever."""

    clients: int = 20_000  # connections at a time, admitted or not
    sessions: int = 20_000  # client ids, those that are away included
    filters: int = 10_000  # of one client
    waiting_bytes: int = 268_435_456  # for one client, connected or not
    retained_bytes: int = 268_435_456  # of all topics together
    aliases: int = 32  # of one client; each keeps a topic of up to 65,535 bytes
    unreleased: int = 1_000  # QoS 2 messages of one client without their PUBREL: our receive maximum
    connect_within_s: int = 10  # from accepting a connection to its CONNECT
    keep_alive_s: int = LONGEST_KEEP_ALIVE_S  # a client of MQTT 5 that asks for more, or for none, is given this


LOWEST = Quotas(1, 1, 1, 1_024, 1_024, 0, 1, 1, 1)
HIGHEST = Quotas(1_000_000, 1_000_000, 1_000_000, 1 << 40, 1 << 40, 65_535, 65_535, 600, LONGEST_KEEP_ALIVE_S)
