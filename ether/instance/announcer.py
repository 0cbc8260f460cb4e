"""How an instance appears to everybody else: its state, and all that is announced beside.

Promise: what is announced last is what holds last, whichever thread notices a change: the dispatch thread, the guard's,
the adapter's. The trap: before the instance is ready nothing may be announced in its name but its start.
"""

from __future__ import annotations

import inspect
import os
import socket
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ether.connection.link import Link
from ether.errors import EtherError
from ether.instance.devices import Devices
from ether.protocol.presence import Announcement, State
from ether.spec.descriptions import describe_spec
from ether.spec.marks import MarkKind
from ether.spec.methods import MethodSpec

if TYPE_CHECKING:
    from ether.instance.hosted import HostedInstance

TAKES_ARGUMENTS = (MarkKind.SUB, MarkKind.GET, MarkKind.SAVE, MarkKind.SYNC)
_WITH_TOPICS = ((MarkKind.SUB, "subscribes"), (MarkKind.PUB, "publishes"), (MarkKind.SYNC, "syncs"))


def described(cls: type, method: MethodSpec) -> dict[str, object]:
    """One method as plain data; `every` are the times at which it is called by itself."""
    said: dict[str, object] = {"kinds": list(dict.fromkeys(mark.kind.value for mark in method.marks))}
    if any(mark.kind in TAKES_ARGUMENTS for mark in method.marks):
        said |= describe_spec(cls, method).to_value()
    if times := method.times:
        said["every"] = list(times)
    for kind, key in _WITH_TOPICS:
        if topics := method.topics(kind):
            said[key] = list(topics)
    return said


class Announcer:
    """Of one instance."""

    def __init__(self, instance: HostedInstance, link: Link, holding: Mapping[str, object]) -> None:
        """`holding` is announced beside everything else: its epoch, who supervises it."""
        self._instance, self._link, self._holding = instance, link, holding
        self.since = time.time()
        self._turn = threading.Lock()
        self._shown = False
        self.devices = Devices(instance.object, self.changed)

    def about(self) -> dict[str, object]:
        """What is announced about this instance beside its name and state."""
        instance = self._instance
        return {
            **self._holding,
            **instance.guard.about(),
            **self.devices.about(),
            **instance.lease_server.about(),
            "class": instance.spec.name,
            "class_path": instance.spec.class_path,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": self.since,
            "node": self._link.node,
            "doc": inspect.cleandoc(type(instance.object).__doc__ or ""),
            "methods": {method.name: described(type(instance.object), method) for method in instance.spec.methods},
        }

    def announcement(self) -> Announcement:
        """As it is announced once it is ready: so, or offline, which its error explains."""
        about = self.about()
        match about.get("offline"):
            case {"why": str(why)}:
                return Announcement(self._instance.name, State.OFFLINE, self._instance.incarnation, why, about)
        return Announcement(self._instance.name, State.READY, self._instance.incarnation, about=about)

    def show(self) -> None:
        """It is ready: announce it. Raises what announcing raises."""
        with self._turn:
            self._shown = True
            self._announce()

    def changed(self) -> None:
        """Something of what is announced is different: announce it again, where it was announced before."""
        with self._turn:
            try:
                if self._shown:
                    self._announce()
            except EtherError:
                pass  # without a broker: it is repeated when there is one

    def hold(self, facts: Mapping[str, object]) -> None:
        """Something about who keeps it is different: announced from now on, and at once."""
        self._holding = {**self._holding, **facts}
        self.changed()

    def hide(self) -> None:
        """It is about to end: nothing that its devices do from now on is news."""
        self.devices.stop()
        with self._turn:
            self._shown = False

    def _announce(self) -> None:
        instance = self._instance
        self._link.announce(instance.topics.state(instance.name), self.announcement().to_value())
