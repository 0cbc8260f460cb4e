"""Asks for the leader of a session whether it is there, before a program believes what a broker retains of it.

Whoever asks listens to the session's entry and publishes the leader's probe; a leader publishes its entry again
(`ether.session.leadership`). A leader of version 1 of the wire knows no probe: it is called by its name, as members are
when the roll is called, and publishes all that it has announced again, its entry too. What follows from an answer, or
from none, is decided in `ether.session.leader_rules`.

The trap: the search asks over a connection of its own, before the program is in the session; the reaper of a member
asks over that member's link. So the check neither publishes nor waits itself.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ether.errors import PublishTimeout, TransportError
from ether.session.leader_rules import ASK_EVERY_S, LeaderVerdict, LeaderWatch
from ether.session.roll_call import ANNOUNCE
from ether.system.process_owner import has_ended_here
from ether.system.processes import is_stopped
from ether.transport.base import Receipt
from ether.wire.topics import SessionTopics

_PROBE_SINCE = 2
"""The version of the wire from which on leaders know the probe."""


class LeaderCheck:
    """The check of one leader: `turn()` on one thread, at least every `ASK_EVERY_S`; `heard()`, on any thread, with
    every message on the topic of the session's entry."""

    def __init__(
        self, topics: SessionTopics, entry: Mapping[str, Any], publish: Callable[[str, bytes], Receipt]
    ) -> None:
        """`entry` is what the broker retains; `publish` sends a question, to a topic."""
        pid, version_1 = entry.get("pid"), not _knows_probe(entry)
        self._pid = pid if type(pid) is int else 0
        self._ask = partial(publish, *_question(topics, entry, version_1=version_1))
        self._asked: tuple[float, Receipt] | None = None
        self.leader = f"the leader of session {topics.session!r} ({entry.get('host') or 'an unknown host'}, pid {pid})"
        """For a sentence."""
        self.answered = False
        """Whether the entry was published again, by this leader or another."""
        # This very process lives, whether it leads or not: only its answer tells.
        ended_here = None if pid == os.getpid() else has_ended_here(entry)
        self._watch = LeaderWatch(ended_here=ended_here, now=time.monotonic(), version_1=version_1)

    def turn(self) -> LeaderVerdict | None:
        """What is known; where that is not enough, the next question is asked when it is due. Raises
        `TransportError`."""
        now = time.monotonic()
        stands_still = self._watch.runs_here and is_stopped(self._pid)
        verdict = self._watch.verdict(now, stands_still=stands_still)
        if verdict is None and (self._asked is None or now - self._asked[0] >= ASK_EVERY_S):
            self._note_receipt()
            self._asked = now, self._ask()
        return verdict

    def _note_receipt(self) -> None:
        """Take in what the broker has said of the last question."""
        if self._asked is None:
            return
        at, receipt = self._asked
        try:
            receipt.wait(0.0)
        except PublishTimeout:
            return
        except TransportError:
            self._watch.may_not_ask()
        else:
            self._watch.asked(at, no_subscribers=receipt.no_subscribers)

    def heard(self, *, cleared: bool, retained: bool) -> None:
        """The entry was published or `cleared` now; a `retained` message tells of the past."""
        if cleared:
            self._watch.cleared(time.monotonic())
        elif not retained:
            self.answered = True
            self._watch.answered()


def _knows_probe(entry: Mapping[str, Any]) -> bool:
    """Whether the leader of this entry speaks a version of the wire that has the probe."""
    wire = entry.get("wire")
    return type(wire) is int and wire >= _PROBE_SINCE


def _question(topics: SessionTopics, entry: Mapping[str, Any], *, version_1: bool) -> tuple[str, bytes]:
    """The topic and the body of the question whether the leader of this entry is there."""
    if not version_1:
        return topics.leader_probe, b""
    program = entry.get("program")
    return topics.control(ANNOUNCE), json.dumps({"instances": [program] if isinstance(program, str) else []}).encode()
