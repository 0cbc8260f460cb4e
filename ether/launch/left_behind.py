"""What processes that have died on this machine left in their outboxes, and nobody has taken over yet."""

from __future__ import annotations

from dataclasses import dataclass

from ether.errors import OutboxFailed
from ether.recording.outbox_file import adopt
from ether.system.state_folder import outbox_folder


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """An outbox whose process is dead: of which source, how many entries, in which file."""

    source: str
    count: int
    path: str


def left_behind(session: str) -> list[LeftBehind]:
    """The outboxes of a session's dead processes; they stay as they are. Files that cannot be read are named by their
    error, as with 0 entries. Raises `ConfigError`."""
    found: list[LeftBehind] = []
    waiting = adopt(outbox_folder(session))
    while True:
        try:
            file = next(waiting)
        except StopIteration:
            return found
        except OutboxFailed as error:
            found.append(LeftBehind(str(error), 0, error.path))
            continue
        found.append(LeftBehind(file.source, file.last - file.base, str(file.path)))
        file.close()
