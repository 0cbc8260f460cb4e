"""`Saved`, the user's handle of a value that is being saved."""

from __future__ import annotations

from typing import Protocol

from ether.connection.deadline import Deadline
from ether.errors.keywords import named_keywords

WAIT_S = 10.0


class RecordFates(Protocol):
    """The part of a record writer that knows which entries are saved."""

    def is_saved(self, number: int, topic: str | None) -> bool: ...
    def wait(self, number: int, topic: str | None, message_id: str, deadline: Deadline) -> None: ...


@named_keywords("receipt")
class Saved:
    """A value on its way to the disk of a recorder.

    `id` is its message id, by which `ether.data()` and `ether why` find it later.
    """

    __slots__ = ("_fates", "_number", "_topic", "id")

    def __init__(self, fates: RecordFates, number: int, topic: str | None, message_id: str) -> None:
        """`topic` is None for what every recorder keeps."""
        self.id = message_id
        self._fates, self._number, self._topic = fates, number, topic

    @property
    def done(self) -> bool:
        """True once it is on disk, synced."""
        return self._fates.is_saved(self._number, self._topic)

    def wait(self, timeout_s: float = WAIT_S) -> None:
        """Return when it is on disk, synced. Raises `NotSaved`: at once where the recorder reports that it cannot
        write, with its reason, and otherwise after `timeout_s` seconds. The value then stays in the outbox and is saved
        as soon as possible, unless the error's `lost` says that the outbox gave it up."""
        self._fates.wait(self._number, self._topic, self.id, Deadline(timeout_s))

    def __repr__(self) -> str:
        return f"<Saved {self.id}: {'on disk' if self.done else 'on its way'}>"
