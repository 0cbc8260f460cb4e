"""The messages that a result may depend on beside the one that is being handled: an instance's recent inputs.

An object keeps state, and Ether cannot see which part of it went into a result. It can say which messages the object
had been given: the latest one of each source on each topic.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

MAX_INPUTS = 32
"""The number of remembered pairs of topic and source; the oldest pair is forgotten first."""


class RecentInputs:
    """A bounded memory of messages. Not locked: where a method runs on several threads at once, a result may list one
    input more or less."""

    def __init__(self) -> None:
        self._latest: OrderedDict[tuple[str, str], str] = OrderedDict()

    def note(self, topic: str, source: str, message_id: str) -> None:
        """Note a message that is being handled."""
        key = (topic, source)
        self._latest[key] = message_id
        self._latest.move_to_end(key)
        if len(self._latest) > MAX_INPUTS:
            self._latest.popitem(last=False)

    def beside(self, parents: Sequence[str]) -> list[str]:
        """The ids of the latest messages, the earliest first, without those in `parents`."""
        return [message_id for message_id in list(self._latest.values()) if message_id not in parents]
