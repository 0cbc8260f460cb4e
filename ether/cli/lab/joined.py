"""A command's way into a running session: found as `ether.tap()` finds it, joined as any program joins, left at the
end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ether.cli.exits import NoSession
from ether.log import get_ether_logger, install_console

if TYPE_CHECKING:
    from ether.launch.guest import Guest
    from ether.session.discovery.search import FoundSession

JOIN_TIMEOUT_S = 10.0


@contextmanager
def joined(
    session: str | None, broker: str | None, timeout_s: float = JOIN_TIMEOUT_S, *, log_level: str = "WARNING"
) -> Iterator[Guest]:
    """A client in the session that was named, or in the only one there is; raises `NoSession`, `SeveralSessions`,
    and what connecting raises. What Ether itself logs meanwhile is shown from `log_level` up."""
    from ether.launch.guest import join

    install_console()
    get_ether_logger(log_level=log_level)
    with join(found_session(session, broker), _name(), timeout_s=timeout_s) as client:
        yield client


def found_session(session: str | None, broker: str | None) -> FoundSession:
    """Where it is; raises `NoSession`."""
    from ether.session.discovery.search import find

    found = find(session=session, broker=broker, environment=os.environ)
    if found is None:
        raise NoSession(session or os.environ.get("ETHER_SESSION"))
    return found


def _name() -> str:
    """Of one's own, so that any number of commands may be in a session."""
    return f"{TOOL}{os.getpid()}-{os.urandom(3).hex()}"


TOOL = "ether-cli-"
"""What the name of every command in a session begins with."""
