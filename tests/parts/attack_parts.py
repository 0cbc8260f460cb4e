"""What the attacks share: a session that is attacked, and somebody in it who means harm: plain paho, no Ether.

The table of docs/security.md is made from the tests of tests/attacks, each of which says by the mark `attack` which row
it is (`python tests/attacks/attack_table.py --write`).
"""

from __future__ import annotations

import json
import os
import queue
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from patience import patience
from running_brokers import RunningBroker, running_broker, soon

from ether import Ether, ether, ether_get, ether_pub, ether_save, ether_sub
from ether.wire.envelope import EnvelopeV311
from ether.wire.head import Headers

SESSION = "bench"
PREFIX = f"ether/1/{SESSION}/"


class Sensor:
    """What is attacked: answers, hears, publishes and saves."""

    @ether_get
    def read(self, x: int = 0) -> int:
        return x + 1

    @ether_save
    def store(self, x: int) -> int:
        return x

    @ether_pub(topic="temperature", save=True)
    def measure(self, celsius: float) -> dict[str, float]:
        return {"celsius": celsius}

    @ether_sub(topic="wanted")
    def wanted(self, celsius: float) -> None:
        self.measure(celsius)

    @ether_get
    def slow(self, seconds: float) -> str:
        threading.Event().wait(seconds)
        return "true"

    @ether_get
    def hold(self, path: str) -> str:
        """Answer when there is such a file."""
        soon(lambda: os.path.exists(path), 30)
        return "true"

    @ether_get
    def record(self, value: int) -> str:
        """Save a value; its id, when it is on disk."""
        saved = ether.record(value, "probed")
        saved.wait(patience(20))
        return saved.id

    @ether_get
    def begin_records(self, count: int) -> int:
        """Save values, without waiting until they are on disk."""
        for number in range(count):
            ether.record(number, "counted")
        return count

    def shell(self, command: str) -> str:
        """Not marked: no program may call it."""
        return os.popen(command).read()


class Target(NamedTuple):
    """A session that is attacked."""

    broker: RunningBroker
    own: Ether
    ledger: Path

    def lives(self) -> bool:
        """Whether the sensor answers as ever."""
        return bool(self.own.get("sensor", "read", {"x": 1}, timeout_s=patience(10)) == 2)


@contextmanager
def target(engine: str, folder: Path, settings: Mapping[str, Any] | None = None, **more: Any) -> Iterator[Target]:
    """The session `bench`, with the instance `sensor`, recorded, on a broker of that engine with these settings."""
    with running_broker(engine, **(settings or {})) as broker:
        own = Ether()
        ledger = folder / "ledger"
        config = {
            "session": SESSION,
            "broker": broker.url_tcp,
            "record": {"topics": "all", "folder": str(ledger)},
            "instances": {"sensor": {"class_path": "attack_parts.Sensor"}},
            **more,
        }
        own.tap(config, timeout_s=patience(30))
        try:
            yield Target(broker, own, ledger)
        finally:
            own.shutdown()


class Attacker:
    """A member that means harm; a context manager. It has the session's password and hears everything."""

    def __init__(
        self, broker: RunningBroker, *, protocol: int = 5, user: str = "", password: str = "", hears: str = "ether/#",
        client_id: str = "", will: str = "",
    ) -> None:  # fmt: skip
        self._version = MQTTProtocolVersion.MQTTv5 if protocol == 5 else MQTTProtocolVersion.MQTTv311
        self._client = Client(
            CallbackAPIVersion.VERSION2, client_id, protocol=self._version, reconnect_on_failure=False
        )
        self.mark = uuid.uuid4().hex
        """What its will says: made now, since a text of the source stands in what a recorder keeps of changed code."""
        if will:
            self._client.will_set(will, json.dumps({"name": self.mark}).encode(), 1, retain=True)
        self._client.username_pw_set(user or broker.username, password or broker.password)
        self._client.on_message = self._on_message
        self._subscribed = threading.Event()
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._ended = threading.Event()
        self._client.on_disconnect = lambda *_: self._ended.set()
        self._address, self._hears = (broker.host, broker.port), hears
        self.heard: queue.SimpleQueue[MQTTMessage] = queue.SimpleQueue()

    def __enter__(self) -> Attacker:
        try:
            self._client.connect(*self._address)
            self._client.loop_start()
            self._client.subscribe(self._hears, 1)
            assert self._subscribed.wait(patience(10)), "the attacker is not let in"
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._ended.wait(patience(5))
        self._leave()

    def _leave(self) -> None:
        self._client.loop_stop()
        if (left := self._client.socket()) is not None:  # its thread ended before it had closed it
            left.close()
        self._client._reset_sockets(sockpair_only=True)  # type: ignore[no-untyped-call, unused-ignore]

    def _on_message(self, client: Client, userdata: object, message: MQTTMessage) -> None:
        self.heard.put(message)

    def send(
        self, topic: str, value: object, *, response: str | None = None, data: bytes | None = None,
        retain: bool = False, **head: Any,
    ) -> None:  # fmt: skip
        """Publish below the session's root: see `publish`."""
        self.publish(PREFIX + topic, value, response=response, data=data, retain=retain, **head)

    def say_raw(self, topic: str, body: bytes, *, alias: int | None = None, retain: bool = False) -> ReasonCode | None:
        """Publish over MQTT 5 with a topic alias; the broker's reason, None where it gave none in time."""
        given = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if alias is not None:
            given.TopicAlias = alias
        answered, reasons = threading.Event(), list[ReasonCode]()

        def on_publish(client: Client, userdata: object, mid: int, reason: ReasonCode, properties: object) -> None:
            reasons.append(reason)
            answered.set()

        self._client.on_publish = on_publish
        self._client.publish(topic, body, 1, retain, given)
        answered.wait(patience(5))
        return reasons[-1] if reasons else None

    @property
    def is_out(self) -> bool:
        """Whether the broker has ended its connection."""
        return self._ended.is_set()

    def drop(self) -> None:
        """Lose the connection without a word, so that the broker publishes the will."""
        if (left := self._client.socket()) is not None:
            left.shutdown(socket.SHUT_RDWR)
        self._ended.wait(patience(5))

    def publish(
        self, topic: str, value: object, *, response: str | None = None, data: bytes | None = None,
        retain: bool = False, **head: Any,
    ) -> None:  # fmt: skip
        """Publish, with headers of Ether's in the body where `head` names any; returns when
        the broker has taken it."""
        given = None
        if response is not None or data is not None:
            given = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            if response is not None:
                given.ResponseTopic = response
            if data is not None:
                given.CorrelationData = data
        if head and isinstance(value, dict):
            value = {**value, "_ether": {**forged_head(), **head}}
        body = value if isinstance(value, bytes) else b"" if value is None else json.dumps(value).encode()
        said = self._client.publish(topic, body, 1, retain, given)
        said.wait_for_publish(patience(10))

    def send_batch(self, topic: str, batch: bytes) -> None:
        """Publish a batch of entries as Ether does over MQTT 3.1.1, with the headers in the body."""
        head, envelope = forged_head(), EnvelopeV311()
        headers = Headers(head["id"], head["source"], 1, time.time(), ())
        packed = envelope.pack(envelope.prepare(batch), headers)
        self._client.publish(PREFIX + topic, packed.payload, 1).wait_for_publish(patience(10))

    def wait_for(self, wanted: Callable[[MQTTMessage], Any], timeout_s: float = 10.0) -> Any:
        """What `wanted` makes of the first message that it wants."""
        deadline = time.monotonic() + patience(timeout_s)
        while (left := deadline - time.monotonic()) > 0:
            try:
                message = self.heard.get(timeout=left)
            except queue.Empty:
                break
            if found := wanted(message):
                return found
        raise AssertionError("nothing of the kind was heard")

    def about(self, member: str) -> dict[str, Any]:
        """What is announced of a member."""

        def wanted(message: MQTTMessage) -> Any:
            if message.topic != f"{PREFIX}state/{member}" or not message.payload:
                return None
            value = json.loads(message.payload)
            return value if "state" in value else None

        found: dict[str, Any] = self.wait_for(wanted)
        return found


def forged_head(source: str = "evil") -> dict[str, Any]:
    """The headers that every message of Ether's has."""
    return {"id": str(uuid.uuid4()), "source": source, "seq": 1, "time": time.time()}


def batch_opening(payload: bytes) -> tuple[str, str, int, int] | None:
    """Outbox, source, highest number and the number before the first one, of a batch; None for anything else."""
    begin = payload.find(b'["', payload.find(b"EB2"))
    if b"EB2" not in payload or begin < 0:
        return None
    outbox, source, head, base = json.loads(payload[begin : payload.index(b"]", begin) + 1])[:4]
    return str(outbox), str(source), int(head), int(base)
