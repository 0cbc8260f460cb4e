"""What each device may publish, hear and call: topic filters, derived from the configuration and never written by hand.

A device is a machine with an identity of its own: the Pi that `host: pi3` names, the phone of a guest. Who leads the
session has all, and stands in no table. Every other device has what its instances need, each right with the place that
gives it; a broker is given the filters (`DeviceRights.publish`, `.hear`), and so is who receives, so that a lenient
broker gives nothing away.

Promise: pure. What is not in the table is not allowed. The traps: a right to a filter is a right to every topic that it
matches; and the names of senders are levels of topics (`reply/<client>/<by>`), because a right can hold for nothing
else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

Action = Literal["publish", "hear", "subscribe"]
"""`subscribe`: to a filter of which only what may be heard is delivered."""
GuestMode = Literal["none", "read", "call", "all"]

OUTSIDE = "mqtt:"
COMMANDS_OF_AGENTS = ("drain", "save_all", "cleanup", "stop", "keeper", "keep")
"""The control verbs that an agent gives to its own instances, which heed no agent but their own; `keep` to programs,
of which it may ask the time, and for a recorder."""
KEEP_OF_AGENTS = ("clock", "record")


def is_of_agent(by: str | None, machine: object = None) -> bool:
    """Whether a command comes from an agent, and from another one than that of `machine`."""
    return by is not None and by.startswith("@") and by != f"@{machine}"


def agent_sign(device: str) -> str:
    """In place of a sender's name in the commands of an agent: an instance heeds them only from its own machine's."""
    return f"@{device}"


class Right(NamedTuple):
    """One right, and the place in the configuration that gives it."""

    action: Action
    topic_filter: str
    why: str


class DeviceInstance(NamedTuple):
    """An instance on a device. Topics are users' topics (`camera/#`, `mqtt:plant/x`); `calls` are `service` or
    `service.method`. `where`: the place in the configuration."""

    name: str
    where: str
    publishes: tuple[str, ...] = ()
    hears: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    may_call: tuple[str, ...] = ()
    """Of `calls` the names of instances that have a service, where the session knows them."""


@dataclass(frozen=True, slots=True)
class DeviceRights:
    """What one device may do."""

    device: str
    grants: tuple[Right, ...]

    @property
    def publish(self) -> tuple[str, ...]:
        """Filters of what it may publish."""
        return self._filters("publish")

    @property
    def hear(self) -> tuple[str, ...]:
        """Filters of what it may subscribe to, and be delivered."""
        return self._filters("hear")

    @property
    def subscribe(self) -> tuple[str, ...]:
        """Filters of what it may subscribe to; of that it is delivered what it may hear."""
        return (*self.hear, *self._filters("subscribe"))

    def _filters(self, action: Action) -> tuple[str, ...]:
        return tuple(dict.fromkeys(grant.topic_filter for grant in self.grants if grant.action == action))

    def grant_of(self, action: Action, topic: str) -> Right | None:
        """The right that allows it; None where none does."""
        return next((it for it in self.grants if it.action == action and covers(it.topic_filter, topic)), None)

    def may(self, action: Action, topic: str) -> bool:
        """Whether it is allowed."""
        return self.grant_of(action, topic) is not None


def covers(topic_filter: str, topic: str) -> bool:
    """Whether a filter covers a topic (MQTT 5, section 4.7)."""
    wanted, given = topic_filter.split("/"), topic.split("/")
    if topic[:1] == "$" and wanted[0] in ("+", "#"):
        return False
    if wanted[-1] == "#":
        wanted.pop()
        given = given[: len(wanted)]
    return len(wanted) == len(given) and all(one in ("+", other) for one, other in zip(wanted, given, strict=True))


def covers_filter(allowed: str, asked: str) -> bool:
    """Whether every topic that `asked` matches is covered by `allowed`."""
    wide, narrow = allowed.split("/"), asked.split("/")
    for place, level in enumerate(wide):
        if level == "#":
            return True
        if place >= len(narrow) or narrow[place] == "#" or (level != "+" and narrow[place] != level):
            return False
    return len(wide) == len(narrow)


def full_topic(session: str, topic: str) -> str:
    """A user's topic or filter as the broker sees it."""
    return topic.removeprefix(OUTSIDE) if topic.startswith(OUTSIDE) else f"ether/1/{session}/data/{topic}"


def rights_of_host(session: str, device: str, instances: Iterable[DeviceInstance]) -> DeviceRights:
    """What a device may do that `host:` names: what its agent and these instances need."""
    root, grants = f"ether/1/{session}", list(_of_everybody(session, f"{device} is a member"))
    instances = list(instances)
    grants += _of_a_name(root, device, f"{device} is an agent")
    grants.append(Right("publish", f"{root}/control/renew/{device}", f"{device} is a member"))
    grants.append(Right("hear", f"{root}/control/keep/+/{device}", f"{device} is an agent"))
    grants += [
        Right("publish", f"{root}/state/{it}", f"{device} is an agent")
        for it in (f"{device}/health", f"$test-{device}")
    ]
    for verb in COMMANDS_OF_AGENTS:
        why = f"{device} is an agent, for its own instances"
        grants.append(Right("publish", f"{root}/control/{verb}/{agent_sign(device)}", why))
    for instance in instances:
        grants += _of_instance(session, instance)
    return DeviceRights(device, _each_once(grants))


def rights_of_guest(session: str, device: str, mode: GuestMode) -> DeviceRights:
    """What a device may do that no `host:` names. It says what it says under its own name; a client id would be no
    name, because whoever enters chooses it."""
    why, root = f"security.guests: {mode}", f"ether/1/{session}"
    if mode == "none":
        return DeviceRights(device, ())
    if mode == "all":
        return DeviceRights(device, (Right("publish", "#", why), Right("hear", "#", why)))
    grants = list(_of_everybody(session, why))
    grants += _of_a_name(root, device, why)
    grants.append(Right("publish", f"{root}/control/renew/{device}", why))
    grants.append(Right("hear", f"{root}/control/keep/+/{device}", why))
    grants.append(Right("publish", f"{root}/state/$test-{device}", why))
    grants.append(Right("hear", f"{root}/data/#", why))
    if mode == "call":
        grants.append(Right("publish", f"{root}/call/+/+", why))
    return DeviceRights(device, _each_once(grants))


def rights_of_listed(session: str, listed: DeviceInstance, beside: DeviceRights | None) -> DeviceRights:
    """What a device may do that the configuration names for its own sake, such as a microcontroller with a password;
    `beside` what it may do as a guest."""
    of_guest = () if beside is None else beside.grants
    return DeviceRights(listed.name, _each_once((*of_guest, *_of_use(session, listed))))


def _of_everybody(session: str, why: str) -> Iterable[Right]:
    """To find the session, hear who is there, and ask for it."""
    root = f"ether/1/{session}"
    heard = ("session", "run", "state/#", "control/+", "control/+/+", "log/#", "record/+/about", "reply/#", "ack/#")
    yield from (Right("hear", f"{root}/{each}", why) for each in heard)
    asked = ("control/announce", "control/leader/probe", "control/missed/all", "control/missed/+")
    yield from (Right("publish", f"{root}/{each}", why) for each in asked)
    yield Right("subscribe", f"{root}/control/missed/+/#", why)
    yield Right("publish", "ether/1/$directory/session", why)
    yield Right("hear", "ether/1/$directory/session", why)


def _of_a_name(root: str, name: str, why: str) -> Iterable[Right]:
    """What is said under a name: that it is there, its log, its answers, what it saves, and that it took the name
    over."""
    said = (
        "state/{}",
        "state/{}/pulse",
        "log/{}",
        "reply/+/{}",
        "record/+/{}",
        "record/$echo-{}/about",
        "control/fence/{}",
    )
    yield from (Right("publish", f"{root}/{each.format(name)}", why) for each in said)


def _of_instance(session: str, instance: DeviceInstance) -> Iterable[Right]:
    root, where = f"ether/1/{session}", instance.where
    yield from _of_a_name(root, instance.name, where)
    yield Right("hear", f"{root}/call/{instance.name}/+", where)
    yield from _of_use(session, instance)


def _of_use(session: str, instance: DeviceInstance) -> Iterable[Right]:
    """What is published, heard and called beside one's own name."""
    root, where = f"ether/1/{session}", instance.where
    for topic in instance.publishes:
        full = full_topic(session, topic)
        yield Right("publish", full, f"{where} publishes {topic}")
        # What a receiver has missed is sent again below the receiver's own topic.
        yield Right("publish", f"{root}/control/missed/+/{full}", f"{where} publishes {topic}")
    for topic in instance.hears:
        full = full_topic(session, topic)
        yield Right("hear", full, f"{where} hears {topic}")
        yield Right("hear", f"{root}/control/missed/+/{full}", f"{where} hears {topic}")
    for call in instance.calls:
        service, _, method = call.partition(".")
        for name in instance.may_call or (service,):
            if name == service or instance.may_call:
                yield Right("publish", f"{root}/call/{name}/{method or '+'}", f"{where} calls {call}")


def _each_once(grants: Iterable[Right]) -> tuple[Right, ...]:
    """Of rights to the same filter the first one's reason counts."""
    first: dict[tuple[Action, str], Right] = {}
    for grant in grants:
        first.setdefault(grant[:2], grant)
    return tuple(first.values())


def rules_of(table: Mapping[str, DeviceRights]) -> dict[str, dict[str, list[str]]]:
    """The table as the embedded broker takes it (`rights` of its settings)."""
    return {
        device: {"publish": list(rights.publish), "subscribe": list(rights.subscribe), "receive": list(rights.hear)}
        for device, rights in table.items()
    }


# -- for brokers of others


def exported(table: Mapping[str, DeviceRights], owner: str, kind: str) -> str:
    """The table in the language of a broker: `mosquitto` (an acl_file), `emqx` (acl.conf), `rabbitmq` (commands for
    its topic permissions). Raises `KeyError` for another one."""
    return _EXPORTS[kind](table, owner)


def _mosquitto(table: Mapping[str, DeviceRights], owner: str) -> str:
    lines = [f"user {owner}", "topic readwrite #"]
    for device, rights in table.items():
        lines += ["", f"user {device}"]
        for access, filters in (("write", rights.publish), ("read", rights.hear)):
            lines += [f"topic {access} {each}" for each in filters]
    return "\n".join(lines) + "\n"


def _emqx(table: Mapping[str, DeviceRights], owner: str) -> str:
    lines = [f'{{allow, {{username, "{owner}"}}, all, ["#"]}}.']
    for device, rights in table.items():
        for access, filters in (("publish", rights.publish), ("subscribe", rights.subscribe)):
            named = ", ".join(f'"{each}"' for each in filters)
            if named:
                lines.append(f'{{allow, {{username, "{device}"}}, {access}, [{named}]}}.')
    return "\n".join([*lines, "{deny, all}."]) + "\n"


def _rabbitmq(table: Mapping[str, DeviceRights], owner: str) -> str:
    lines = [f"rabbitmqctl set_permissions -p / '{owner}' '.*' '.*' '.*'"]
    for device, rights in table.items():
        write, read = (_expression(filters) for filters in (rights.publish, rights.hear))
        lines.append(
            f"rabbitmqctl set_permissions -p / '{device}' '^mqtt-' '^(mqtt-|amq\\.topic)' '^(mqtt-|amq\\.topic)'"
        )
        lines.append(f"rabbitmqctl set_topic_permissions -p / '{device}' amq.topic '{write}' '{read}'")
    return "\n".join(lines) + "\n"


def _expression(filters: Iterable[str]) -> str:
    """A regular expression over topics with dots between their levels, as RabbitMQ has them."""
    found = []
    for each in filters:
        levels = each.removesuffix("/#").split("/")
        parts = [r"[^.]+" if level == "+" else _quoted(level) for level in levels]
        found.append(r"\.".join(parts) + (r"(\..*)?" if each.endswith("/#") else ""))
    return f"^({'|'.join(found)})$" if found else "^$"


def _quoted(level: str) -> str:
    return "".join(char if char.isalnum() or char in "_-@" else f"\\{char}" for char in level)


_EXPORTS = {"mosquitto": _mosquitto, "emqx": _emqx, "rabbitmq": _rabbitmq}
EXPORTS = tuple(_EXPORTS)
"""The brokers whose languages `exported` speaks."""
