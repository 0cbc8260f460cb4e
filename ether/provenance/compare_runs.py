"""The differences between two runs: code, configuration, arguments, packages, machines, instances, counts.

A run is known by its records: their sources, and the contexts that explain them. The two runs may be in one ledger or
in two. A name means the last run of that name, as in `ether.data(run=…)`.

Promises: only differences are listed; two equal runs make an empty `Differences`. A line that changed in a source file
is shown as that line. The trap: an instance that made no record in a run is not part of that run.
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
from ether.wire.run_ids import latest

ABSENT = "(absent)"
_KINDS = ("data", "record", "call")
"""Of records whose context counts."""
_COUNTED = ("data", "record", "call", "log")

_Pair = tuple[str, Mapping[str, Any], Mapping[str, Any]]
"""An instance's name, and a part of its context in the first and in the second run."""


class Change(NamedTuple):
    """One difference: `what` is its place or name. A side that has no such value is `ABSENT`."""

    what: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class RunFacts:
    """The facts of a run in a ledger."""

    run: str
    name: str
    status: str
    contexts: Mapping[str, Mapping[str, Any]]
    """By instance the last context that a record of it refers to."""
    configuration: Mapping[str, Any]
    counts: Mapping[str, int]
    """How many records by topic; log records count under `log of INSTANCE`."""
    packages: Mapping[str, Any]
    """The version by package, Python included; with several machines one such mapping for each machine."""


@dataclass(frozen=True, slots=True)
class Differences:
    """The differences in groups; a group is empty where nothing differs."""

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
        """Whether the two runs are equal in all groups."""
        settings = (self.run, self.configuration, self.arguments, self.packages, self.machines)
        return not any((self.code, self.instances, self.counts, *settings))


def compare(reader_a: LedgerReader, run_a: str, reader_b: LedgerReader, run_b: str) -> Differences:
    """The differences from run A to run B. Raises `NoSuchRun`."""
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
    """The facts of a run: by its id, or by a name, which means the last run of that name. Raises `NoSuchRun`."""
    run = _id_of(reader, run)
    described = _description(reader, run)
    counts: Counter[str] = Counter()
    used: dict[str, str] = {}
    for record in reader.records(RecordFilter(kinds=_COUNTED, run=run)):
        counts[record.topic if record.kind != "log" else f"log of {record.source}"] += 1
        if record.context and record.kind in _KINDS:
            used[record.source] = record.context
    if described is None and not counts:
        raise NoSuchRun(run, reader.folder, [known.run for known in reader.runs()])
    contexts = {name: found for name, sha256 in sorted(used.items()) if (found := reader.context(sha256)) is not None}
    facts = described or {}
    return RunFacts(
        run, str(facts.get("name", run)), str(facts.get("status", "not ended")), contexts,
        _configuration(reader, facts, contexts), counts, _packages(reader, contexts),
    )  # fmt: skip


def changes(before: Mapping[str, Any], after: Mapping[str, Any], place: str = "") -> list[Change]:
    """The differences between two trees of plain data, each with its place as a dotted name."""
    found = []
    for key in sorted({*before, *after}, key=str):
        old, new = before.get(key, ABSENT), after.get(key, ABSENT)
        here = f"{place}.{key}" if place else str(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += changes(old, new, here)
        elif old != new or type(old) is not type(new):  # 1, 1.0 and True are equal, but not the same setting
            found.append(Change(here, old, new))
    return found


def _id_of(reader: LedgerReader, run: str) -> str:
    """The id of the run that a text means; the text itself where no run has such a name."""
    recorded = [known.run for known in reader.runs()]
    return run if run in recorded else latest(run, recorded) or run


def _description(reader: LedgerReader, run: str) -> dict[str, Any] | None:
    """The entries of the run's beginning and end, merged; None where there are none."""
    description: dict[str, Any] | None = None
    for record in reader.records(RecordFilter(kinds=("run",), topic=run)):
        try:
            value = record.value
        except PayloadError:
            continue
        if isinstance(value, dict):
            description = {**(description or {}), **value}
    return description


def _configuration(
    reader: LedgerReader, facts: Mapping[str, Any], contexts: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The merged configuration: the one that the run names, else the first that its instances name."""
    named = [
        facts.get("config"),
        *((context.get("configuration") or {}).get("sha256") for context in contexts.values()),
    ]
    for sha256 in dict.fromkeys(filter(None, named)):
        if isinstance(found := _json_of(reader, sha256), dict):
            return found
    return {}


def _packages(reader: LedgerReader, contexts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, dict[str, str]] = {}
    for context in contexts.values():
        listed = _json_of(reader, str(context.get("environment", {}).get("sha256", "")))
        if isinstance(listed, dict):
            versions = {"python": listed.get("python", {}).get("version", ""), **listed.get("packages", {})}
            found.setdefault(str(context.get("machine", {}).get("host", "")), {}).update(versions)
    return dict(found) if len(found) > 1 else dict(_without_host(found))


def _without_host(found: Mapping[str, dict[str, str]]) -> Mapping[str, Any]:
    """The packages of a run on one machine, without the machine's name: the other run may have been on another one,
    and its packages are compared all the same."""
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
    """The arguments and the marks of the registry as one mapping, positional arguments by their place (`args[0]`)."""
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
