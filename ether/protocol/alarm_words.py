"""The words of alarms that instances and those who watch them have to agree on."""

from __future__ import annotations

ALARM_VERB = "alarm"
"""The control verb: `{"instances": [name], "alarm": name, "do": "acknowledge" | "shelve" | "unshelve", "by": text,
"note": text, "for_s": seconds}`."""

ALARMS = "alarms"
"""In an announcement: the alarms of the instance by name, with the state of each."""

ALARM_TOPIC = "alarm"
"""The first level of the topics on which alarms are published: `alarm/<instance>/<alarm>`."""


def alarm_topic(instance: str, alarm: str) -> str:
    """The topic of one alarm."""
    return f"{ALARM_TOPIC}/{instance}/{alarm}"
