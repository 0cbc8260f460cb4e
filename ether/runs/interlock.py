"""The interlock of a run: holds it up while it is paused, or while a condition on a topic holds (a door is open, a beam
is off). Also `wait_for`, which waits once for a condition on a topic.

Promises: `pass_through()` returns when nothing holds the run up, with the seconds that it has waited. A condition that
raises an exception holds the run up, too, and is logged. Users' conditions run on threads of their own.

The trap: the value of a topic is not known before its first message. Until then, its condition does not hold.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from ether.connection.deadline import Deadline
from ether.errors import ConditionNotMet, EtherError
from ether.log import get_ether_logger
from ether.session.client import Client, Subscription

logger = get_ether_logger("Ether")

PAUSED = "paused"
_WAIT_PIECE_S = 0.5
_JOIN_S = 5.0

Condition = Callable[[Any], object]


class Interlock:
    """Closed as long as there is at least one reason."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._reasons: dict[str, str] = {}
        self._released = False
        self._watches: list[tuple[Subscription, threading.Thread]] = []

    # -- reasons

    def close(self, key: str, why: str) -> None:
        """Add a reason to hold the run up, under a key. A second call with the same key replaces the text."""
        with self._changed:
            self._reasons[key] = why
            self._changed.notify_all()

    def open(self, key: str) -> None:
        """Remove the reason with this key, if there is one."""
        with self._changed:
            self._reasons.pop(key, None)
            self._changed.notify_all()

    def release(self) -> None:
        """Hold nobody up any more, whatever the reasons: the run is to end."""
        with self._changed:
            self._released = True
            self._changed.notify_all()

    @property
    def why(self) -> str:
        """All present reasons; "" where there is none."""
        with self._changed:
            return "; ".join(self._reasons.values())

    def pass_through(self, suspended: Callable[[str], object], goes_on: Callable[[float], object]) -> float:
        """Wait until there is no reason, and return the seconds that this took. Where it has to wait, `suspended` is
        called with the reasons before, and `goes_on` with the seconds after."""
        why = self.why
        if not why:
            return 0.0
        began = time.monotonic()
        suspended(why)
        with self._changed:
            while self._reasons and not self._released:
                self._changed.wait(_WAIT_PIECE_S)  # in pieces, because on Windows Ctrl-C does not end a longer wait
        waited_s = time.monotonic() - began
        goes_on(waited_s)
        return waited_s

    # -- conditions on topics

    def watch(self, client: Client, conditions: Mapping[str, object]) -> None:
        """Evaluate each topic's condition with every message from now on. A condition is a function of the message's
        value, or a value: then it holds while the message equals it."""
        for topic, condition in conditions.items():
            subscription = client.subscribe(topic)
            holds = condition if callable(condition) else _equals(condition)
            thread = threading.Thread(
                target=self._follow, args=(subscription, topic, holds), name=f"ether-suspend-{topic}", daemon=True
            )
            self._watches.append((subscription, thread))
            thread.start()

    def end(self) -> None:
        """Stop watching topics. May be called twice."""
        watches, self._watches = self._watches, []
        for subscription, _ in watches:
            try:
                subscription.close()
            except EtherError as error:
                logger.debug("a condition's topic could not be left: %s", error)
        for _, thread in watches:
            thread.join(_JOIN_S)

    def _follow(self, subscription: Subscription, topic: str, condition: Condition) -> None:
        while True:
            try:
                message = subscription.get(timeout_s=None)
            except EOFError:
                return
            except EtherError as error:
                logger.warning(
                    "a message on %r cannot be read; the run's condition on it stays as it is: %s", topic, error
                )
                continue
            self._decide(topic, condition, message.value)

    def _decide(self, topic: str, condition: Condition, value: object) -> None:
        try:
            holds_up = bool(condition(value))
        except Exception as error:  # the user's function: without an answer, the safe side is to wait
            logger.exception("the condition on %r cannot say whether the run may go on; it waits", topic)
            self.close(topic, f"the condition on {topic!r} failed for {value!r:.100}: {error}")
            return
        if holds_up:
            self.close(topic, f"{topic} is {value!r:.100}")
        else:
            self.open(topic)


def _equals(wanted: object) -> Condition:
    return lambda value: value == wanted


def wait_for(client: Client, topic: str, condition: Callable[[Any], object] | None, timeout_s: float) -> Any:
    """Wait for the first message on a topic whose value meets the condition, and return the value. Only messages from
    now on count; without a condition the first one does. Raises `ConditionNotMet` after `timeout_s` seconds, and
    whatever the condition raises."""
    deadline = Deadline(timeout_s)
    count, last = 0, None
    with client.subscribe(topic, is_input=False) as messages:  # only the one that is returned is an input
        client.topic_check.heard(topic)
        while True:
            try:
                message = messages.get(timeout_s=deadline.left())
            except TimeoutError:
                typo = None if count else client.topic_check.unpublished(topic)
                raise ConditionNotMet(topic, timeout_s, count, last, typo.nearest if typo else None) from None
            count, last = count + 1, message.value
            if condition is None or _meets(condition, message.topic, last):
                client.give(message)
                return last


def _meets(condition: Callable[[Any], object], topic: str, value: object) -> bool:
    try:
        return bool(condition(value))
    except Exception as error:
        error.add_note(f"while ether.wait_for() looked at the message on {topic!r}: {value!r:.200}")
        raise
