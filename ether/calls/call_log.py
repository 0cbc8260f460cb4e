"""What a method logs while it answers a call goes to the caller, too, if the caller watches."""

from __future__ import annotations

import logging

from ether.calls.server import tell_log
from ether.connection.causes import current


class CallLog(logging.Handler):
    """Passes on every record from INFO that is logged while a watched call is being answered."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        call = current().call
        if call is None or call.tell is None:
            return
        tell_log(call, {"time": record.created, "level": record.levelname, "message": record.getMessage()})
