"""What was tried at a broker, and what was seen: values, without any judgement.

Times are in seconds. A probe that came to no end leaves `NotSeen` in place of its facts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ether.transport.bare import BrokerLimits


@dataclass(frozen=True, slots=True)
class NotSeen:
    """A probe without a result: the broker cut the connection at it (`cut`), or there was no time for it."""

    why: str
    cut: bool = False


@dataclass(frozen=True, slots=True)
class EntryFact:
    """An attempt to connect with one version of MQTT. `refusal` is empty where the broker accepted it."""

    version: str
    refusal: str = ""
    credentials: bool = False
    announced: BrokerLimits = field(default_factory=BrokerLimits)


@dataclass(frozen=True, slots=True)
class DistanceFact:
    """The least and the median round trip of a ping."""

    least_s: float
    median_s: float


@dataclass(frozen=True, slots=True)
class PlaneFact:
    """One of the planes of a session's topics: whether it may be subscribed to and published to.

    `granted` and `acknowledged` are the broker's codes, None where it gave none. `arrived` tells whether the message
    came back; None where none was sent. `cut`: the connection ended when this plane was tried. `needed`: without it
    no session is possible."""

    plane: str
    topic_filter: str
    topic: str = ""
    granted: int | None = None
    acknowledged: int | None = None
    arrived: bool | None = None
    cut: str = ""
    needed: bool = True


@dataclass(frozen=True, slots=True)
class RightsFact:
    """The planes of one session, named `session`. `runs`: that session runs already, so that nothing was published to
    the planes where somebody would hear it."""

    session: str
    planes: tuple[PlaneFact, ...]
    runs: bool = False


@dataclass(frozen=True, slots=True)
class RetainedFact:
    """Whether a retained message comes to a later subscription to its topic, and to one by wildcard. `acknowledged` is
    the broker's code; `cut` says how the connection ended at the message, where it did."""

    acknowledged: int | None
    by_topic: bool
    by_plus: bool
    by_hash: bool
    cleared: bool
    cut: str = ""


@dataclass(frozen=True, slots=True)
class PropertiesFact:
    """Which properties of a message did not come back as they were sent."""

    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ExpiryFact:
    """Whether the broker delivered a retained message whose expiry was over."""

    delivered_late: bool


@dataclass(frozen=True, slots=True)
class WildcardsFact:
    """How many copies of one message came to filters with `+` and `#`, and to two filters that overlap."""

    by_plus: int
    by_hash: int
    by_overlapping: int


@dataclass(frozen=True, slots=True)
class ManyFiltersFact:
    """How many subscriptions one connection asked for, and how many of them were granted."""

    asked: int
    granted: int


@dataclass(frozen=True, slots=True)
class SharedFact:
    """A shared subscription of two connections: the code of the SUBACK, and how many messages came of those sent."""

    granted: int | None
    sent: int
    arrived: int


@dataclass(frozen=True, slots=True)
class OrderFact:
    """Pairs of messages, to one topic and then to another: how many were sent, how many came, and how often the second
    one came first."""

    pairs: int
    arrived: int
    overtaken: int


@dataclass(frozen=True, slots=True)
class SmallWritesFact:
    """The median of a question and its answer between two connections at QoS 1: where this side acknowledges late, as
    systems do by default, and where it acknowledges at once (None where the system cannot be told, and where the first
    is no slower than the way)."""

    late_s: float
    at_once_s: float | None
    rounds: int


@dataclass(frozen=True, slots=True)
class BurstFact:
    """A burst to a receiver that does not read until all of it was sent. `in_order` is about what arrived. `whole`: the
    receiver was waited for until nothing came any more, so that what had not arrived then was lost."""

    sent: int
    acknowledged: int
    arrived: int
    twice: int
    in_order: bool
    reader_lost: str = ""
    whole: bool = True


@dataclass(frozen=True, slots=True)
class SizeFact:
    """The largest payload that came back, the smallest one that did not, and what happened to that one: `refused` (with
    the broker's words), `cut`, `dropped` (acknowledged, and never delivered), or nothing where all passed."""

    passed_bytes: int
    failed_bytes: int | None = None
    how: str = ""
    words: str = ""


@dataclass(frozen=True, slots=True)
class TopicNamesFact:
    """Which kinds of topic names did not work, and what happened to each."""

    tried: tuple[str, ...]
    failed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class WillFact:
    """Seconds from the end of a connection to its will; None where the will did not come."""

    after_s: float | None


@dataclass(frozen=True, slots=True)
class ProbeFacts:
    """Everything that was seen at one broker. `unreachable` says in words why nothing was."""

    address: str
    unreachable: str = ""
    entries: tuple[EntryFact, ...] = ()
    software: str = ""
    """What it says of itself under `$SYS/broker/version`; empty where it says nothing."""
    probes: dict[str, object] = field(default_factory=dict)
    """By the name of the probe: its facts, or `NotSeen`."""
    took_s: float = 0.0
