"""Whether a broker lets this program read what a session begins with.

A broker with rights (an ACL) that refuses a message says so over MQTT 5. One that takes it and delivers it to nobody
says nothing, and Mosquitto grants every subscription. A program that went on would see an empty session, or lead a
second one beside the first. So what it announces when it begins has to come back. Promise: the error names the topic.

The trap: a broker that is busy, or was restarted at this moment, is no broker that refuses. So only a connection that
stood all the time tells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ether.connection.deadline import Deadline
from ether.errors import NotDelivered
from ether.session.session import Session

COME_BACK_S = 5.0


def check_that_it_comes_back(session: Session, announced: Mapping[str, Callable[[], bool]]) -> None:
    """Return when all that this program has announced just now was delivered to it, or nothing can be said. `announced`
    maps each topic to whether that has happened. Raises `NotDelivered`."""
    deadline, link, changes = Deadline(COME_BACK_S), session.link, list[bool]()
    note = changes.append
    link.on_connection.append(note)
    try:
        for topic, has_come_back in announced.items():
            in_time = session.await_change(has_come_back, deadline.left())
            if not in_time and link.transport.connected and not changes:
                why = f"it took what this program published there, which did not come back within {COME_BACK_S:g} s"
                raise NotDelivered(topic, why)
    finally:
        link.on_connection.remove(note)
