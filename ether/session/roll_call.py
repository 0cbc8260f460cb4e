"""The roll call: a program asks members to tell what they have announced, and hears whether MQTT 5 properties survive
between them and it.

Announcements are retained, so whoever subscribes to them knows the members. Three things can be missing. Some brokers
give no retained message to a subscription with wildcards (RabbitMQ), or give them late. A broker that was restarted has
none. And between two brokers there may be a bridge that strips properties. So members answer the control verb
`announce`, each from its own process and to the asking program alone; nothing is published anew for all.

Promise: an answer holds everything that its process has announced, as it is now. A program's answer holds its roster,
too: the members that it knows, so that the asking program can tell when it knows them all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ether.connection.link import Inbound, Link, lost_properties, reply_headers
from ether.errors import EtherError, PayloadError
from ether.log import get_ether_logger

logger = get_ether_logger("Ether")

ANNOUNCE = "announce"
"""The control verb: `{"instances": [names]}`, or `{}` for everybody. Without a reply topic the announcements are
published again, for all."""

ANNOUNCED = "ether/announced"
"""The schema of an answer."""

_ANSWER_S = 2.0
"""Limits the wait for room in the outgoing queue, as for announcements after a reconnect."""


@dataclass(frozen=True, slots=True)
class Present:
    """One answer. `announced` are the announcements by MQTT topic; `mqtt` is the version that its process speaks;
    `properties` says whether the request arrived with its properties."""

    name: str
    announced: Mapping[str, Any]
    roster: frozenset[str]
    mqtt: str
    properties: bool

    @classmethod
    def from_value(cls, value: object) -> Present | None:
        """Read a received value; None where it is no answer."""
        match value:
            case {
                "name": str(name), "announced": dict(announced), "roster": list(roster), "mqtt": str(mqtt),
                "properties": bool(properties),
            }:  # fmt: skip
                return cls(
                    name, announced, frozenset(each for each in roster if isinstance(each, str)), mqtt, properties
                )
        return None

    def to_value(self) -> dict[str, Any]:
        """The JSON form, in which it is sent."""
        return {
            "name": self.name, "announced": dict(self.announced), "roster": sorted(self.roster), "mqtt": self.mqtt,
            "properties": self.properties,
        }  # fmt: skip


def answer_roll_call(link: Link, inbound: Inbound, roster: Callable[[], frozenset[str]] = frozenset) -> None:
    """Answer a request for this link's process, on the dispatch thread. Never raises."""
    try:
        value = inbound.unpack().value
        asked = value if isinstance(value, dict) else {}
        if not _is_meant(link, asked.get("instances")):
            return
        reply = reply_headers(inbound, link.source)
        if reply is None:
            link.announce_again()
            return
        to, extra = reply
        version = link.transport.version.value
        present = Present(link.source, link.announced, roster(), version, not lost_properties(inbound))
        link.publish(to, present.to_value(), extra=extra._replace(schema=ANNOUNCED, twice=True), timeout_s=_ANSWER_S)
    except (PayloadError, EtherError) as error:
        logger.warning("%s could not answer who asked for its announcements: %s", link.source, error)
    finally:
        inbound.done()


def _is_meant(link: Link, names: object) -> bool:
    """Whether a request is for this link's process: for all, for its own name, or for that of the program that it
    announces (one that has stepped back as a leader goes on under another name than its link's). A supervisor does not
    answer for its instances: what it has announced of them may be older than what they have said since."""
    if not isinstance(names, list):
        return names is None
    said = (value for value in link.announced.values() if isinstance(value, dict))
    return link.source in names or any(v.get("kind") == "program" and v.get("name") in names for v in said)


def keeps_properties(link: Link, present: Present, answer: Inbound) -> bool:
    """Whether MQTT 5 properties survive between this process and one that has answered: there and back. They do not
    where only one of the two speaks MQTT 5; where neither does, none are sent."""
    mine = link.transport.version.value
    if mine != present.mqtt:
        return False
    return mine != "5" or (present.properties and not lost_properties(answer))


def broker_warning(me: str) -> str:
    """What to tell a program whose own messages come back without properties."""
    return (
        f"MQTT 5 properties do not survive the broker of this program ({me}), or what stands before it: a gateway or"
        " proxy strips them. Ether puts its headers into the bodies from here, too, so calls, saves and syncs work."
        " Programs that do not notice (of an earlier version, or not Ether's) lose theirs: look for a setting that lets"
        " MQTT 5 pass as it is."
    )


def path_warning(me: str, present: Present, host: object) -> str:
    """What to tell a program behind a way that strips properties."""
    other = f"{present.name!r} (on {host})" if isinstance(host, str) else repr(present.name)
    return (
        f"MQTT 5 properties do not survive the way between this program ({me}) and {other}: a bridge between two"
        " brokers, or a gateway, strips them. Mosquitto bridges by MQTT 3.1.1 unless its bridge's section says"
        " `bridge_protocol_version mqttv50`: set that. Until then calls, saves and syncs work, because this program"
        " puts Ether's headers into the bodies, too; but what others publish over there arrives here without id,"
        " sender, number and time: it is not noticed when some of it is lost, it is recorded as a stranger's, and"
        " bytes may arrive as text."
    )
