"""`ether rights`: what each device may publish, hear and call, and which line of the configuration says so."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ether.cli.config_file import chosen_file
from ether.cli.exits import CommandMistake, Exit
from ether.cli.lab.foreground import make_importable
from ether.cli.lab.joined import JOIN_TIMEOUT_S, joined
from ether.cli.options import Json, Where
from ether.cli.output import print_json, print_line, print_table, remark
from ether.config import EtherConfig, EtherInstanceConfig, load_config
from ether.config.yaml_source import read_yaml
from ether.runs.plan.classes import PlannedLab
from ether.runs.plan.device_rights import DeviceTable, Topics, TopicsOf, device_table, place_of
from ether.security.rights import EXPORTS, DeviceRights, exported, full_topic
from ether.spec.marks import MarkKind
from ether.spec.methods import ClassSpec

_COLUMNS = {"device": "DEVICE", "action": "MAY", "topic": "TOPIC", "why": "BECAUSE"}
_SESSION = "<session>"


def rights(
    device: Annotated[str | None, typer.Argument(metavar="[DEVICE]", help="Only this one.")] = None,
    file: Annotated[str | None, typer.Option("--file", "-f", help="The configuration; as for ether run.")] = None,
    why: Annotated[
        str | None, typer.Option("--why", metavar="TOPIC", help="Who may publish and hear this topic, and why.")
    ] = None,
    export: Annotated[
        str | None, typer.Option("--export", metavar="BROKER", help=f"For a broker of others: {', '.join(EXPORTS)}.")
    ] = None,
    learn: Annotated[
        float | None, typer.Option("--learn", metavar="SECONDS", help="Listen to a session, and print what it uses.")
    ] = None,
    *,
    where: Where,
    json: Json = False,
) -> int:
    """Show what each device may publish, hear and call, and which line of the YAML says so. This machine, which leads,
    may do everything."""
    if learn is not None:
        return _learn(where, learn, as_json=json)
    path = chosen_file(file, Path.cwd())
    make_importable(path)
    config = load_config(path)
    session = where.session or config.session or _SESSION
    members = [device] if device is not None else ()
    topics_of, place = _imported_topics(PlannedLab.of(config)), _places(config)
    table = device_table(config, session, topics_of, members=members, where=place)
    for name in table.missing:
        remark(f"{name}: its class is not here; only what {path} says of it is known (publishes, hears)")
    chosen = {name: it for name, it in table.rights.items() if device is None or name == device}
    if export is not None:
        if export not in EXPORTS:
            raise CommandMistake(f"there is no export for {export!r:.40}; there are {', '.join(EXPORTS)}")
        print_line(exported(chosen, "ether", export).rstrip("\n"))
        return Exit.OK
    rows = list(_rows(chosen) if why is None else _why(chosen, session, why))
    if json:
        print_json({"session": session, "rights": rows, "not_looked_at": list(table.missing)})
        return Exit.OK
    print_table(rows, _COLUMNS, nothing=_nothing(table, path, why))
    return Exit.OK if rows or why is None else Exit.FAILED


def _imported_topics(lab: PlannedLab) -> TopicsOf:
    """What the classes publish and hear, which were imported."""

    def topics(name: str, instance: EtherInstanceConfig) -> Topics | None:
        planned = lab.instances.get(name)
        spec = planned.spec if planned is not None else None
        return None if spec is None else (_marked(spec, MarkKind.PUB), _marked(spec, MarkKind.SUB))

    return topics


def _marked(spec: ClassSpec, kind: MarkKind) -> list[str]:
    return [topic for method in spec.with_mark(kind) for topic in method.topics(kind)]


def _places(config: EtherConfig) -> Callable[[str], str]:
    """Gives the file and line of an instance by its key."""
    written = config.written
    if written is None:
        return place_of
    document = read_yaml(written.text.encode("utf-8", "surrogateescape"), written.file)
    return lambda key: f"{written.file}:{document.line_of(('instances', key)) or 1}: instances.{key}"


def _nothing(table: DeviceTable, path: str, why: str | None) -> str:
    if why is not None:
        return f"no device may publish or hear {why!r}; this machine may"
    if table.rights:
        return "no rights"
    return f"{path} names no other device: no instance has a `host:`"


def _rows(table: Mapping[str, DeviceRights]) -> Iterator[dict[str, Any]]:
    for name, rights in table.items():
        for right in rights.grants:
            yield {"device": name, "action": right.action, "topic": right.topic_filter, "why": right.why}


def _why(table: Mapping[str, DeviceRights], session: str, topic: str) -> Iterator[dict[str, Any]]:
    full = topic if topic.startswith("ether/") else full_topic(session, topic)
    for name, rights in table.items():
        for action in ("publish", "hear"):
            right = rights.grant_of(action, full)
            if right is not None:
                yield {"device": name, "action": action, "topic": full, "why": right.why}


def _learn(where: Where, seconds: float, *, as_json: bool) -> int:
    """What is published and called in a session while it is listened to, as lines for its YAML."""
    used: dict[str, dict[str, set[str]]] = {}
    with joined(where, JOIN_TIMEOUT_S) as client:
        topics = client.topics
        decorated = {
            member.name: {topic for method in _methods(member.about) for topic in method.get("publishes", ())}
            for member in client.session.announcements()
        }

        def note(inbound: Any) -> None:
            headers, topic = inbound.headers(), inbound.delivery.topic
            inbound.done()
            if headers is None:
                return
            said = used.setdefault(headers.source, {"publishes": set(), "calls": set()})
            if topic.startswith(topics.call("", "")[:-1]):
                said["calls"].add(".".join(topic.split("/")[4:6]))
            elif (name := topics.user_topic(topic)) not in decorated.get(headers.source, ()):
                said["publishes"].add(name)

        for topic_filter in (topics.data("#"), topics.call("+", "+")):
            client.link.listen(topic_filter, note)
        remark(f"listening for {seconds:g} s")
        ends = time.monotonic() + seconds
        client.session.await_change(lambda: time.monotonic() >= ends, seconds)
        found = {name: {key: sorted(it) for key, it in said.items() if it} for name, said in sorted(used.items())}
    found = {name: said for name, said in found.items() if said}
    if as_json:
        print_json(found)
        return Exit.OK
    for name, said in found.items():
        print_line(f"{name}:")
        for key, values in said.items():
            print_line(f"  {key}: [{', '.join(values)}]")
    if not found:
        remark("nothing was published or called beside what decorators say")
    return Exit.OK


def _methods(about: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    methods = about.get("methods")
    return [it for it in methods.values() if isinstance(it, dict)] if isinstance(methods, dict) else []
