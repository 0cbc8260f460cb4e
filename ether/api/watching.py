"""The part of the front door that watches a session: activity, who publishes to whom, alarms, the safe state for
all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from ether.protocol.request_table import CALL_TIMEOUT_S

if TYPE_CHECKING:
    from ether.session.client import Client

_LOOK_S = 1.2
"""Two heartbeats of each instance."""


class Watching(ABC):
    """What a member sees of its session."""

    @abstractmethod
    def _joined(self, call: str) -> Client:
        """The access to the session. Raises `NotJoined`, which names the call."""

    def activity(self, *, look_s: float = _LOOK_S) -> dict[str, dict[str, Any]]:
        """What each instance does, by its name, watched for `look_s` seconds: `busy` (a method, or None) and `busy_s`;
        `queued`, how many messages and calls wait; `handled_hz` and `published_hz`, messages a second; `cpu`, the share
        of one core; `memory_mb`; `failures`, with `count`, `last`, `at`. Rates are None where there were not two
        heartbeats. An instance that sent none is left out."""
        from ether.session.watching.heartbeats import Heartbeats, activity_value

        client = self._joined("ether.activity()")
        client.session.open(CALL_TIMEOUT_S)
        beats = Heartbeats(client)
        try:
            beats.collect(look_s)
            names = [member.name for member in client.session.announcements() if member.kind == "instance"]
            return {name: value for name in names if (value := activity_value(beats, name)) is not None}
        finally:
            beats.close()

    def graph(self) -> dict[str, Any]:
        """Who publishes to whom, by the topics that classes are marked with: `instances`, `edges` (`from`, `topic`,
        `to`), `unheard` and `unfed`."""
        from ether.session.watching.flow import flow_of

        client = self._joined("ether.graph()")
        client.session.open(CALL_TIMEOUT_S)
        return flow_of(client.session.announcements()).to_value()

    def alarms(self) -> dict[str, dict[str, Any]]:
        """The alarms of all instances by `instance.alarm`: `state` (ok, warn, alarm, acknowledged, latched, shelved),
        `level`, `value`, `unit`, `since`; `acknowledged` and `shelved` with `by` and `at`."""
        from ether.session.watching.alarms import alarm_rows

        session = self._joined("ether.alarms()").session
        session.open(CALL_TIMEOUT_S)
        return {row.pop("name"): row for row in alarm_rows(session.announcements())}

    def acknowledge(self, alarm: str, *, by: str = "", note: str = "") -> dict[str, Any]:
        """Say that somebody knows of the alarm `instance.alarm`; `by` is the user of this machine where it is left out.
        Returns what the alarm is then. Raises where it is ok, unknown, or its instance does not answer."""
        return self._change_alarm("ether.acknowledge()", alarm, "acknowledge", by=by, note=note)

    def shelve(self, alarm: str, for_s: float, *, by: str = "", note: str = "") -> dict[str, Any]:
        """Hear nothing of the alarm `instance.alarm` for so many seconds. As `acknowledge`."""
        return self._change_alarm("ether.shelve()", alarm, "shelve", by=by, note=note, for_s=for_s)

    def unshelve(self, alarm: str, *, by: str = "", note: str = "") -> dict[str, Any]:
        """Take an alarm from the shelf before its time is over. As `acknowledge`."""
        return self._change_alarm("ether.unshelve()", alarm, "unshelve", by=by, note=note)

    def _change_alarm(self, call: str, alarm: str, do: str, **more: Any) -> dict[str, Any]:
        from ether.session.watching.alarms import change_alarm

        session = self._joined(call).session
        session.open(CALL_TIMEOUT_S)
        return change_alarm(session, alarm, do, **more)

    def make_safe(self, why: str = "asked to", *, timeout_s: float = 5.0) -> dict[str, dict[str, Any]]:
        """Bring every instance that has a safe state into it, now, ahead of everything that waits. Until
        `end_safe_state()` they refuse what would move something.

        Returns by instance `safe`, `calls`, and `why` not: False for what failed, could not be reached, or did not
        answer within `timeout_s` seconds."""
        return self._safety("ether.make_safe()", why or "asked to", timeout_s)

    def end_safe_state(self, *, timeout_s: float = 5.0) -> dict[str, dict[str, Any]]:
        """Let the instances serve again that `make_safe()` has made safe. The devices stay as they are. The result is
        that of `make_safe`."""
        return self._safety("ether.end_safe_state()", "", timeout_s)

    def _safety(self, call: str, why: str, timeout_s: float) -> dict[str, dict[str, Any]]:
        from ether.session.watching.safety import make_safe

        session = self._joined(call).session
        session.open(timeout_s)
        return {name: answer._asdict() for name, answer in make_safe(session, why, timeout_s).items()}
