"""A program's part in the log of its session: it ships its own records, and where it leads the session it writes the
records of all members to a file.
"""

from __future__ import annotations

from ether.errors import EtherError
from ether.log import get_ether_logger
from ether.logs.session_file import SessionLog
from ether.logs.shipping import LogShipper
from ether.session.session import Session

logger = get_ether_logger("Ether")

_LAST_WORDS_TIMEOUT_S = 2.0


class ProgramLog:
    """Ships and writes from its making until `close()`."""

    def __init__(self, session: Session, program: str, *, leads: bool) -> None:
        self._session = session
        self._file = SessionLog(session.link, session.topics) if leads else None
        self._shipper = LogShipper(session.link, session.topics, program, own_process=False)

    def close(self) -> None:
        """Ship no more, and close the file when it has the records that the instances shipped last. Twice is fine."""
        self._shipper.close()
        if self._file is None:
            return
        try:
            if self._session.link.transport.connected:
                self._file.catch_up(_LAST_WORDS_TIMEOUT_S)
        except EtherError as error:
            logger.debug("the last records may be missing in the log file: %s", error)
        self._file.close()
