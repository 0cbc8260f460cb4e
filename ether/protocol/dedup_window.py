"""Recognises duplicates: a broker may deliver a message twice, after a reconnect or for overlapping subscriptions."""

from __future__ import annotations

from collections import OrderedDict

REMEMBERED_IDS = 8192
"""A duplicate is recognised if no more than this many other messages lie between."""


class DedupWindow:
    """A bounded memory of ids. Not locked."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()

    def before(self, message_id: str | None) -> bool:
        """True where this id came before; it counts as seen from now on. None, the id of a foreign message, never
        did."""
        if message_id is None:
            return False
        if message_id in self._ids:
            return True
        self._ids[message_id] = None
        if len(self._ids) > REMEMBERED_IDS:
            self._ids.popitem(last=False)
        return False
