"""What the facts about a broker mean: one rule for each capability. Pure.

Each rule says what was found in words that are the same at every broker of its kind (`value`), because the table in
docs/brokers.md is made of them; figures that differ from one machine to the next stand in `measured`. The trap: a
sentence about what Ether does instead is a promise, and some test outside this folder keeps it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ether.errors.reason_codes import reason_text
from ether.session.broker_probe.facts import (
    BurstFact,
    DistanceFact,
    EntryFact,
    ExpiryFact,
    ManyFiltersFact,
    NotSeen,
    OrderFact,
    PlaneFact,
    ProbeFacts,
    PropertiesFact,
    RetainedFact,
    RightsFact,
    SharedFact,
    SizeFact,
    SmallWritesFact,
    TopicNamesFact,
    WildcardsFact,
    WillFact,
)
from ether.session.broker_probe.findings import BrokerFindings, CapabilityVerdict, Finding
from ether.session.broker_probe.size_search_rules import LARGEST
from ether.transport.bare import BrokerLimits

YES, LIMITED, NO, UNKNOWN = (
    CapabilityVerdict.YES,
    CapabilityVerdict.LIMITED,
    CapabilityVerdict.NO,
    CapabilityVerdict.UNKNOWN,
)

FAR_S = 0.02
FEW_UNDER_WAY = 100
NAGLE_S = 0.015
"""A delayed acknowledgement is 40 ms; an answer that is later by more than this waited for one."""
MOST_UNDER_WAY = 65_535
_FIRST_FAILURE = 0x80
_NO_SUBSCRIBERS = 0x10
_SLOW_WILL_S = 2.0
_LARGE_ENOUGH = 1 << 20
"""A search that had no more time after this size has met no limit."""

Fact = TypeVar("Fact")
Judge = Callable[[Fact, ProbeFacts], Finding]


def judge(facts: ProbeFacts) -> BrokerFindings:
    """Every finding, in the order of the table in docs/brokers.md."""
    entered = any(not entry.refusal for entry in facts.entries)
    found = _entered_findings(facts) if entered else [_not_entered(facts)]
    return BrokerFindings(facts.address, entered, facts.software, tuple(found), facts.took_s)


def _not_entered(facts: ProbeFacts) -> Finding:
    refused = [entry for entry in facts.entries if entry.refusal]
    if not refused:
        advice = "is it running, and is the address right? A firewall swallows what it does not let through."
        return Finding("connection", NO, "none", facts.unreachable, "nobody can use it", advice=advice, prevents=True)
    said = "; ".join(f"MQTT {entry.version}: {entry.refusal}" for entry in refused)
    if any(entry.credentials for entry in refused):
        advice = "name the user and the password in the URL: mqtt://user:password@host"
        return Finding("connection", NO, "refused", said, "nobody can use it so", advice=advice, prevents=True)
    advice = "a client id has up to 64 characters here; a limit of connections, too, is often answered like this"
    return Finding("connection", NO, "refused", said, "nobody can use it so", advice=advice, prevents=True)


def _entered_findings(facts: ProbeFacts) -> list[Finding]:
    return [
        _mqtt_5(facts),
        _mqtt_311(facts),
        _qos_1(facts),
        _of(facts, "rights", "rights", RightsFact, _rights, needed=True),
        _of(facts, "retained messages", "retained", RetainedFact, _retained, needed=True),
        _of(facts, "retained by wildcard", "retained", RetainedFact, _retained_by_wildcard),
        _of(facts, "wildcards", "wildcards", WildcardsFact, _wildcards, needed=True),
        _of(facts, "overlapping filters", "wildcards", WildcardsFact, _overlapping),
        _of(facts, "many subscriptions", "many filters", ManyFiltersFact, _many_filters),
        _properties(facts),
        _expiry(facts),
        _of(facts, "order on a topic", "burst", BurstFact, _order_on_a_topic),
        _of(facts, "order across topics", "order", OrderFact, _order_across_topics),
        _of(facts, "a burst to a slow receiver", "burst", BurstFact, _burst),
        _of(facts, "small writes", "small writes", SmallWritesFact, _small_writes),
        _of(facts, "distance", "distance", DistanceFact, _distance, needed=True),
        _under_way(facts),
        _of(facts, "largest message", "size", SizeFact, _largest),
        _of(facts, "topic names", "names", TopicNamesFact, _topic_names),
        _of(facts, "wills", "will", WillFact, _will),
        _nobody(facts),
        _of(facts, "shared subscriptions", "shared", SharedFact, _shared),
        _topic_aliases(facts),
        _kept_sessions(facts),
        *_left_behind(facts),
    ]


def _of(
    facts: ProbeFacts, name: str, probe: str, kind: type[Fact], judged: Judge[Fact], *, needed: bool = False
) -> Finding:
    fact = facts.probes.get(probe)
    if isinstance(fact, kind):
        return judged(fact, facts)
    return _not_seen(name, fact, needed=needed)


def _not_seen(name: str, fact: object, *, needed: bool = False) -> Finding:
    if isinstance(fact, NotSeen) and fact.cut:
        consequence = "the broker does not carry it: it ended the connection at the attempt, or gave no answer"
        return Finding(name, NO, "it was tried in vain", fact.why, consequence, prevents=needed)
    why = fact.why if isinstance(fact, NotSeen) else "it was not tried"
    return Finding(
        name, UNKNOWN, "not tried", why, "nothing is known about it", advice="try again nearer to the broker"
    )


def _limits(facts: ProbeFacts) -> BrokerLimits:
    """The limits over the version that was agreed on: the first that was accepted."""
    return next((entry.announced for entry in facts.entries if not entry.refusal), BrokerLimits())


def _version(facts: ProbeFacts) -> str:
    return next((entry.version for entry in facts.entries if not entry.refusal), "")


# -- versions and QoS


def _entry(facts: ProbeFacts, version: str) -> EntryFact | None:
    return next((entry for entry in facts.entries if entry.version == version), None)


def _mqtt_5(facts: ProbeFacts) -> Finding:
    entry = _entry(facts, "5")
    if entry is not None and not entry.refusal:
        return Finding("MQTT 5", YES, "yes")
    return Finding(
        "MQTT 5", NO, "no", entry.refusal if entry else "no answer",
        "the broker cannot say why it refuses a message, nor that nobody listens to a call",
        "Ether speaks 3.1.1, with the headers of each message in its body",
    )  # fmt: skip


def _mqtt_311(facts: ProbeFacts) -> Finding:
    entry = _entry(facts, "3.1.1")
    if entry is not None and not entry.refusal:
        return Finding("MQTT 3.1.1", YES, "yes")
    return Finding(
        "MQTT 3.1.1", NO, "no", entry.refusal if entry else "no answer",
        "devices that speak nothing newer cannot take part", "Ether speaks 5",
    )  # fmt: skip


def _qos_1(facts: ProbeFacts) -> Finding:
    rights = facts.probes.get("rights")
    granted = [plane.granted for plane in rights.planes] if isinstance(rights, RightsFact) else []
    if _limits(facts).max_qos == 0 or (granted and all(code == 0 for code in granted)):
        return Finding(
            "QoS 1", NO, "QoS 0 only", "", "no session is possible: nothing would be acknowledged",
            advice="allow QoS 1", settings=("max_qos 2",), prevents=True,
        )  # fmt: skip
    return Finding("QoS 1", YES, "yes")


# -- rights


def _rights(fact: RightsFact, facts: ProbeFacts) -> Finding:
    problems = {plane: words for plane in fact.planes if (words := _plane_problem(plane))}
    if not problems:
        found = "every plane"
        if fact.runs:
            found += "; as the session runs, only answers were published to"
        return Finding("rights", YES, "all that a session needs", f"{found} below ether/1/{fact.session}/")
    told = "; ".join(
        f"{plane.plane} ({plane.topic or plane.topic_filter}): {words}" for plane, words in problems.items()
    )
    advice = (
        "let the user read and write ether/1/NAME/# for each session NAME (docs/brokers.md has the table of rights)."
        " Where the rights are for one session alone, name it: --session NAME"
    )
    if not any(plane.needed for plane in problems):
        return Finding(
            "rights", LIMITED, "not to see which sessions there are", told,
            "sessions at this broker are not found by looking", "who names the session joins it", advice,
        )  # fmt: skip
    return Finding(
        "rights", NO, "not all that a session needs", told, "no session is possible", "", advice, prevents=True
    )


def _plane_problem(plane: PlaneFact) -> str:
    """What is wrong with one plane; empty where nothing is."""
    if plane.cut:
        return f"the connection ended ({plane.cut})"
    if plane.granted is None:
        return "the subscription was not answered"
    if plane.granted >= _FIRST_FAILURE:
        return f"the subscription was refused ({reason_text(plane.granted)})"
    if plane.acknowledged is not None and plane.acknowledged >= _FIRST_FAILURE:
        return f"the message was refused ({reason_text(plane.acknowledged)})"
    if plane.arrived is False:
        return "granted and acknowledged, and never delivered: the broker does not say what it forbids"
    return ""


# -- what is retained, and filters


def _retained(fact: RetainedFact, facts: ProbeFacts) -> Finding:
    refused = (fact.acknowledged or 0) >= _FIRST_FAILURE
    if refused or not fact.by_topic:
        why = reason_text(fact.acknowledged or 0) if refused else "it did not come to a later subscription"
        why = fact.cut or why
        return Finding(
            "retained messages", NO, "none", why, "no session is possible: who leads it and who is there is retained",
            advice="allow retained messages", settings=("retain_available true",), prevents=True,
        )  # fmt: skip
    if not fact.cleared:
        return Finding(
            "retained messages", LIMITED, "they cannot be cleared", "",
            "the entries of instances that have ended stay", "each start sweeps out the entries of the dead",
        )  # fmt: skip
    return Finding("retained messages", YES, "yes")


def _retained_by_wildcard(fact: RetainedFact, facts: ProbeFacts) -> Finding:
    if not fact.by_topic:
        return Finding("retained by wildcard", NO, "none", "", "nothing is retained here at all")
    if fact.by_plus and fact.by_hash:
        return Finding("retained by wildcard", YES, "yes")
    missing = " and ".join(sign for sign, came in (("+", fact.by_plus), ("#", fact.by_hash)) if not came)
    return Finding(
        "retained by wildcard", NO, f"not with {missing}", "",
        "a session without instances is not found by looking, only by its name",
        "who joins asks the members, which announce themselves again",
    )  # fmt: skip


def _wildcards(fact: WildcardsFact, facts: ProbeFacts) -> Finding:
    if fact.by_plus and fact.by_hash:
        return Finding("wildcards", YES, "yes")
    missing = " and ".join(sign for sign, came in (("+", fact.by_plus), ("#", fact.by_hash)) if not came)
    consequence = "no session is possible: instances listen to all methods of theirs by +"
    return Finding("wildcards", NO, f"not with {missing}", "", consequence, prevents=not fact.by_plus)


def _overlapping(fact: WildcardsFact, facts: ProbeFacts) -> Finding:
    if fact.by_overlapping == 1:
        return Finding("overlapping filters", YES, "one copy")
    if fact.by_overlapping == 0:
        return Finding("overlapping filters", NO, "no copy", "", "who subscribes to x/+ and to x/a misses x/a")
    return Finding(
        "overlapping filters", LIMITED, f"{fact.by_overlapping} copies", "",
        "over MQTT 3.1.1, a message of a program without Ether is handled twice by who subscribes to x/+ and to x/a",
        "over MQTT 5 subscriptions have numbers, and one copy counts; messages of Ether's have numbers of their own",
    )  # fmt: skip


def _many_filters(fact: ManyFiltersFact, facts: ProbeFacts) -> Finding:
    name = "many subscriptions"
    if fact.granted == fact.asked:
        return Finding(name, YES, f"{fact.asked} and more")
    return Finding(
        name, LIMITED, f"{fact.granted} at most", "", "a process with more methods that subscribe does not start",
        advice="subscribe by wildcard, or raise the broker's limit (NATS: a smaller max_ack_pending)",
    )  # fmt: skip


# -- what a message carries


def _properties(facts: ProbeFacts) -> Finding:
    name = "properties"
    if _version(facts) == "3.1.1":
        return Finding(
            name, NO, "none over 3.1.1", "", "other programs do not see Ether's headers as properties",
            "the headers travel in the body, under _ether",
        )  # fmt: skip
    return _of(facts, name, "properties", PropertiesFact, _properties_kept)


def _properties_kept(fact: PropertiesFact, facts: ProbeFacts) -> Finding:
    if not fact.missing:
        return Finding("properties", YES, "yes")
    return Finding(
        "properties", NO, f"lost: {', '.join(fact.missing)}", "",
        "calls lose their sender and the way back of their answer",
        advice="something between here and the broker speaks an older MQTT: a bridge of Mosquitto wants"
        " bridge_protocol_version mqttv50",
    )  # fmt: skip


def _expiry(facts: ProbeFacts) -> Finding:
    name = "message expiry"
    instead = "an instance refuses a request whose time is over"
    if _version(facts) == "3.1.1":
        return Finding(name, NO, "none over 3.1.1", "", "requests wait at the broker beyond their time", instead)
    fact = facts.probes.get("expiry")
    if not isinstance(fact, ExpiryFact):
        return _not_seen(name, fact)
    if fact.delivered_late:
        return Finding(name, NO, "delivered all the same", "", "requests wait at the broker beyond their time", instead)
    return Finding(name, YES, "yes")


# -- how often, and in which order


def _order_on_a_topic(fact: BurstFact, facts: ProbeFacts) -> Finding:
    name = "order on a topic"
    if fact.arrived < 2:
        return Finding(name, UNKNOWN, "not tried", "too little of the burst arrived", "nothing is known about it")
    if not fact.in_order:
        return Finding(
            name, NO, "not kept", "", "messages of other programs are handled in another order than they were sent",
            "messages of Ether's are put in order by their numbers",
        )  # fmt: skip
    if fact.twice:
        return Finding(
            name, LIMITED, "some twice", f"{fact.twice:,} of {fact.sent:,}",
            "messages of other programs are handled twice", "messages of Ether's are handled once",
        )  # fmt: skip
    return Finding(name, YES, "yes")


def _order_across_topics(fact: OrderFact, facts: ProbeFacts) -> Finding:
    name = "order across topics"
    if fact.arrived < fact.pairs:
        return Finding(
            name, UNKNOWN, "not tried", f"{fact.arrived} of {2 * fact.pairs} came", "nothing is known about it"
        )
    if not fact.overtaken:
        return Finding(name, YES, "yes", f"{fact.pairs} pairs")
    return Finding(
        name, NO, "a message overtakes one to another topic", f"{fact.overtaken} of {fact.pairs} pairs",
        "what a program publishes on several topics arrives in another order",
        "Ether itself relies on no order across topics",
    )  # fmt: skip


def _burst(fact: BurstFact, facts: ProbeFacts) -> Finding:
    name = "a burst to a slow receiver"
    if fact.reader_lost:
        return Finding(
            name, NO, "the receiver is thrown out", fact.reader_lost,
            "an instance that is busy for long loses its connection",
            "it connects again, and asks for what it missed",
        )  # fmt: skip
    if fact.arrived < fact.sent and not fact.whole:
        measured = f"{fact.arrived:,} of {fact.sent:,} arrived in the time there was"
        return Finding(name, UNKNOWN, "not tried to the end", measured, "nothing is known about it")
    if fact.arrived < fact.sent:
        return Finding(
            name, NO, f"about {_rounded(fact.arrived):,} wait, the rest is thrown away",
            f"{fact.arrived:,} of {fact.sent:,} arrived",
            "messages of programs without Ether are lost, and nobody is told",
            "what a reader of Ether's has not got it takes from the source",
            "let the broker keep what is under way", ("max_queued_messages 0",),
        )  # fmt: skip
    return Finding(name, YES, "all of it arrives", f"{fact.sent:,} messages")


def _rounded(number: int) -> int:
    """To one significant digit, so that the table does not change with the last message of a run."""
    unit = int("1" + "0" * max(0, len(str(number)) - 1))
    return number - number % unit


# -- speed and distance


def _small_writes(fact: SmallWritesFact, facts: ProbeFacts) -> Finding:
    name = "small writes"
    distance = facts.probes.get("distance")
    floor_s = 2 * distance.least_s if isinstance(distance, DistanceFact) else 0.0
    sooner_s = floor_s if fact.at_once_s is None else fact.at_once_s
    measured = f"question and answer {_ms(fact.late_s)}"
    if fact.at_once_s is not None:
        measured += f", {_ms(fact.at_once_s)} where acknowledged at once"
    if fact.late_s - sooner_s < NAGLE_S:
        return Finding(name, YES, "they leave at once", measured)
    return Finding(
        name, LIMITED, "held back until the last one is acknowledged", measured,
        "a call takes 40 ms or more longer for every client that acknowledges as late as systems do",
        "on Linux Ether's clients acknowledge at once, and wait for nothing; macOS and Windows have no such option",
        advice="switch the broker's TCP_NODELAY on", settings=("set_tcp_nodelay true",),
    )  # fmt: skip


def _distance(fact: DistanceFact, facts: ProbeFacts) -> Finding:
    measured = f"round trip {_ms(fact.median_s)}"
    if fact.least_s < FAR_S:
        return Finding("distance", YES, "near", measured)
    return Finding(
        "distance", LIMITED, "far", measured, f"a call takes at least {_ms(2 * fact.least_s)}",
        "publishing and recording wait for no round trip",
    )  # fmt: skip


def _under_way(facts: ProbeFacts) -> Finding:
    name = "messages under way"
    if _version(facts) == "3.1.1":
        return Finding(name, YES, "no limit is announced")
    window = _limits(facts).receive_maximum or MOST_UNDER_WAY
    if window >= FEW_UNDER_WAY:
        return Finding(name, YES, f"{window:,}")
    distance = facts.probes.get("distance")
    measured = ""
    if isinstance(distance, DistanceFact) and distance.least_s >= FAR_S:
        measured = f"at this distance at most {window / distance.least_s:,.0f} messages per second from each process"
    return Finding(
        name, LIMITED, f"{window:,} from each process", measured,
        "far from the broker a process sends few messages per second",
        "calls, answers and control messages go before data; recorded values wait on disk",
        advice="allow more", settings=("max_inflight_messages 1000",),
    )  # fmt: skip


# -- limits


def _largest(fact: SizeFact, facts: ProbeFacts) -> Finding:
    name = "largest message"
    announced = _limits(facts).max_packet_bytes
    if fact.failed_bytes is None:
        return _largest_that_passed(name, fact, announced)
    value, measured = (
        f"about {_bytes(fact.passed_bytes)}",
        f"{fact.passed_bytes:,} bytes passed, {fact.failed_bytes:,} did not",
    )
    advice = "raise the broker's limit, or announce it: a limit that CONNACK names is told to who publishes, at once"
    settings = ("# message_size_limit: take it out; max_packet_size announces one",)
    if fact.how == "dropped":
        return Finding(
            name, NO, f"{value}; more is acknowledged and thrown away", measured,
            "a larger value is lost, and nobody is told", "recorded values go in parts", advice, settings,
        )  # fmt: skip
    if fact.how == "refused":
        return Finding(
            name, LIMITED, f"{value}; more is refused", f"{measured} ({fact.words})",
            "a larger value does not arrive",
            "who waits for it is told at once, a warning names the topic; recorded values go in parts",
            advice, settings,
        )  # fmt: skip
    return Finding(
        name, LIMITED, f"{value}; more ends the connection", f"{measured} ({fact.words})",
        "a larger value ends the connection of who sends it, and comes again with the next one",
        "after three connections it is given up, with a warning; recorded values go in parts", advice,
    )  # fmt: skip


def _largest_that_passed(name: str, fact: SizeFact, announced: int | None) -> Finding:
    told = f"{fact.passed_bytes:,} bytes passed"
    if fact.passed_bytes >= LARGEST or (announced is None and fact.passed_bytes >= _LARGE_ENOUGH):
        return Finding(name, YES, "no limit was met", told)
    if announced is not None and fact.passed_bytes >= announced // 2:
        return Finding(
            name, LIMITED, f"{_bytes(announced)}, announced", told, "a larger value cannot be sent",
            "who publishes it is told at once, with the limit",
        )  # fmt: skip
    return Finding(
        name, UNKNOWN, "not tried to the end", f"{told} in the time there was", "a larger one may pass or not",
        advice="try again nearer to the broker",
    )  # fmt: skip


def _topic_names(fact: TopicNamesFact, facts: ProbeFacts) -> Finding:
    if not fact.failed:
        return Finding("topic names", YES, "all that Ether allows")
    kinds = ", ".join(kind for kind, _ in fact.failed)
    told = "; ".join(f"{kind}: {why}" for kind, why in fact.failed)
    return Finding(
        "topic names", LIMITED, f"not with {kinds}", told,
        "messages to such topics, and to instances and sessions of such names, do not arrive, or end connections",
        advice="name topics without them; the default topic Class.method has a dot" if "dot" in kinds else
        "name topics without them",
    )  # fmt: skip


def _will(fact: WillFact, facts: ProbeFacts) -> Finding:
    name = "wills"
    instead = "missing heartbeats tell it, later"
    if fact.after_s is None:
        return Finding(name, NO, "none came", "", "that a process has died is not told at once", instead)
    if fact.after_s > _SLOW_WILL_S:
        return Finding(name, LIMITED, "late", _ms(fact.after_s), "that a process has died is told late", instead)
    return Finding(name, YES, "yes", f"after {_ms(fact.after_s)}")


def _nobody(facts: ProbeFacts) -> Finding:
    name, code = "tells that nobody listens", facts.probes.get("nobody")
    if isinstance(code, NotSeen):
        return _not_seen(name, code)
    if code == _NO_SUBSCRIBERS:
        return Finding(name, YES, "yes")
    return Finding(
        name, NO, "no", "", "a call in the moment in which an instance ends is noticed by its deadline",
        "instances are known by their announcements: a call to none fails at once",
    )  # fmt: skip


def _shared(fact: SharedFact, facts: ProbeFacts) -> Finding:
    name, instead = "shared subscriptions", "Ether needs none: the caller spreads calls over the instances of a class"
    if fact.granted is None or fact.granted >= _FIRST_FAILURE:
        return Finding(name, NO, "refused", "", "other programs cannot share a subscription", instead)
    if fact.arrived == fact.sent:
        return Finding(name, YES, "yes")
    value = "granted, and nothing is delivered" if not fact.arrived else "not one copy of each message"
    measured = f"{fact.arrived} of {fact.sent} came"
    return Finding(name, NO, value, measured, "other programs cannot share a subscription", instead)


def _topic_aliases(facts: ProbeFacts) -> Finding:
    aliases = _limits(facts).topic_alias_maximum
    if aliases:
        return Finding("topic aliases", YES, f"{aliases:,}")
    return Finding("topic aliases", NO, "none", "", "each message carries its whole topic", "Ether uses none")


def _kept_sessions(facts: ProbeFacts) -> Finding:
    name, expiry_s = "sessions kept", _limits(facts).session_expiry_s
    if expiry_s is None:
        return Finding(name, YES, "as the client asks")
    return Finding(
        name, LIMITED, "the broker decides how long", f"{expiry_s:,} s", "other programs' sessions end by its time",
        "Ether keeps no session at a broker",
    )  # fmt: skip


def _left_behind(facts: ProbeFacts) -> list[Finding]:
    left = facts.probes.get("left behind")
    if not isinstance(left, tuple):
        return []
    return [
        Finding(
            "left behind", NO, "retained messages of this test", ", ".join(left), "they stay on the broker",
            advice="clear them: mosquitto_pub -r -n -t TOPIC",
        )
    ]  # fmt: skip


def _ms(seconds: float) -> str:
    if seconds < 0.001:
        return f"{seconds * 1000:.2f} ms"
    return f"{seconds * 1000:.1f} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"


def _bytes(size: int) -> str:
    """Two digits, in the units of memory."""
    for unit, width in (("MiB", 20), ("KiB", 10)):
        if size >= 1 << width:
            number = size / (1 << width)
            return f"{number:.0f} {unit}" if number >= 10 else f"{number:.2g} {unit}"
    return f"{size} bytes"
