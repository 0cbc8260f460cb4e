"""What an instance announces about itself: its state, and the facts beside it.

Promise: the last announcement shows the last state, whichever thread notices a change: the dispatch thread, the guard's
or the adapter's. The trap: until the instance is ready, nothing but its start may be announced in its name.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping
from typing import Any

from ether.connection.link import Link, await_taken
from ether.errors import EtherError
from ether.instance.devices import Devices
from ether.instance.host import InstanceHost
from ether.instance.method_tables import TAKES_ARGUMENTS
from ether.protocol.alarm_words import alarm_topic
from ether.protocol.presence import Announcement, State
from ether.spec.descriptions import describe_spec
from ether.spec.marks import MarkKind
from ether.spec.methods import MethodSpec
from ether.system.clock import uptime, wall_time
from ether.system.process_owner import process_facts
from ether.transport.base import Receipt

_WITH_TOPICS = ((MarkKind.SUB, "subscribes"), (MarkKind.PUB, "publishes"), (MarkKind.SYNC, "syncs"))


def described(cls: type, method: MethodSpec) -> dict[str, object]:
    """One method as plain data; `every` lists the times at which the instance calls it by itself, and
    `takes_s` how many seconds a call may take. `keep` and `max_age`
    say, by topic, what its subscriptions want of waiting messages, where they do not want all of them."""
    description: dict[str, object] = {"kinds": list(dict.fromkeys(mark.kind.value for mark in method.marks))}
    if any(mark.kind in TAKES_ARGUMENTS for mark in method.marks):
        description |= describe_spec(cls, method).to_value()
    if method.takes_s is not None:
        description["takes_s"] = method.takes_s
    if times := method.times:
        description["every"] = list(times)
    for kind, key in _WITH_TOPICS:
        if topics := method.topics(kind):
            description[key] = list(topics)
    subscribed = method.of_kind(MarkKind.SUB)
    if kept := {mark.topic: mark.keep for mark in subscribed if mark.kept.newest is not None}:
        description["keep"] = kept
    if ages := {mark.topic: mark.max_age for mark in subscribed if mark.max_age}:
        description["max_age"] = ages
    return description


class Announcer:
    """Announces one instance."""

    def __init__(
        self,
        host: InstanceHost,
        link: Link,
        holding: Mapping[str, object],
        changing: Callable[[], Mapping[str, object]],
    ) -> None:
        """`holding` is announced beside everything else: the instance's epoch, its supervisor. `changing` gives the
        facts that change while it runs: its safe state, its lease."""
        self._host, self._link, self._holding, self._changing = host, link, holding, changing
        self.since, self.began = wall_time(), uptime()
        self._turn = threading.Lock()
        self._shown = False
        self.devices = Devices(host.object, self.changed)

    def about(self) -> dict[str, object]:
        """What is announced about the instance beside its name and state."""
        spec, cls = self._host.spec, type(self._host.object)
        return {
            **self._holding,
            **self._changing(),
            **self.devices.about(),
            "class": spec.name,
            "class_path": spec.class_path,
            **process_facts(),
            "since": self.since,
            "held_s": round(uptime() - self.began, 3),
            "node": self._link.node,
            "doc": inspect.cleandoc(cls.__doc__ or ""),
            "methods": {method.name: self._described(cls, method) for method in spec.methods},
        }

    def _described(self, cls: type, method: MethodSpec) -> dict[str, Any]:
        description: dict[str, Any] = described(cls, method)
        if any(alarm.name == method.name for alarm in self._host.spec.alarms):
            published = [*description.get("publishes", ()), alarm_topic(self._host.name, method.name)]
            description["publishes"] = published
        return description

    @property
    def machine(self) -> object:
        """The agent that runs it; None where a program does."""
        return self._holding.get("machine")

    def announcement(self) -> Announcement:
        """The announcement of the instance while it is ready; its state is OFFLINE while a device is absent, and the
        error says why."""
        about = self.about()
        match about.get("offline"):
            case {"why": str(why)}:
                return Announcement(self._host.name, State.OFFLINE, self._host.incarnation, why, about)
        return Announcement(self._host.name, State.READY, self._host.incarnation, about=about)

    def show(self) -> None:
        """Announce that the instance is ready. Raises the errors of announcing, `PublishRefused` where the broker does
        not take it: nobody would hear of the instance."""
        with self._turn:
            self._shown = True
            announcement = self._announce()
        await_taken(announcement)

    def changed(self) -> None:
        """Announce the instance again, where it was announced before, because something announced has changed."""
        with self._turn:
            try:
                if self._shown:
                    self._announce()
            except EtherError:
                pass  # there is no broker now; the link repeats the announcement when the connection is back

    def hold(self, facts: Mapping[str, object]) -> None:
        """Change the facts of `holding`, such as the supervisor, and announce them at once."""
        self._holding = {**self._holding, **facts}
        self.changed()

    def hide(self) -> None:
        """The instance is about to end: announce no further changes, those of its devices neither."""
        self.devices.stop()
        with self._turn:
            self._shown = False

    def _announce(self) -> Receipt:
        return self._link.announce(self._host.topics.state(self._host.name), self.announcement().to_value())
