"""A program in the session that means harm: plain paho, no Ether.

It has the session's own credentials, so the broker lets it read and write everything. What such an insider can do, and
nothing in the calls themselves can prevent:
- read requests and answers, and call any method as anybody may;
- answer a request in the place of its instance: it sees correlation id and reply topic of a request that is under way,
  and knows nothing less than the instance does. Whoever answers first, is believed;
- announce that an instance has died, as it can see its birth id, and so end the calls to it.
Against insiders there are credentials of their own and access control in the broker.

What it cannot do, and what it tries here without end: have a request executed twice by sending it again; have an answer
accepted without knowing the correlation id of a request that is under way (an invented, shortened, lengthened, empty or
missing one, or the one of a request that is over), or on any other topic than the asker's own (a guessed one, or the
one of another client); break a reader by what cannot be decoded.
"""

from __future__ import annotations

import json
import random
import secrets
import threading
import time
from collections import Counter, deque
from types import TracebackType
from typing import Any, NamedTuple

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions
from patience import patience
from running_brokers import RunningBroker

SUBSCRIBED_S = patience(5.0)
FORGED = {"call": "forged", "answer": "forged"}
_GARBAGE = [b"", b"\xff\xfe", b"{broken", b"[" * 3000, b'{"_ether": 3}', b"\x93junk"]
_GUESSED = ["main", "main-0000000000000000", "Tally", "tally0", "caller0"]
_KEPT = 5_000


class Seen(NamedTuple):
    """A request that somebody else made."""

    topic: str
    reply_to: str
    correlation: bytes
    at: float


class V5:
    """How it reads and forges with MQTT 5: in properties."""

    protocol = MQTTProtocolVersion.MQTTv5

    def request(self, message: MQTTMessage) -> Seen | None:
        given = message.properties
        if given is None or not hasattr(given, "ResponseTopic") or not hasattr(given, "CorrelationData"):
            return None
        return Seen(message.topic, given.ResponseTopic, given.CorrelationData, time.monotonic())

    def again(self, client: Client, message: MQTTMessage) -> None:
        given = message.properties
        if given is not None:  # as it is read, paho lists a property that it would not pack
            given.__dict__.pop("SubscriptionIdentifier", None)
        client.publish(message.topic, message.payload, qos=1, properties=given)

    def forge(self, client: Client, topic: str, correlation: bytes | None, source: str) -> None:
        given = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        given.ContentType = "application/json"
        given.UserProperty = [(key, str(value)) for key, value in _head(source).items()]
        if correlation is not None:
            given.CorrelationData = correlation
        client.publish(topic, json.dumps(FORGED), qos=1, properties=given)


class V311:
    """How it reads and forges with MQTT 3.1.1: in the body."""

    protocol = MQTTProtocolVersion.MQTTv311

    def request(self, message: MQTTMessage) -> Seen | None:
        try:
            head = json.loads(message.payload)["_ether"]
            return Seen(message.topic, head["reply_to"], bytes.fromhex(head["correlation"]), time.monotonic())
        except (ValueError, KeyError, TypeError, RecursionError):  # its own garbage among them
            return None

    def again(self, client: Client, message: MQTTMessage) -> None:
        client.publish(message.topic, message.payload, qos=1)

    def forge(self, client: Client, topic: str, correlation: bytes | None, source: str) -> None:
        head = _head(source)
        if correlation is not None:
            head["correlation"] = correlation.hex()
        client.publish(topic, json.dumps({**FORGED, "_ether": head}), qos=1)


def _head(source: str) -> dict[str, Any]:
    return {"id": secrets.token_hex(16), "source": source, "seq": 1, "time": time.time()}


class HostileClient:
    """A context manager; from its beginning to its end it attacks one session. `over_s`: after how many seconds every
    request is over, whatever became of it. `share`: of how many of the requests that it sees it makes something."""

    def __init__(self, broker: RunningBroker, session: str, *, over_s: float, share: float = 0.1) -> None:
        self.did: Counter[str] = Counter()
        self.failed: list[BaseException] = []
        self._prefix = f"ether/1/{session}/"
        self._over_s = over_s
        self._share = share
        self._speech = V5() if "5" in broker.protocols else V311()
        self._chance = random.Random(5)
        self._known: dict[bytes, None] = {}
        self._seen: deque[Seen] = deque(maxlen=_KEPT)
        self._subscribed = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=self._speech.protocol, reconnect_on_failure=False)
        self._client.username_pw_set(broker.username, broker.password)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._address = broker.host, broker.port

    def __enter__(self) -> HostileClient:
        assert self._client.connect(*self._address) == MQTTErrorCode.MQTT_ERR_SUCCESS
        self._client.loop_start()
        v5 = self._speech.protocol == MQTTProtocolVersion.MQTTv5
        wanted: dict[str, Any] = {"options": SubscribeOptions(qos=1, noLocal=True)} if v5 else {"qos": 1}
        self._client.subscribe(self._prefix + "#", **wanted)
        assert self._subscribed.wait(SUBSCRIBED_S)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self._client.on_message = None

    def _on_message(self, _client: Client, _userdata: object, message: MQTTMessage) -> None:
        if not message.topic.startswith(self._prefix + "call/") or self._chance.random() >= self._share:
            return
        try:
            request = self._speech.request(message)
            if request is not None and request.correlation not in self._known:
                self._attack(message, request)
        except Exception as error:
            self.failed.append(error)

    def _attack(self, message: MQTTMessage, request: Seen) -> None:
        self._remember(request)
        attack = self._chance.choice([self._again, self._wrong_id, self._wrong_topic, self._old_id, self._garbage])
        attack(message, request)
        self.did[attack.__name__.strip("_")] += 1

    def _remember(self, request: Seen) -> None:
        if len(self._known) >= 2 * _KEPT:
            self._known.clear()
        self._known[request.correlation] = None
        self._seen.append(request)

    def _again(self, message: MQTTMessage, request: Seen) -> None:
        for _ in range(2):
            self._speech.again(self._client, message)

    def _wrong_id(self, message: MQTTMessage, request: Seen) -> None:
        right = request.correlation
        flipped = bytes([right[0] ^ 1]) + right[1:]
        for wrong in (secrets.token_bytes(len(right)), right[:-1], right + b"\0", b"", None, flipped, b"echo"):
            self._forge(request.reply_to, wrong, request)

    def _wrong_topic(self, message: MQTTMessage, request: Seen) -> None:
        """The right id, where its asker does not listen."""
        others = {seen.reply_to for seen in self._seen} - {request.reply_to}
        guessed = [self._prefix + "reply/" + name for name in _GUESSED]
        for topic in (*others, *guessed, request.reply_to + "/more", request.reply_to + "x", request.topic):
            self._forge(topic, request.correlation, request)

    def _old_id(self, message: MQTTMessage, request: Seen) -> None:
        over = time.monotonic() - self._over_s
        while self._seen and self._seen[0].at < over:
            old = self._seen.popleft()
            self._forge(old.reply_to, old.correlation, old)

    def _garbage(self, message: MQTTMessage, request: Seen) -> None:
        for body in _GARBAGE:
            self._client.publish(request.reply_to, body, qos=1)
            self._client.publish(request.topic, body, qos=1)

    def _forge(self, topic: str, correlation: bytes | None, request: Seen) -> None:
        self._speech.forge(self._client, topic, correlation, request.topic.split("/")[-2])
