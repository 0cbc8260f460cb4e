"""Waiting for a message that meets a condition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ether.connection.deadline import Deadline
from ether.errors import ConditionNotMet
from ether.session.client import Client


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
