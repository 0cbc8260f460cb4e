"""The saving side of a program that does nothing but play a recording into somebody else's session.

Promise: where that session records, the replay is recorded as what it is, explained by what was asked for. The trap:
who records is retained at the broker, so it is known only after that has been heard.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ether.connection.deadline import Deadline
from ether.launch.explaining import explained, open_saver
from ether.launch.guest import Guest
from ether.launch.recording_setup import LEADER, SAVE_TIMEOUT_S
from ether.recording.writer import SavingOptions
from ether.system.state_folder import outbox_folder

_HEAR_S = 5.0


@contextmanager
def saving(client: Guest, described: Mapping[str, Any]) -> Iterator[None]:
    """Within the block the client saves what the session's recorders want; `described` says what is played. What is
    not acknowledged at the end waits on disk, and the log says so."""
    info = client.session.info(_HEAR_S)
    options = SavingOptions(outbox_folder(client.topics.session), run=str(info.get("run") or ""))
    saver = open_saver(
        client.link,
        client.topics,
        options,
        str(info.get("program") or LEADER),
        lambda: explained(client.link.source, "", 0, None, (), {}, "ether.play", {}, {"play": dict(described)}),
    )
    client.session.hear_the_latest(Deadline(_HEAR_S))
    client.saver = saver
    try:
        yield
    finally:
        client.saver = None
        saver.close(SAVE_TIMEOUT_S)
