"""The part of the front door that says what a value is made of: `made_of`, `message`, `inputs`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeVar

from ether.errors import NotAnInput

if TYPE_CHECKING:
    from ether.ledger.reader import StoredRecord
    from ether.session.client import Client, Message

T = TypeVar("T")


class Making(ABC):
    """What a value is made of, where the code knows it."""

    _client: Client | None

    @abstractmethod
    def _joined(self, call: str) -> Client:
        """The access to the session. Raises `NotJoined`, which names the call."""

    def made_of(self, value: T, inputs: Any) -> T:
        """Say what a value is made of, and get the value back: `return ether.made_of(mean(values), ids)`.

        `inputs` is what `ether.inputs()` has collected, or a list of ids, of messages (`ether.message()`, those of a
        subscription) and of records (`ether.data()`), mixed as you like; a single one will do. The value that is then
        returned by a method, given to `ether.pub()` or to `ether.record()`, if it is this very object, has exactly
        these as its parents: `ether why` says that it was made of them. Call it last: a value that is converted
        afterwards is another object.

        Without a session it returns the value, and does nothing else. Raises `NotAnInput` for an input that has no id.
        """
        given = [inputs] if isinstance(inputs, str) or not isinstance(inputs, Iterable) else inputs
        ids = tuple(dict.fromkeys(map(_id_of, given)))
        if self._client is not None:
            from ether.connection.inputs import name_parents

            name_parents(value, ids)
        return value

    def message(self) -> Message | None:
        """Inside of a method: the message that it is handling, with `topic`, `value`, `id`, `source`, `time` and
        `parents`. Of a call, the topic is `instance.method`, and there is no value; a
        call from the same process has no id either. None outside of a handler, and in
        a method that is called by the clock or without Ether."""
        if self._client is None:
            return None
        from ether.session.client import message_in_work

        return message_in_work(self._client.topics)

    def inputs(self) -> AbstractContextManager[list[str]]:
        """Collect the ids of what this program is handed, for `made_of`:

            with ether.inputs() as ids:
                reads = [ether.get("reader", "read", {"well": well}) for well in wells]
            ether.record(ether.made_of(fit(reads), ids), "k")

        Counted are, on this thread, answers to calls, messages of subscriptions and of `ether.wait_for()`, and records
        that are read from `ether.data()`. Without a session the list stays empty.
        """
        from ether.connection.inputs import collecting

        return collecting()

    def _on_read(self) -> Callable[[StoredRecord], object] | None:
        """Notes a record that this program reads; None without a session."""
        client = self._client
        if client is None:
            return None
        from ether.connection.input_rules import Input

        def note(stored: StoredRecord) -> None:
            topic = client.topics.data(stored.topic) if stored.kind == "data" else stored.topic
            client.link.inputs.give(Input(stored.kind, topic, stored.source, stored.seq, stored.id))

        return note


def _id_of(given: object) -> str:
    """The id of an input: of a text the text itself."""
    found = given if isinstance(given, str) else getattr(given, "id", None)
    if isinstance(found, str) and found:
        return found
    raise NotAnInput(given)
