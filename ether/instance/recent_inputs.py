"""What an instance has heard before: the messages that a result may rest on beside the one that is being handled.

An object keeps state, and Ether cannot see what of it went into a result. What it can say is what the object had been
given: the latest message of each source on each topic.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

MOST = 32
"""Sources and topics that are remembered, the latest ones."""


class RecentInputs:
    """A bounded memory of messages. Not locked: a method that runs several times at once may see one more or less."""

    def __init__(self) -> None:
        self._latest: OrderedDict[tuple[str, str], str] = OrderedDict()

    def note(self, topic: str, source: str, message_id: str) -> None:
        """A message is being handled."""
        key = (topic, source)
        self._latest[key] = message_id
        self._latest.move_to_end(key)
        if len(self._latest) > MOST:
            self._latest.popitem(last=False)

    def beside(self, parents: Sequence[str]) -> list[str]:
        """The ids of what was heard last, without these; the earliest first."""
        return [message_id for message_id in list(self._latest.values()) if message_id not in parents]
