"""Messages that the broker will not take: one warning for each topic and reason, and a count of the others.

A refusal comes after `publish()` has returned, so there is nobody to raise an error for. Where a caller waits for what
the message was to bring about (a call, a question, an entry to be saved) it is told instead, and nothing is logged
here.
"""

from __future__ import annotations

import threading

from ether.errors import PayloadTooLarge, PublishRefused
from ether.log import get_ether_logger

logger = get_ether_logger("Ether")

_MOST_TOPICS = 1000
"""So many topics and reasons are told apart; above it, a topic may be warned of once more."""


class Refusals:
    """The refusals of one link."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], int] = {}
        self.count = 0
        """Messages that were refused, and of which no caller was told."""

    def note(self, topic: str, error: PublishRefused | PayloadTooLarge) -> None:
        """A message was refused. `topic` as its user writes it."""
        why, advice = _words_of(error)
        with self._lock:
            self.count += 1
            if (topic, why) not in self._counts and len(self._counts) >= _MOST_TOPICS:
                self._counts.clear()
            count = self._counts[topic, why] = self._counts.get((topic, why), 0) + 1
        if count == 1:
            logger.warning(
                "%s: what is published on %r reaches nobody. The broker refused the message of %s bytes: %s. %s"
                " Further ones like this are counted.",
                self._source, topic, f"{error.size:,}", why, advice,
                extra={"ether": {"topic": topic, "size": error.size}},
            )  # fmt: skip

    def sum_up(self) -> None:
        """Log how many messages were refused beyond those that were warned of. At the end of the link."""
        with self._lock:
            counts, self._counts = self._counts, {}
        for (topic, why), count in counts.items():
            if count > 1:
                logger.warning("%s: the broker refused %s messages on %r: %s", self._source, f"{count:,}", topic, why)


def _words_of(error: PublishRefused | PayloadTooLarge) -> tuple[str, str]:
    """The broker's reason, and what to do."""
    if isinstance(error, PublishRefused):
        return error.why, error.advice
    return f"it takes at most {error.limit:,} bytes in one message", "Send it in parts, or raise the broker's limit."
