"""What each device may do in the session of a configuration: derived from `host:`, the decorators of the classes, and
what stands beside `class_path`.

The trap: the classes of another machine need not be here. Of those that are not, only what the configuration says is
known, and `missing` names them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ether.config.models import EtherConfig, EtherInstanceConfig, RegistryEntry
from ether.config.path_text import parse_path
from ether.protocol.alarm_words import alarm_topic
from ether.runs.plan.class_lookup import SourceUnclear
from ether.runs.plan.source_marks import import_places, topics_in_source
from ether.security.rights import DeviceInstance, DeviceRights, rights_of_guest, rights_of_host, rights_of_listed


@dataclass(frozen=True, slots=True)
class DeviceTable:
    """The rights of each device by its name, and the instances whose classes are not here."""

    rights: Mapping[str, DeviceRights]
    missing: tuple[str, ...] = ()


Topics = tuple[Sequence[str], Sequence[str]]
"""What a class publishes and hears by its marks: users' topics."""
TopicsOf = Callable[[str, EtherInstanceConfig], Topics | None]
"""Given an instance; None where its class is not here."""


def source_topics(config: EtherConfig) -> TopicsOf:
    """By the sources of the classes and the registry, without importing anything. The trap: what is inherited is not
    seen."""

    def topics(name: str, instance: EtherInstanceConfig) -> Topics | None:
        try:
            published, heard = topics_in_source(instance.class_path, import_places())
        except SourceUnclear:
            return None
        entry, short = config.registry.get(instance.class_path), instance.class_path.rpartition(".")[2]
        if entry is not None:
            published += [*_published(entry, short), *_alarm_topics(entry, name)]
            heard += _heard(entry, short)
        return published, heard

    return topics


def _published(entry: RegistryEntry, cls: str) -> Iterator[str]:
    for path, method in entry.methods.items():
        name = method.as_ or parse_path(path).as_name
        yield from (use.topic or f"{cls}.{use.as_ or name}" for use in method.ether_pub)
    for path, wanted in entry.properties.items():
        if wanted.get is not None and (wanted.get.topic or wanted.get.every):
            yield wanted.get.topic or f"{cls}.{wanted.as_ or parse_path(path).as_name}"
    yield from (callback.topic for callback in entry.callbacks.values())


def _alarm_topics(entry: RegistryEntry, instance: str) -> Iterator[str]:
    for path, method in entry.methods.items():
        if method.alarm is not None:
            name = method.as_ or parse_path(path).as_name
            yield from (alarm_topic(instance, use.as_ or name) for use in method.ether_pub or ())
            yield alarm_topic(instance, name)
    for path, wanted in entry.properties.items():
        if wanted.alarm is not None:
            yield alarm_topic(instance, wanted.as_ or parse_path(path).as_name)


def _heard(entry: RegistryEntry, cls: str) -> Iterator[str]:
    for path, method in entry.methods.items():
        name = method.as_ or parse_path(path).as_name
        yield from (use.topic or f"{cls}.{name}" for use in method.ether_sub)
    for wanted in entry.properties.values():
        if wanted.set is not None and wanted.set.topic:
            yield wanted.set.topic


def place_of(key: str) -> str:
    """An instance's place in a configuration that no file holds."""
    return f"instances.{key}"


def device_table(
    config: EtherConfig,
    session: str,
    topics_of: TopicsOf,
    *,
    members: Iterable[str] = (),
    passwords: Collection[str] = (),
    where: Callable[[str], str] = place_of,
) -> DeviceTable:
    """The table of a session. `members` are further devices, which are guests; `passwords` those of all that have a
    password and no certificate, and are never hosts; `where` gives the place of an instance by its key."""
    hosts: dict[str, list[DeviceInstance]] = {}
    missing = []
    named = config.named_instances()
    for name, instance in named.items():
        if instance.host is None:
            continue
        topics = topics_of(name, instance)
        if topics is None:
            missing.append(name)
        place = where(next(key for key, each in config.instances.items() if each is instance))
        hosts.setdefault(instance.host, []).append(_device_instance(name, place, instance, topics or ((), ()), named))
    hosts = {device: instances for device, instances in hosts.items() if device not in passwords}
    rights = {device: rights_of_host(session, device, instances) for device, instances in hosts.items()}
    listed = config.security.devices if config.security is not None else {}
    for member in (*members, *passwords, *listed):
        if member not in rights:
            rights[member] = guest_rights(config, session, member, by_password=member in passwords)
    return DeviceTable(rights, tuple(missing))


def guest_rights(config: EtherConfig, session: str, device: str, *, by_password: bool) -> DeviceRights:
    """What a device may do that no `host:` names. With a password alone it may do what `security.devices` says of it,
    or what guests may, and never all: a password is what can be read off a microcontroller."""
    security = config.security
    mode = "call" if security is None else security.guests
    listed = None if security is None else security.devices.get(device)
    if by_password and mode == "all":
        mode = "call"
    as_guest = rights_of_guest(session, device, mode)
    if listed is None:
        return as_guest
    place = f"security.devices.{device}"
    wanted = DeviceInstance(
        device, place, *(tuple(each or ()) for each in (listed.publishes, listed.hears, listed.calls))
    )
    return rights_of_listed(session, wanted, None if by_password else as_guest)


def _device_instance(
    name: str, where: str, instance: EtherInstanceConfig, topics: Topics, named: Mapping[str, EtherInstanceConfig]
) -> DeviceInstance:
    calls = tuple(instance.calls or ())
    services = {call.partition(".")[0] for call in calls}
    of_class = tuple(other for other, each in named.items() if each.class_path.rpartition(".")[2] in services)
    published, heard = topics
    return DeviceInstance(
        name, where, (*published, *(instance.publishes or ())), (*heard, *(instance.hears or ())), calls, of_class
    )
