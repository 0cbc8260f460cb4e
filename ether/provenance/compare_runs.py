"""What differed between two runs: code, configuration, arguments, packages, machines, instances, counts.

A run is what its records say: whose they are, and which contexts explain them. Two runs may be of one ledger or of two.

Promises: what is the same in both is not listed; equal runs make an empty `Differences`. A line that changed in a
source file is shown as that line. The trap: an instance that made no record in a run is not part of it, and has no
context there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ether.errors import NoSuchRun, PayloadError
from ether.ledger.reader import LedgerReader, RecordFilter
from ether.provenance.compare_code import CodeDifference, code_differences
from ether.wire.json_text import loads

ABSENT = "(absent)"
_KINDS = ("data", "record", "call")
_COUNTED = ("data", "record", "call", "log")

_Pair = tuple[str, Mapping[str, Any], Mapping[str, Any]]
"""An instance, and something of it in the one run and in the other."""


class Change(NamedTuple):
    """One thing that is not the same: `what` is its place or name; `ABSENT` stands for what is not there."""

    what: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a ledger says of a run."""

    run: str
    name: str
    status: str
    contexts: Mapping[str, Mapping[str, Any]]
    """Of each instance the last one that explained a record of it, by the instance's name."""
    configuration: Mapping[str, Any]
    counts: Mapping[str, int]
    """Of records by topic; log records count under `log of INSTANCE`."""
    packages: Mapping[str, Any]
    """Package to version, Python among them; where there were several machines, by machine."""


@dataclass(frozen=True, slots=True)
class Differences:
    """What differed, in groups; each empty where nothing did."""

    before: RunFacts
    after: RunFacts
    run: tuple[Change, ...]
    code: tuple[CodeDifference, ...]
    configuration: tuple[Change, ...]
    arguments: tuple[Change, ...]
    packages: tuple[Change, ...]
    machines: tuple[Change, ...]
    instances: tuple[Change, ...]
    counts: tuple[Change, ...]

    @property
    def nothing(self) -> bool:
        """True where the two runs had the same of everything."""
        settings = (self.run, self.configuration, self.arguments, self.packages, self.machines)
        return not any((self.code, self.instances, self.counts, *settings))


def compare(reader_a: LedgerReader, run_a: str, reader_b: LedgerReader, run_b: str) -> Differences:
    """What differed from run A to run B. Raises `NoSuchRun`."""
    before, after = run_facts(reader_a, run_a), run_facts(reader_b, run_b)
    pairs = [(name, before.contexts[name], after.contexts[name]) for name in before.contexts if name in after.contexts]
    return Differences(
        before, after,
        run=tuple(changes({"status": before.status}, {"status": after.status})),
        code=tuple(code_differences(reader_a, reader_b, _codes(pairs))),
        configuration=tuple(changes(before.configuration, after.configuration)),
        arguments=tuple(_argument_changes(pairs)),
        packages=tuple(changes(before.packages, after.packages)),
        machines=tuple(changes(_machines(before), _machines(after))),
        instances=tuple(changes(_classes(before), _classes(after))),
        counts=tuple(changes(before.counts, after.counts)),
    )  # fmt: skip


def run_facts(reader: LedgerReader, run: str) -> RunFacts:
    """What the ledger says of a run; raises `NoSuchRun`."""
    told = _told_of_run(reader, run)
    counts: Counter[str] = Counter()
    used: dict[str, str] = {}
    for record in reader.records(RecordFilter(kinds=_COUNTED, run=run)):
        counts[record.topic if record.kind != "log" else f"log of {record.source}"] += 1
        if record.context and record.kind in _KINDS:
            used[record.source] = record.context
    if told is None and not counts:
        raise NoSuchRun(run, reader.folder, [known.run for known in reader.runs()])
    contexts = {name: found for name, sha256 in sorted(used.items()) if (found := reader.context(sha256)) is not None}
    begun = told or {}
    return RunFacts(
        run, str(begun.get("name", run)), str(begun.get("status", "not ended")), contexts,
        _configuration(reader, begun, contexts), counts, _packages(reader, contexts),
    )  # fmt: skip


def changes(before: Mapping[str, Any], after: Mapping[str, Any], place: str = "") -> list[Change]:
    """What differs between two trees of plain data, by its dotted place."""
    found = []
    for key in sorted({*before, *after}, key=str):
        old, new = before.get(key, ABSENT), after.get(key, ABSENT)
        here = f"{place}.{key}" if place else str(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += changes(old, new, here)
        elif old != new or type(old) is not type(new):
            found.append(Change(here, old, new))
    return found


def _told_of_run(reader: LedgerReader, run: str) -> dict[str, Any] | None:
    """What the entries of its beginning and end say, together; None where there are none."""
    told: dict[str, Any] | None = None
    for record in reader.records(RecordFilter(kinds=("run",), topic=run)):
        try:
            value = record.value
        except PayloadError:
            continue
        if isinstance(value, dict):
            told = {**(told or {}), **value}
    return told


def _configuration(
    reader: LedgerReader, told: Mapping[str, Any], contexts: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The merged configuration: the run's own, else that of its instances."""
    named = [told.get("config"), *((context.get("configuration") or {}).get("sha256") for context in contexts.values())]
    for sha256 in dict.fromkeys(filter(None, named)):
        if isinstance(found := _json_of(reader, sha256), dict):
            return found
    return {}


def _packages(reader: LedgerReader, contexts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, dict[str, str]] = {}
    for context in contexts.values():
        listed = _json_of(reader, str(context.get("environment", {}).get("sha256", "")))
        if isinstance(listed, dict):
            told = {"python": listed.get("python", {}).get("version", ""), **listed.get("packages", {})}
            found.setdefault(str(context.get("machine", {}).get("host", "")), {}).update(told)
    return dict(found) if len(found) > 1 else dict(_without_host(found))


def _without_host(found: Mapping[str, dict[str, str]]) -> Mapping[str, Any]:
    """Of a run on one machine its name is no part of a package's place: it may be another one in the other run."""
    return next(iter(found.values()), {})


def _json_of(reader: LedgerReader, sha256: str) -> object:
    content = reader.artifact(sha256) if sha256 else None
    try:
        return None if content is None else loads(content.decode(), strict=True)
    except (PayloadError, UnicodeDecodeError):
        return None


def _codes(pairs: Iterable[_Pair]) -> list[_Pair]:
    return [(name, before.get("code") or {}, after.get("code") or {}) for name, before, after in pairs]


def _argument_changes(pairs: Iterable[_Pair]) -> Iterable[Change]:
    for name, before, after in pairs:
        yield from changes(_arguments(before), _arguments(after), name)


def _arguments(context: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments and marks as one mapping, positional ones by their place."""
    placed = {f"args[{number}]": value for number, value in enumerate(context.get("args", ()))}
    return {
        **placed,
        **context.get("kwargs", {}),
        **({"registry": found} if (found := context.get("registry")) else {}),
    }


def _machines(run: RunFacts) -> dict[str, Any]:
    return {name: context.get("machine", {}) for name, context in run.contexts.items()}


def _classes(run: RunFacts) -> dict[str, Any]:
    return {name: str(context.get("class", "")) for name, context in run.contexts.items()}
