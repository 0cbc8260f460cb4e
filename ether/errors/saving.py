"""Errors of recording, in the process whose values are recorded; the whole tree is drawn in `ether.errors`."""

from __future__ import annotations

from ether.errors.base import EtherError


class OutboxFailed(EtherError, OSError):
    """The outbox file, in which this process keeps its unsaved records, cannot be written or read."""

    def __init__(self, path: str, why: object) -> None:
        self.path, self.why = path, str(why)
        Exception.__init__(self, f"what is to be saved cannot be kept in {path}: {why}. Is the disk full or read-only?")

    def __str__(self) -> str:
        return str(self.args[0])


class OutboxFull(EtherError, TimeoutError):
    """The outbox had no room for a record within `timeout_s` seconds; `limit_bytes` is its capacity."""

    def __init__(self, source: str, limit_bytes: int, timeout_s: float) -> None:
        self.source, self.limit_bytes, self.timeout_s = source, limit_bytes, timeout_s
        super().__init__(
            f"the outbox of {source} is full ({limit_bytes:,} bytes that no recorder has acknowledged) and nothing left"
            f" it within {timeout_s:g} s. Is a recorder running, and does its disk have room? record.outbox in the"
            " configuration sets the limit and what happens there."
        )


class NotSaved(EtherError, OSError):
    """A value is not on disk at a recorder. `lost`: it never will be. Otherwise it waits in this process's outbox and
    is saved as soon as a recorder takes it."""

    def __init__(self, message_id: str, why: str, *, lost: bool = False) -> None:
        self.message_id, self.why, self.lost = message_id, why, lost
        then = "It is lost." if lost else "It stays in the outbox until it is."
        stop = "" if why.endswith((".", "?")) else "."
        Exception.__init__(self, f"{message_id} is not saved: {why}{stop} {then}")

    def __str__(self) -> str:
        return str(self.args[0])
