"""The alarms of a session's instances, and what a person does about them: acknowledge, shelve.

Promise: what could not be done raises; an alarm for which its instance did not answer is never reported as
acknowledged. The trap: who acknowledges is what their program says, the user of the machine where nothing else is said;
it is no proof.
"""

from __future__ import annotations

import difflib
import getpass
import socket
from collections.abc import Iterable, Mapping
from typing import Any

from ether.errors import EtherError
from ether.protocol.alarm_words import ALARM_VERB, ALARMS
from ether.protocol.presence import LIVES, Announcement
from ether.session.session import Session
from ether.spec.alarm_rules import OK

ANSWER_S = 5.0


class AlarmNotChanged(EtherError, RuntimeError):
    """An alarm that was not acknowledged or shelved. `why` is the instance's answer."""

    def __init__(self, name: str, do: str, why: str) -> None:
        self.name, self.do, self.why = name, do, why
        super().__init__(f"{name}: could not {do} it: {why}")


def alarm_rows(members: Iterable[Announcement]) -> list[dict[str, Any]]:
    """A row for each alarm of the instances that live: `name` as `instance.alarm`, `state`, `level`, `value`,
    `since`."""
    return [
        {"name": f"{member.name}.{name}", "instance": member.name, **said}
        for member in members
        if member.state in LIVES and isinstance(alarms := member.about.get(ALARMS), Mapping)
        for name, said in sorted(alarms.items())
        if isinstance(said, Mapping)
    ]


def raised(about: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Of an announcement the alarms that are not ok, by name."""
    alarms = about.get(ALARMS)
    if not isinstance(alarms, Mapping):
        return {}
    return {name: said for name, said in alarms.items() if isinstance(said, Mapping) and said.get("state") != OK}


def this_person() -> str:
    """`user@machine`."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError, ImportError):  # a container's user may have no name
        return f"somebody@{socket.gethostname()}"


def change_alarm(
    session: Session, name: str, do: str, *, by: str = "", note: str = "", for_s: float | None = None,
    timeout_s: float = ANSWER_S,
) -> dict[str, Any]:  # fmt: skip
    """Acknowledge, shelve or unshelve the alarm `instance.alarm`. Returns what it is then; raises `AlarmNotChanged`."""
    rows = {row["name"]: row for row in alarm_rows(session.announcements())}
    if name not in rows:
        near = difflib.get_close_matches(name, rows, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else f" There are: {', '.join(rows) or 'none'}."
        raise AlarmNotChanged(name, do, f"there is no such alarm.{hint}")
    instance, alarm = rows[name]["instance"], name.removeprefix(f"{rows[name]['instance']}.")
    asked = {"alarm": alarm, "do": do, "by": by or this_person(), "note": note, "for_s": for_s}
    barrier = session.ask(ALARM_VERB, [instance], timeout_s, asked)
    reasons = barrier.reasons(timeout_s)
    if instance in reasons:
        raise AlarmNotChanged(name, do, reasons[instance].removeprefix(f"{alarm}: "))
    found = barrier.answers[instance].results.get(alarm)
    return {"name": name, "instance": instance, **(found if isinstance(found, Mapping) else {})}
