"""What holds a run up: somebody's wish to pause, and conditions on topics (an open door, a beam that is off).

Promises: `pass_through()` returns when nothing holds the run up, and says for how long something did. A condition that
fails to say (it raised) holds the run up, too, and is logged. Users' conditions run on threads of their own.

The trap: a topic is not known before its first message. Until then its condition holds nothing up.
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
_LOOK_S = 0.5
_JOIN_S = 5.0

Condition = Callable[[Any], object]


class Interlock:
    """Closed as long as there is a reason."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._reasons: dict[str, str] = {}
        self._watches: list[tuple[Subscription, threading.Thread]] = []

    # -- reasons

    def close(self, key: str, why: str) -> None:
        """Hold the run up. `key` names the reason; twice is fine."""
        with self._changed:
            self._reasons[key] = why
            self._changed.notify_all()

    def open(self, key: str) -> None:
        """The reason is gone. Twice is fine."""
        with self._changed:
            self._reasons.pop(key, None)
            self._changed.notify_all()

    @property
    def why(self) -> str:
        """What holds the run up, "" where nothing does."""
        with self._changed:
            return "; ".join(self._reasons.values())

    def pass_through(self, suspended: Callable[[str], object], goes_on: Callable[[float], object]) -> float:
        """Return when nothing holds the run up; how long it took in seconds. `suspended` is called with the reason
        where it has to wait, `goes_on` with the seconds when that is over."""
        why = self.why
        if not why:
            return 0.0
        began = time.monotonic()
        suspended(why)
        with self._changed:
            while self._reasons:
                self._changed.wait(_LOOK_S)  # in pieces, so that Ctrl-C is heard on every system
        waited_s = time.monotonic() - began
        goes_on(waited_s)
        return waited_s

    # -- conditions on topics

    def watch(self, client: Client, conditions: Mapping[str, object]) -> None:
        """From now on, each topic's condition decides with every message. What cannot be called is a value: that the
        message has that value."""
        for topic, condition in conditions.items():
            subscription = client.subscribe(topic)
            decides = condition if callable(condition) else _equals(condition)
            thread = threading.Thread(
                target=self._follow, args=(subscription, topic, decides), name=f"ether-suspend-{topic}", daemon=True
            )
            self._watches.append((subscription, thread))
            thread.start()

    def end(self) -> None:
        """Watch no more. Twice is fine."""
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
        except Exception as error:
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
    """The value of the first message on a topic, from now on, that meets the condition. Raises `ConditionNotMet`."""
    deadline = Deadline(timeout_s)
    heard, last = 0, None
    with client.subscribe(topic) as messages:
        while True:
            try:
                message = messages.get(timeout_s=deadline.left())
            except TimeoutError:
                raise ConditionNotMet(topic, timeout_s, heard, last) from None
            heard, last = heard + 1, message.value
            if condition is None or _meets(condition, message.topic, last):
                return last


def _meets(condition: Callable[[Any], object], topic: str, value: object) -> bool:
    try:
        return bool(condition(value))
    except Exception as error:
        error.add_note(f"while ether.wait_for() looked at the message on {topic!r}: {value!r:.200}")
        raise
