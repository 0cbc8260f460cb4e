"""Names and topics: which names are valid, and where each topic stands in the broker's tree.

Promises: a name that passed its check can be published to and subscribed to on every broker that Ether supports,
without the broker closing the connection because of it. `SessionTopics` only joins strings: it is used for every
message, and trusts that its arguments were checked once, when they entered the program.

The trap: a user's topic and an MQTT topic are different things, and both are `str`. User topics (`data`,
`mqtt:plant/temp`) are what users write; MQTT topics (`ether/1/bench/data/data`, `plant/temp`) are what a broker sees.
`SessionTopics.data()` and `SessionTopics.user_topic()` are the only ways from one to the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ether.config.names import check_name
from ether.errors import InvalidName
from ether.system.machine_mark import NAMED
from ether.version import WIRE
from ether.wire.head import is_mqtt_text

ROOT = "ether/1/"
"""The beginning of every topic of every session; the number is the version of the wire format."""

OUTSIDE = "mqtt:"
"""The beginning of a user's topic that names a topic outside Ether's root."""

TOPIC_MAX_BYTES = 1024
TOPIC_MAX_LEVELS = 64
MQTT_MAX_BYTES = 65_535
# Mosquitto closes the connection of a client that uses a topic with more levels.
MQTT_MAX_LEVELS = 200


def check_session_name(name: str) -> str:
    """The name itself, if it is a valid name of a session; raises `InvalidName`."""
    return check_name("session", name)


def check_instance_name(name: str) -> str:
    """The name itself, if it is a valid name of an instance; raises `InvalidName`."""
    return check_name("instance", name)


def check_topic(topic: str) -> str:
    """The user's topic itself, if it can be published on; raises `InvalidName`.

    `a/b` lies inside the session; `mqtt:a/b` is the broker's topic `a/b`.
    """
    mqtt_topic = _outside(topic)
    if mqtt_topic is None:
        _check_inside("topic", topic, topic.split("/"))
    else:
        _check_outside("topic", topic, mqtt_topic)
        _check_publishable(topic, mqtt_topic)
    if "+" in topic or "#" in topic:
        raise InvalidName("topic", topic, "wildcards (+ and #) are for subscribing, not for publishing")
    return topic


def check_topic_filter(topic_filter: str) -> str:
    """The user's filter itself, if it can be subscribed to; raises `InvalidName`.

    `+` stands for one whole level, `#` for all levels that follow and only at the end.
    """
    mqtt_filter = _outside(topic_filter)
    levels = (topic_filter if mqtt_filter is None else mqtt_filter).split("/")
    if mqtt_filter is None:
        _check_inside("topic filter", topic_filter, levels)
    else:
        _check_outside("topic filter", topic_filter, mqtt_filter)
        if levels[0] == "$share":
            raise InvalidName("topic filter", topic_filter, "shared subscriptions ($share/…) are not supported")
    _check_wildcards(topic_filter, levels)
    return topic_filter


def _outside(topic: str) -> str | None:
    """The MQTT topic that a user's topic names, or None where it lies inside the session."""
    if not isinstance(topic, str):
        raise InvalidName("topic", topic, "it must be text")
    return topic[len(OUTSIDE) :] if topic.startswith(OUTSIDE) else None


def _check_text(kind: str, name: str, text: str, max_bytes: int) -> None:
    if not text or not is_mqtt_text(text):
        raise InvalidName(kind, name, "it needs at least one character, and none of them a control character")
    if len(text.encode()) > max_bytes:
        raise InvalidName(kind, name, f"it may have at most {max_bytes:,} bytes as UTF-8")


def _check_inside(kind: str, topic: str, levels: list[str]) -> None:
    _check_text(kind, topic, topic, TOPIC_MAX_BYTES)
    if "" in levels:
        raise InvalidName(kind, topic, "no level may be empty: no / at either end, and no //")
    if len(levels) > TOPIC_MAX_LEVELS:
        raise InvalidName(kind, topic, f"it may have at most {TOPIC_MAX_LEVELS} levels")
    if topic[0] == "$":
        raise InvalidName(kind, topic, f"it may not begin with $; the broker's own topics are {OUTSIDE}$SYS/…")
    if topic != topic.strip():
        raise InvalidName(kind, topic, "no space at either end")


def _check_outside(kind: str, topic: str, mqtt_topic: str) -> None:
    _check_text(kind, topic, mqtt_topic, MQTT_MAX_BYTES)
    if mqtt_topic.count("/") >= MQTT_MAX_LEVELS:
        raise InvalidName(kind, topic, f"it may have at most {MQTT_MAX_LEVELS} levels")


def _check_publishable(topic: str, mqtt_topic: str) -> None:
    if mqtt_topic[0] == "$":
        raise InvalidName("topic", topic, "topics that begin with $ belong to the broker")
    if (mqtt_topic + "/").startswith(ROOT) and mqtt_topic.split("/")[3:4] != ["data"]:
        raise InvalidName("topic", topic, f"under {ROOT}<session>/ only data/… is open to users")


def _check_wildcards(topic_filter: str, levels: list[str]) -> None:
    for level in levels:
        if len(level) > 1 and ("+" in level or "#" in level):
            raise InvalidName("topic filter", topic_filter, "+ and # must stand alone between slashes")
    if "#" in levels[:-1]:
        raise InvalidName("topic filter", topic_filter, "# must be the last level")


@dataclass(frozen=True, slots=True)
class SessionTopics:
    """The MQTT topics of one session. Raises `InvalidName` for the session's name; the arguments of its methods must
    have been checked before. `"+"` in place of a name makes a filter: `state("+")`."""

    session: str
    _prefix: str = field(init=False, repr=False, compare=False)
    _data: str = field(init=False, repr=False, compare=False)
    _state: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        prefix = f"{ROOT}{check_session_name(self.session)}/"
        object.__setattr__(self, "_prefix", prefix)
        object.__setattr__(self, "_data", prefix + "data/")
        object.__setattr__(self, "_state", prefix + "state/")

    @property
    def session_info(self) -> str:
        """Retained: who leads the session, where, since when, which version."""
        return self._prefix + "session"

    @property
    def run(self) -> str:
        """Retained: which named run is going on, and which of its trials."""
        return self._prefix + "run"

    def state(self, instance: str) -> str:
        """Retained: an instance's announcement."""
        return self._state + instance

    def data(self, topic: str) -> str:
        """The MQTT topic of a user's topic; `mqtt:` is resolved."""
        return topic[len(OUTSIDE) :] if topic.startswith(OUTSIDE) else self._data + topic

    def data_filter(self, topic_filter: str) -> str:
        """The MQTT filter of a user's filter; `mqtt:` is resolved."""
        return self.data(topic_filter)

    def call(self, instance: str, method: str) -> str:
        """Requests to one method of an instance."""
        return f"{self._prefix}call/{instance}/{method}"

    def reply(self, client: str) -> str:
        """Answers to one client."""
        return f"{self._prefix}reply/{client}"

    def answers(self, reply_topic: str) -> str:
        """The filter of all answers to the program with this reply topic."""
        return f"{reply_topic}/#"

    def answered_by(self, mqtt_topic: str) -> str | None:
        """Who answers on this topic; None where it does not say so, as that of a program of the wire's version 1."""
        return mqtt_topic[len(self._prefix) :].partition("/")[2].partition("/")[2] or None

    def log(self, instance: str) -> str:
        """An instance's log records."""
        return f"{self._prefix}log/{instance}"

    def heartbeat(self, instance: str) -> str:
        """An instance's heartbeats; not retained."""
        return f"{self._state}{instance}/pulse"

    def health(self, agent: str) -> str:
        """Retained: the health of an agent's machine."""
        return f"{self._state}{agent}/health"

    def instance_of_heartbeat(self, mqtt_topic: str) -> str:
        """The instance whose heartbeats this topic carries."""
        return mqtt_topic.removeprefix(self._state).removesuffix("/pulse")

    def record(self, recorder: str) -> str:
        """Batches of entries for a recorder."""
        return f"{self._prefix}record/{recorder}"

    def record_by(self, recorder: str, source: str, wire: int = WIRE) -> str:
        """Batches of one source for a recorder that speaks this version of the wire. `about` is taken by the recorder's
        description."""
        named = wire >= WIRE and source != "about"
        return f"{self._prefix}record/{recorder}/{source}" if named else self.record(recorder)

    def recorded_by(self, mqtt_topic: str) -> str | None:
        """The source whose batches this topic carries; None where it names none."""
        return mqtt_topic[len(self._prefix) :].partition("/")[2].partition("/")[2] or None

    def recorder(self, name: str) -> str:
        """Retained: the description of a recorder, its incarnation, and which topics it records."""
        return f"{self._prefix}record/{name}/about"

    def recorder_of(self, mqtt_topic: str) -> str:
        """The recorder whose description this topic carries."""
        return mqtt_topic.removeprefix(f"{self._prefix}record/").removesuffix("/about")

    def ack(self, outbox: str) -> str:
        """Recorders' receipts for one outbox, as in version 1 of the wire."""
        return f"{self._prefix}ack/{outbox}"

    def ack_by(self, outbox: str, recorder: str) -> str:
        """Receipts of one recorder for one outbox."""
        return f"{self._prefix}ack/{outbox}/{recorder}"

    def acks(self, outbox: str) -> str:
        """The filter of all receipts for one outbox."""
        return f"{self._prefix}ack/{outbox}/#"

    def acknowledged_by(self, mqtt_topic: str) -> str | None:
        """The recorder whose receipts this topic carries; None where it names none."""
        return mqtt_topic[len(self._prefix) :].partition("/")[2].partition("/")[2] or None

    def retained_of(self, member: str) -> tuple[str, str, str]:
        """Every topic on which a message of a member is retained: its announcement, and what is only valid with it (the
        health of an agent's machine, a recorder's description)."""
        return self.state(member), self.health(member), self.recorder(member)

    def control(self, verb: str) -> str:
        """The session's own commands."""
        return f"{self._prefix}control/{verb}"

    def control_by(self, verb: str, by: str) -> str:
        """A command that `by` gives."""
        return f"{self._prefix}control/{verb}/{by}"

    def control_to(self, verb: str, by: str, to: str) -> str:
        """A command that `by` gives, which `to` alone may hear: it holds a secret."""
        return f"{self._prefix}control/{verb}/{by}/{to}"

    def commanded(self, mqtt_topic: str) -> tuple[str, str | None]:
        """The verb of a command on this topic, and who gives it; None where the topic does not say, as in version 1."""
        verb, _, rest = mqtt_topic[len(self._prefix) :].partition("/")[2].partition("/")
        return verb, rest.partition("/")[0] or None

    @property
    def leader_probe(self) -> str:
        """A message on it asks the program that leads the session to publish the session's entry again. It has one
        level more than a verb, so that only a leader subscribes to it, and no instance's `control/+`."""
        return f"{self._prefix}control/leader/probe"

    def missed(self, whom: str) -> str:
        """Messages that a receiver missed: to one process by its node, or to `all`."""
        return f"{self._prefix}control/missed/{whom}"

    def member_of(self, mqtt_topic: str) -> str | None:
        """The member without which a retained message on this topic is not valid: the inverse of `retained_of`. None
        for the session's own topics (`session`, `run`) and for all others."""
        plane, _, rest = mqtt_topic.removeprefix(self._prefix).partition("/")
        member, _, last = rest.partition("/")
        expected = {"state": ("", "health"), "record": ("about",)}.get(plane, ())
        return member if member and last in expected else None

    def user_topic(self, mqtt_topic: str) -> str:
        """A user's name for an MQTT topic: the inverse of `data()`."""
        if mqtt_topic.startswith(self._data):
            return mqtt_topic[len(self._data) :]
        return OUTSIDE + mqtt_topic

    def instance_of_state(self, mqtt_topic: str) -> str | None:
        """The instance whose announcement this topic carries; None where it carries none."""
        instance = mqtt_topic.removeprefix(self._state)
        return None if instance == mqtt_topic or not instance or "/" in instance else instance


def is_data(mqtt_topic: str) -> bool:
    """True for a topic, or filter, of the data plane: of users' messages, inside a session or outside Ether's root."""
    return not mqtt_topic.startswith(ROOT) or mqtt_topic.split("/")[3:4] == ["data"]


_IN_LINE = frozenset({"missed", "trial"})
"""The control verbs that mean something about the data before them: which of them came, which trial they belong to."""


def is_urgent(mqtt_topic: str) -> bool:
    """True for a topic whose messages do not wait behind data: calls, answers, and control messages except those that
    stand in line with data."""
    if not mqtt_topic.startswith(ROOT):
        return False
    plane, _, rest = mqtt_topic[len(ROOT) :].partition("/")[2].partition("/")
    return plane in ("call", "reply") or (plane == "control" and rest.partition("/")[0] not in _IN_LINE)


def answer_topic(reply_to: str, by: str) -> str:
    """Where `by` answers a request of Ether's: below the topic that it names, on a level that says who answers."""
    return f"{reply_to}/{by}" if reply_to.endswith(NAMED) else reply_to


def may_be_answered(request_topic: str, reply_to: str, *, stranger: bool) -> bool:
    """Whether the answer to a request may go to that topic. A request chooses where its answer goes, and the answer is
    published with the rights of who answers: it would be anybody's command to the control plane. So an answer goes to
    `reply/<client>` of the request's own session alone; one to a `stranger`, whose request has no headers of Ether's,
    to nothing under Ether's root."""
    if stranger:
        return not reply_to.startswith(("ether/", "$"))
    begin = f"{request_topic[: request_topic.find('/', len(ROOT)) + 1]}reply/"
    return reply_to.startswith(begin) and len(reply_to) > len(begin) and "/" not in reply_to[len(begin) :]


def is_event(mqtt_topic: str) -> bool:
    """True for a topic, or filter, of a plane on which each message is an event: a command, an answer, a log record, a
    sign of life, a batch. It counts when it is sent, so nobody retains it. Ether retains only announcements."""
    if not mqtt_topic.startswith(ROOT):
        return False
    match mqtt_topic.split("/")[3:]:
        case ["data", *_] | ["session"] | ["run"] | ["state", _] | ["state", _, "health"] | ["record", _, "about"]:
            return False
    return True


def matches(topic_filter: str, topic: str) -> bool:
    """True if a subscription to `topic_filter` covers `topic`: MQTT 5 section 4.7, both in full MQTT form."""
    if topic[:1] == "$" and topic_filter[:1] in ("+", "#"):
        return False
    wanted, given = topic_filter.split("/"), topic.split("/")
    if wanted[-1] == "#":
        wanted.pop()
        given = given[: len(wanted)]
    return len(wanted) == len(given) and all(
        level in ("+", actual) for level, actual in zip(wanted, given, strict=True)
    )
