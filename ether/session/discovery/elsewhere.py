"""Looks for a named session on other machines, while this program already starts one of that name.

Whether a session of that name runs on this machine is known at once, from its record. The network and the brokers that
were joined before take a moment, in which the program starts what it needs in either case: the processes of its
instances, and a broker. Nothing of the user's code runs, and nothing is published, before the answer is there.

Promise: where nobody answers, the answer comes `WINDOW_S` after the beginning. Two programs on two machines that begin
at the same moment get different answers (`ether.session.discovery.claim_rules`). The trap: brokers that were joined
before may be behind a network that swallows packets. Only where this very session was joined are they waited for in
full.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping

from ether.config import EtherConfig
from ether.config.broker import EmbeddedBroker
from ether.connection.deadline import Deadline
from ether.errors import EtherError
from ether.log import get_ether_logger
from ether.session.discovery import mdns
from ether.session.discovery.claim_rules import WINDOW_S
from ether.session.discovery.known_brokers import read_remembered
from ether.session.discovery.name_contest import NameContest
from ether.session.discovery.search import (
    ATTEMPT_S,
    TAP_PATIENCE_S,
    FoundSession,
    SearchStep,
    SearchTarget,
    ask_announced,
    joinable,
    look_back,
    search_environment,
)

logger = get_ether_logger("Ether")


class SearchElsewhere:
    """One search, from its beginning until `close()`."""

    def __init__(self, session: str, environment: Mapping[str, str], *, lan: bool) -> None:
        """Begins at once, on threads of its own; `lan`: the broker that is being started listens to other machines.
        Raises `ConfigError`."""
        self._session = session
        self._target = SearchTarget.of(session, None, environment, None, TAP_PATIENCE_S)
        known = read_remembered(environment)
        self._remembered: queue.SimpleQueue[SearchStep | EtherError] | None = None
        self._remembered_by = Deadline(ATTEMPT_S if any(each.session == session for each in known) else WINDOW_S)
        if known:
            self._remembered = queue.SimpleQueue()
            threading.Thread(target=self._look_back, name="ether-look-back", daemon=True).start()
        self._contest: NameContest | None = None
        if self._target.mdns_s > 0:
            window_s = self._target.mdns_s if environment.get(mdns.MDNS_VARIABLE) else WINDOW_S
            self._contest = NameContest(session, lan=lan, window_s=window_s)

    def found(self, deadline: Deadline) -> FoundSession | None:
        """Wait for the answer: the session to join, None where this program is to lead. From then on, this program
        answers others that want to start a session of this name, where they can join its own.

        Raises `SeveralSessions`, and `WrongLabKey` where the session's broker refuses this program."""
        found = self._in_network(deadline) or self._at_remembered(deadline)
        if found is not None:
            self.close()
        return found

    def close(self) -> None:
        """Search and answer no more. Twice is fine."""
        if self._contest is not None:
            self._contest.close()

    def _in_network(self, deadline: Deadline) -> FoundSession | None:
        contest, target = self._contest, self._target
        while contest is not None and (announced := contest.outcome(deadline)):
            step = ask_announced(announced, target)
            logger.debug("discovery, %s", step)
            found = joinable(step, target)
            if found is not None:
                return found
            if self._session in step.refused:
                raise step.refused[self._session]
            contest.ignore(announced)
        return None

    def _at_remembered(self, deadline: Deadline) -> FoundSession | None:
        if self._remembered is None:
            return None
        try:
            step = self._remembered.get(timeout=min(deadline.left(), self._remembered_by.left()))
        except queue.Empty:
            logger.debug("discovery: the brokers that were joined before have not answered in time")
            return None
        if isinstance(step, EtherError):
            raise step
        logger.debug("discovery, %s", step)
        return joinable(step, self._target)

    def _look_back(self) -> None:
        assert self._remembered is not None
        try:
            self._remembered.put(look_back(self._target))
        except EtherError as error:
            self._remembered.put(error)


def search_elsewhere(config: EtherConfig, environment: Mapping[str, str]) -> SearchElsewhere | None:
    """The search that goes with starting this configuration, which was not found on this machine; None where no other
    machine is to be asked. Raises `ConfigError`."""
    if config.session is None or not isinstance(config.broker, EmbeddedBroker):
        return None
    environment = search_environment(config, environment)
    return SearchElsewhere(config.session, environment, lan=config.broker.lan_host is not None)
