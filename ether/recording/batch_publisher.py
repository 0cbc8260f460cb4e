"""Publishes batches to recorders, and finds out why the broker does not take one.

A refusal may mean three things, and each has its own end:

- The message is too large. Messages become smaller; a batch that is larger goes in parts (`ether.wire.parts`). So a
  value may have any size.
- Nothing may be published to this recorder, or not now (its rights, a quota). Then nothing is given up: threads that
  wait for their values are told the broker's words, and it is tried again after pauses.
- The broker does not take this very value. It is given up, so that what stands behind it is saved.

The reason code does not tell these apart, except for 0x95 (packet too large). So after any other refusal a probe is
published, a batch without entries. Where the broker refuses the probe, too, nothing passes. Where it takes the probe,
messages become smaller, down to `SMALLEST_BYTES`; then entries are sent one by one, and the one that is refused while
a probe passes is given up.

For one thread, the sender's. The trap: the broker's answers arrive on the transport's thread, which only notes them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from enum import Enum, auto
from functools import partial
from typing import NamedTuple

from ether.connection.link import Link
from ether.errors import OutboxFailed, PayloadTooLarge, PublishRefused, PublishTimeout, TransportError
from ether.log import get_ether_logger
from ether.recording.message_size_rules import MessageSize
from ether.recording.outbox_queue import BATCH_BYTES, OutboxQueue
from ether.recording.receipt_rules import RecorderAbout
from ether.recording.send_window_rules import SendWindow
from ether.system.backoff import Backoff
from ether.transport.base import Receipt, Refusal
from ether.version import WIRE
from ether.wire.entries import Sign, pack_batch
from ether.wire.head import Headers
from ether.wire.parts import body_bytes, in_parts
from ether.wire.topics import SessionTopics

logger = get_ether_logger("Ether")

_SEND_S = 2.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0


class RefusedValue(NamedTuple):
    """An entry that the broker will never take."""

    outbox: OutboxQueue
    number: int
    why: str


class _Sent(NamedTuple):
    """A message that has left, until the broker has answered it."""

    outbox: OutboxQueue
    recorder: str
    window: SendWindow
    attempt: int
    first: int
    """The first number of its batch; 0 for a probe."""
    last: int
    size: int = 0
    is_end: bool = True
    """Not a part of a batch that others follow."""


class _State(Enum):
    PROBE_IS_DUE = auto()
    PROBING = auto()
    ONE_BY_ONE = auto()


class _Doubt:
    """What is being found out about the way from one outbox to one recorder."""

    def __init__(self, refused: _Sent, why: str) -> None:
        self.state = _State.PROBE_IS_DUE
        self.refused, self.why = refused, why
        """The latest message that was refused, and the broker's words."""
        self.last = refused.last
        """Up to this number entries are suspects."""
        self.alone = False
        """Whether the refused message had a single entry."""
        self.nothing_passed = False
        """Whether a probe was refused, too."""
        self.until = 0.0
        self.pauses = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)


class BatchPublisher:
    """The way of one process's outboxes to the recorders."""

    def __init__(
        self, link: Link, topics: SessionTopics, wake: Callable[[], object],
        sign: Callable[[RecorderAbout], Sign | None] = lambda about: None,
    ) -> None:  # fmt: skip
        """`wake` makes the sender's thread call `take_answers` soon; `sign` gives what signs for a recorder."""
        self._sign = sign
        self._link, self._topics, self._wake = link, topics, wake
        self._sizes = MessageSize()
        self._answers: deque[tuple[_Sent, Exception | None]] = deque()
        self._refused = False
        self._doubts: dict[tuple[str, str], _Doubt] = {}
        self._silences: dict[tuple[str, str], tuple[int, int]] = {}
        """For each way the silences so far, and the size of the largest message since."""
        self.problems: dict[str, str] = {}
        """Why nothing reaches a recorder, by its name."""
        self._is_own = self._is_batch
        link.on_refusal.append(self._is_own)

    def close(self) -> None:
        """Watch refusals no longer."""
        self._link.on_refusal.remove(self._is_own)

    def _is_batch(self, refusal: Refusal, headers: Headers) -> bool:
        """A batch was refused: `_on_answer` has it, also where its receipt was settled before it was watched."""
        return refusal.topic.startswith(self._topics.record(""))

    @property
    def has_news(self) -> bool:
        """Whether the broker has refused something since the last `take_answers`."""
        return self._refused

    def batch_bytes(self, now: float) -> int:
        """How large a batch of several entries may be."""
        transport = self._link.transport
        self._sizes.broker(transport.passing_bytes, tells=transport.tells_size)
        return min(BATCH_BYTES, self._sizes.largest(now))

    # -- sending

    def send(self, outbox: OutboxQueue, about: RecorderAbout, window: SendWindow, first: int, now: float) -> bool:
        """Publish a batch of rows from number `first` on; False where it did not leave, to be tried in a later
        round."""
        doubt = self._doubts.get((outbox.outbox, about.name))
        if doubt is not None and doubt.state is not _State.ONE_BY_ONE:
            self._send_probe(outbox, about, window, doubt, now)
            return False
        if doubt is not None and not _split(outbox, first):
            return False
        rows = outbox.rows(first, about)[: None if doubt is None else 1]
        if not rows:
            return False
        batch = self._pack(outbox, about, window, [packed for _, packed in rows])
        self._note_silence(outbox, about, window, len(batch), now)
        sent = _Sent(outbox, about.name, window, window.attempt, first, rows[-1][0])
        if not self._publish(batch, sent, about, now):
            return False
        window.sent(rows[-1][0], now)
        return True

    def _pack(self, outbox: OutboxQueue, about: RecorderAbout, window: SendWindow, blocks: Sequence[bytes]) -> bytes:
        """A batch of packed rows. A recorder of version 1 of the wire refuses an opening that says what it has
        acknowledged."""
        given = window.given if about.wire >= WIRE else 0
        return pack_batch(outbox.outbox, outbox.source, outbox.head, blocks, outbox.base, given, self._sign(about))

    def _publish(self, batch: bytes, sent: _Sent, about: RecorderAbout, now: float) -> bool:
        topic, message = self._topics.record_by(sent.recorder, sent.outbox.source, about.wire), b""
        while True:
            left = len(batch)
            try:
                for message in in_parts(batch, sent.outbox.outbox, self._sizes.largest(now)):
                    left -= body_bytes(message)
                    receipt = self._link.publish(topic, message, timeout_s=_SEND_S)
                    part = sent._replace(size=len(message), is_end=not left)
                    receipt.when_done(partial(self._on_answer, part, receipt))
                return True
            except PayloadTooLarge:
                if not self._sizes.refused(len(message), now):
                    return False
            except PublishTimeout:
                return False
            except TransportError as error:
                logger.debug("a batch could not be sent: %s", error)
                return False

    def _send_probe(
        self, outbox: OutboxQueue, about: RecorderAbout, window: SendWindow, doubt: _Doubt, now: float
    ) -> None:
        if doubt.state is _State.PROBING or now < doubt.until:
            return
        doubt.state = _State.PROBING
        probe = self._pack(outbox, about, window, [])
        if not self._publish(probe, _Sent(outbox, about.name, window, window.attempt, 0, 0), about, now):
            doubt.state = _State.PROBE_IS_DUE

    def _note_silence(
        self, outbox: OutboxQueue, about: RecorderAbout, window: SendWindow, size: int, now: float
    ) -> None:
        """A broker that refuses nothing in words may drop what is too large: after a silence messages become
        smaller."""
        if self._link.transport.tells_size:
            return
        key, size = (outbox.outbox, about.name), min(size, self._sizes.largest(now))
        silences, largest = self._silences.get(key, (window.silences, 0))
        if window.silences > silences:
            self._sizes.refused(largest, now)
            largest = 0
        self._silences[key] = window.silences, max(largest, size)

    # -- the broker's answers

    def _on_answer(self, sent: _Sent, receipt: Receipt) -> None:
        """On the transport's thread, or where the receipt is settled at once."""
        self._answers.append((sent, receipt.error))
        if receipt.error is not None:
            self._refused = True
            self._wake()

    def take_answers(self, now: float) -> Iterator[RefusedValue]:
        """Take in the broker's answers. Yields the entries that are to be given up."""
        self._refused = False
        while self._answers:
            sent, error = self._answers.popleft()
            if error is None:
                yield from self._on_taken(sent, now)
            elif isinstance(error, PublishRefused | PayloadTooLarge):
                self._on_refused(sent, error, now)
            else:  # the connection was closed
                self._doubts.pop((sent.outbox.outbox, sent.recorder), None)

    def _on_taken(self, sent: _Sent, now: float) -> Iterator[RefusedValue]:
        self._sizes.passed(sent.size)
        sent.window.taken(now)
        if self.problems.pop(sent.recorder, None):
            logger.warning("the broker takes again what is sent to %s", sent.recorder)
        key = sent.outbox.outbox, sent.recorder
        doubt = self._doubts.get(key)
        if doubt is None:
            return
        if sent.first:
            if sent.is_end and sent.last >= doubt.last and sent.attempt == sent.window.attempt:
                del self._doubts[key]  # none of the suspects was refused again
        elif doubt.state is _State.PROBING:
            if doubt.alone:
                self._sizes.forget_refusals()
                doubt.state, doubt.alone = _State.ONE_BY_ONE, False
                yield RefusedValue(sent.outbox, doubt.refused.first, doubt.why)
            elif doubt.nothing_passed or self._sizes.refused(doubt.refused.size, now):
                del self._doubts[key]
            else:
                doubt.state = _State.ONE_BY_ONE

    def _on_refused(self, sent: _Sent, error: PublishRefused | PayloadTooLarge, now: float) -> None:
        key = sent.outbox.outbox, sent.recorder
        doubt = self._doubts.get(key)
        if not sent.first:
            if doubt is not None:
                doubt.state, doubt.nothing_passed, doubt.alone = _State.PROBE_IS_DUE, True, False
                doubt.until = now + doubt.pauses.next_s()
            why = f"the broker does not take what is sent to {sent.recorder}: {_words(error)}"
            if self.problems.get(sent.recorder) != why:
                logger.error("%s cannot save: %s It waits in the outbox, and is tried again.", sent.outbox.source, why)
            self.problems[sent.recorder] = why
            return
        smaller = isinstance(error, PayloadTooLarge) and self._sizes.refused(sent.size, now)
        if sent.attempt != sent.window.attempt:
            return  # it was sent again since
        sent.window.refused(now)
        if smaller:
            return
        if doubt is None:
            self._doubts[key] = _Doubt(sent, _words(error))
        else:
            doubt.alone = doubt.state is _State.ONE_BY_ONE
            doubt.state, doubt.until, doubt.refused, doubt.why = _State.PROBE_IS_DUE, 0.0, sent, _words(error)


def _split(outbox: OutboxQueue, number: int) -> bool:
    """Give each entry of a row a row of its own; False where the disk does not take that now."""
    try:
        outbox.split(number)
    except OutboxFailed as error:
        logger.debug("%s", error)
        return False
    return True


def _words(error: PublishRefused | PayloadTooLarge) -> str:
    return f"{error.why}. {error.advice}" if isinstance(error, PublishRefused) else str(error)
