"""Which messages came before: a broker may deliver one twice, after a reconnect or for overlapping subscriptions."""

from __future__ import annotations

from collections import OrderedDict

REMEMBERED_IDS = 8192
"""A doubled message is recognised if no more than this many others lie between."""


class DedupWindow:
    """A bounded memory of ids. Not locked."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()

    def before(self, message_id: str | None) -> bool:
        """True where this id came before; it counts as seen from now on. A stranger's message has none."""
        if message_id is None:
            return False
        if message_id in self._ids:
            return True
        self._ids[message_id] = None
        if len(self._ids) > REMEMBERED_IDS:
            self._ids.popitem(last=False)
        return False
