"""Leadership of a session: the leader's entry in the broker's directory, and its record on this machine.

One program leads a session. It keeps the session's entry correct: when a message clears or replaces the entry (the will
of a connection that was replaced long ago, a program that started the session again while the leader was disconnected),
the leader publishes its own again.

Two programs may lead at the same time while they cannot reach each other. As soon as they can, both see it and draw
the same conclusion: the one that has led for longer goes on, and the other one steps back and is a guest from then on.
How they find out without comparing their clocks is in `ether.session.seniority_rules`. Their instances go on, except
those whose names exist on both sides.

Programs that look for the session ask whether it still has a leader (`ether.session.leader_check`); the leader answers
by publishing its entry. It listens to that question before its entry is there for the first time, so that nobody takes
a leader that has just begun for a dead one.

The trap: the will of the program that stepped back still clears the entry when that program dies. So the leader defends
the entry for as long as it leads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ether.connection.assembly import new_incarnation
from ether.connection.link import ExtraHeaders, Inbound, Link, await_taken
from ether.errors import EtherError, TransportError
from ether.log import get_ether_logger
from ether.protocol.presence import BEHIND_BRIDGE, Announcement, State, is_notice
from ether.session.discovery.local_sessions import SessionRecord, remove_record, write_record
from ether.session.seniority_rules import Seniority
from ether.system.clock import uptime
from ether.system.process_owner import process_facts
from ether.wire.topics import SessionTopics

logger = get_ether_logger("Ether")

Entry = Mapping[str, Any]

_PROBE_TIMEOUT_S = 2.0


class Leadership:
    """One program's leadership, from `begin()` until `close()` or until it steps back."""

    def __init__(
        self, link: Link, topics: SessionTopics, entry: Entry, began: float, on_step_back: Callable[[Entry], None]
    ) -> None:
        """`entry` has `run`, by which two leaders are told apart, and `since` for people. `began`: since when this one
        leads, by `ether.system.clock.uptime`. `on_step_back` is called once, on a thread of its own, with the entry of
        the other leader."""
        self._link = link
        self._topics = topics
        self._entry = entry
        self._seniority = Seniority(entry["run"], entry["since"], began)
        self._folder = ""
        self._on_step_back = on_step_back
        self._receive, self._answer = self._on_entry, self._on_probe
        self._thread: threading.Thread | None = None
        self._turn = threading.Lock()
        self._ended = False
        self.leads = True
        """False after this program has stepped back."""
        self.was_asked = False
        """Whether anybody has asked if this session has a leader."""

    def begin(self, folder: str, url: str, configuration: str = "") -> None:
        """Publish the session's entry on the broker, and write its record into the private folder, for programs of this
        machine. `url` is the broker's, with credentials; `configuration` the digest of the program's. Raises
        `PublishRefused`."""
        self._folder = folder
        self._link.listen(self._topics.leader_probe, self._answer)
        entry = {**self._entry, **self._seniority.facts(uptime())}
        await_taken(self._link.announce(self._topics.session_info, entry))
        os.makedirs(folder, mode=0o700, exist_ok=True)
        write_record(
            folder, SessionRecord.of_this_process(self._topics.session, url, self._entry["since"], configuration)
        )

    def defend(self) -> None:
        """From now on, defend the entry or step back. Called when the program has started up so far that it can."""
        self._link.listen(self._topics.session_info, self._receive)

    def close(self) -> None:
        """Defend the entry no more; waits for a step back that has begun. May be called twice."""
        with self._turn:
            self._ended = True
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def ask_itself(self) -> None:
        """Publish the leader's probe, as others do. Raises `PublishRefused`."""
        publish = self._link.transport.publish
        await_taken(publish(self._topics.leader_probe, b"", timeout_s=_PROBE_TIMEOUT_S, urgent=True))

    def _on_probe(self, inbound: Inbound) -> None:
        """On the dispatch thread: somebody asks whether the session has a leader. The answer goes before data that
        waits here, or a busy leader would seem dead; it is not retained, because the entry is already."""
        inbound.done()
        self.was_asked = True
        if not self.leads or self._ended:
            return
        entry, extra = {**self._entry, **self._seniority.facts(uptime())}, ExtraHeaders(urgent=True)
        try:
            self._link.publish(self._topics.session_info, entry, extra=extra, timeout_s=_PROBE_TIMEOUT_S)
        except TransportError as error:
            logger.debug("who asked for the leader of this session got no answer: %s", error)

    def _on_entry(self, inbound: Inbound) -> None:
        """On the dispatch thread."""
        value = inbound.take()
        if is_notice(value):
            return
        rival = value if isinstance(value, dict) else {}
        run = rival.get("run")
        if self._ended or not self.leads or run == self._entry["run"]:
            return
        if isinstance(run, str) and self._seniority.yields_to(run, rival, uptime()):
            self.leads = False
            self._link.leave_to_others(self._topics.session_info)
            self._begin_to_step_back(rival)
        else:
            self._link.repeat(self._topics.session_info, self._seniority.facts(uptime()))

    def _begin_to_step_back(self, entry: Entry) -> None:
        with self._turn:
            if not self._ended:
                thread = threading.Thread(target=self._step_back, args=(entry,), name="ether-step-back", daemon=True)
                thread.start()
                self._thread = thread

    def _step_back(self, entry: Entry) -> None:
        where = f"{entry.get('host', 'an unknown host')}, pid {entry.get('pid', 'unknown')}"
        logger.warning(
            "session %r is led by an earlier program (%s); this one goes on as its guest", self._topics.session, where
        )
        remove_record(self._folder)
        try:
            self._link.unlisten(self._topics.leader_probe, self._answer)
            self._on_step_back(entry)
        except EtherError as error:
            logger.error("this program could not become a guest of session %r: %s", self._topics.session, error)


def clear(link: Link, topics: Iterable[str], timeout_s: float) -> None:
    """Withdraw retained messages; where the broker cannot be reached, only log it."""
    try:
        link.withdraw_all(topics, timeout_s)
    except EtherError as error:
        logger.warning("could not clear the announcements of %s: %s", link.source, error)


def appear_as_guest(link: Link, topics: SessionTopics, program: str, since: float) -> None:
    """Announce a program that takes part and does not lead; `since` in unix seconds. Raises `PublishRefused`."""
    about = {"kind": "program", **process_facts(), "since": since}
    about |= BEHIND_BRIDGE if link.headers_twice else {}
    announcement = Announcement(program, State.READY, new_incarnation(), about=about)
    await_taken(link.announce(topics.state(program), announcement.to_value()))
