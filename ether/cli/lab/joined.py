"""A command's way into a running session: found as `ether.tap()` finds it, joined as any program joins, and left at the
end.

Two late imports on purpose: `ether logs -s NAME` reads a file and joins nothing, and the connection and the discovery
are most of what a command would import (tests/cli/test_cli_offline.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ether.cli.exits import NoSession
from ether.cli.options import Where
from ether.cli.tool_name import tool_name
from ether.log import get_ether_logger, install_console

if TYPE_CHECKING:
    from ether.launch.guest import Guest
    from ether.session.discovery.search import FoundSession

JOIN_TIMEOUT_S = 10.0
RETURNS_S = 3.0


@contextmanager
def joined(
    where: Where, timeout_s: float = JOIN_TIMEOUT_S, *, log_level: str = "WARNING", returns_s: float = RETURNS_S
) -> Iterator[Guest]:
    """A client in the session that was named, or in the only one there is; raises `NoSession`, `SeveralSessions`,
    and what connecting raises. A broker that is just being started again is waited for, for `returns_s` seconds. What
    Ether itself logs meanwhile is shown from `log_level` up."""
    from ether.launch.guest import join

    install_console()
    get_ether_logger(log_level=log_level)
    with join(found_session(where), tool_name(), timeout_s=timeout_s, returns_s=returns_s) as client:
        yield client


def found_session(where: Where) -> FoundSession:
    """The session and its address; raises `NoSession`."""
    from ether.session.discovery.local_sessions import read_records
    from ether.session.discovery.search import LOOK_PATIENCE_S, find

    found = find(session=where.session, broker=where.broker, environment=os.environ, patience_s=LOOK_PATIENCE_S)
    if found is None:
        running = [record.session for record in read_records(os.environ)]
        raise NoSession(where.session or os.environ.get("ETHER_SESSION"), running)
    return found
