"""Objects of this very process that are instances of the session: a notebook's, or a main program's.

Promise: a name that is given back is free, and calls that come for it are told at once that it has left. The trap: one
whose name another process takes over is told on a thread that must not wait, so it leaves on a thread of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from ether.connection.deadline import Deadline
from ether.instance.local import LocalInstance, MakeSaver, OpenLink
from ether.instance.registry import RegistryOptions, registry_marks
from ether.session.session import Session
from ether.system.process_owner import is_dead_here
from ether.system.state_folder import journal_path

_READY_TIMEOUT_S = 10.0
_LAST_WORDS_TIMEOUT_S = 2.0


class LocalInstances:
    """The objects that one program hosts, by name."""

    def __init__(self) -> None:
        self._guests: dict[str, LocalInstance] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._guests))

    def __contains__(self, name: object) -> bool:
        return name in self._guests

    def __len__(self) -> int:
        return len(self._guests)

    def add(
        self,
        session: Session,
        open_link: OpenLink,
        name: str,
        obj: object,
        registry: RegistryOptions,
        birth_and_epoch: tuple[str, int],
        make_saver: MakeSaver,
    ) -> None:
        """Returns when it is ready; its name has been taken."""
        here = LocalInstance(
            name,
            obj,
            session.topics,
            open_link,
            registry_marks(registry),
            birth=birth_and_epoch[0],
            epoch=birth_and_epoch[1],
            make_saver=make_saver,
            on_fenced=lambda why: self._remove_soon(session, name),
            journal_at=lambda: journal_path(session.topics.session, name),
        )
        here.instance.let.is_dead = is_dead_here
        self._guests[name] = here
        session.calls.here[name] = here.instance
        session.wait_ready([name], Deadline(_READY_TIMEOUT_S), dict)

    def remove(self, session: Session, name: str) -> None:
        """The object leaves the session; nothing where it is not there."""
        here = self._guests.pop(name, None)
        if here is not None:
            session.calls.here.pop(name, None)
            here.close()
            if session.link.transport.connected:
                session.catch_up(_LAST_WORDS_TIMEOUT_S)  # whoever calls it next is told that it has left

    def _remove_soon(self, session: Session, name: str) -> None:
        target = threading.Thread(target=self.remove, args=(session, name), name=f"ether-unhost-{name}", daemon=True)
        target.start()
