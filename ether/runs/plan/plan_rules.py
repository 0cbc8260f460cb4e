"""What is wrong with a planned run, decided before anything moves, from the plan and the classes alone.

Promises: pure; each thing that would go wrong is one `PlanFault`, with the place where it is written. A class that
cannot be looked at is one fault, and not one more for each mention. The trap: a topic may come from a program or a
device that is no instance, so a plan says which ones do (`outside`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ether.config.names import PREPARE
from ether.config.plan import RunPlan
from ether.errors import MarkError
from ether.runs.plan.call_rules import (
    Company,
    Place,
    PlanFault,
    Target,
    absent,
    call_problems,
    listed,
    nearest,
    parameters_of,
    payload_problems,
    target_of,
    unbound,
    unit_faults,
)
from ether.runs.trial_rules import GRID, grid_of
from ether.spec.arguments import Arguments
from ether.spec.marks import MarkKind
from ether.spec.methods import MethodSpec
from ether.wire.topics import matches

_OUTSIDE = "mqtt:"
_GIVEN_BY_RUN = ("condition", "trial", "attempt", "run")


@dataclass(frozen=True, slots=True)
class Condition:
    """The condition of a trial, and where its values are written."""

    value: Any
    place: Place
    values: Mapping[str, Place]

    def place_of(self, argument: str) -> Place:
        """Where the value of an argument is written; that of the whole where it is not one of its keys."""
        return self.values.get(argument.partition(".")[0], self.place)


def conditions_at(plan: RunPlan, place: Place) -> list[Condition]:
    """The conditions of all trials. Raises `ValueError` for parameters that do not fit one another."""
    if isinstance(plan.conditions, Mapping):
        numbers = grid_of({name: range(len(values)) for name, values in plan.conditions.items()}, plan.by)
        return [_of_parameters(plan.conditions, row, (*place, "conditions")) for row in numbers]
    return _listed_conditions(plan, place)


def _listed_conditions(plan: RunPlan, place: Place) -> list[Condition]:
    if not isinstance(plan.conditions, list):
        return [Condition(None, (*place, "trials"), {}) for _ in range(plan.trials or 0)]
    here = (*place, "conditions")
    return [
        Condition(value, (*here, at), {key: (*here, at, key) for key in value} if isinstance(value, Mapping) else {})
        for at, value in enumerate(plan.conditions)
    ]


def trial_count(plan: RunPlan) -> int:
    """How many trials there are, without making each."""
    if isinstance(plan.conditions, Mapping):
        lengths = [len(values) for values in plan.conditions.values()]
        return math.prod(lengths) if plan.by == GRID else max(lengths, default=0)
    return len(plan.conditions) if plan.conditions is not None else plan.trials or 0


def _telling(plan: RunPlan, place: Place) -> list[Condition]:
    """Conditions in which every value occurs: of a grid not all combinations, because each value is taken or refused by
    itself. Raises `ValueError`."""
    if not isinstance(plan.conditions, Mapping) or plan.by != GRID or not all(plan.conditions.values()):
        return conditions_at(plan, place)[:1] if plan.conditions is None else conditions_at(plan, place)
    first = dict.fromkeys(plan.conditions, 0)
    rows = [first] + [first | {name: at} for name, values in plan.conditions.items() for at in range(1, len(values))]
    return [_of_parameters(plan.conditions, row, (*place, "conditions")) for row in rows]


def _of_parameters(parameters: Mapping[str, list[Any]], row: Mapping[str, int], here: Place) -> Condition:
    value = {name: parameters[name][at] for name, at in row.items()}
    return Condition(value, here, {name: (*here, name, at) for name, at in row.items()})


def run_faults(plan: RunPlan, place: Place, company: Company, recorded: Iterable[str] | None) -> list[PlanFault]:
    """Everything that is wrong with one run. `recorded` are the topics that the session records, None for all."""
    try:
        conditions = _telling(plan, place)
    except ValueError as error:
        return [PlanFault((*place, "conditions"), "parameters", str(error))]
    found = [
        *_setting_faults(plan, place, company, conditions), *_read_faults(plan, place, company),
        *_calls_faults(plan, place, company), *_sync_faults(plan, place, company),
        *_prepare_faults(plan, company, conditions), *_spelling_faults(plan, company, conditions),
        *_topic_faults(plan, place, company), *_record_faults(plan, place, company, recorded),
    ]  # fmt: skip
    return list({(fault.place, fault.text): fault for fault in found}.values())


# -- calls


def _setting_faults(
    plan: RunPlan, place: Place, company: Company, conditions: Iterable[Condition]
) -> Iterator[PlanFault]:
    if plan.set is None:
        return
    here = (*place, "set")
    target = target_of(plan.set.call, here, company)
    if target.problem is not None:
        yield target.problem
        return
    yield from unit_faults(target, plan.set.unit, (*here, "unit"))
    for condition in conditions:
        several = isinstance(condition.value, Mapping)
        args, kwargs = ((), condition.value) if several else ((condition.value,), {})
        for problem in call_problems(target, args, kwargs):
            where = condition.place_of(problem.argument)
            yield PlanFault(
                where, problem.given, f"{target.name} takes {_argument(problem.argument, problem.accepted)}"
            )


def _argument(name: str, accepted: str) -> str:
    return f"{name}: {accepted}" if name else accepted


def _read_faults(plan: RunPlan, place: Place, company: Company) -> Iterator[PlanFault]:
    if plan.read is None:
        return
    here = (*place, "read")
    target = target_of(plan.read, here, company)
    if target.problem is not None:
        yield target.problem
    for problem in call_problems(target, (), {}):
        yield PlanFault(here, plan.read, f"what is read back needs no arguments: {problem.accepted}")


def _calls_faults(plan: RunPlan, place: Place, company: Company) -> Iterator[PlanFault]:
    for number, call in enumerate(plan.calls):
        here = (*place, "calls", number)
        target = target_of(call.call, here, company)
        if target.problem is not None:
            yield target.problem
            continue
        yield from unit_faults(target, call.unit, (*here, "unit"))
        for problem in call_problems(target, call.args, call.kwargs):
            where = (*here, "kwargs", problem.argument) if problem.argument in call.kwargs else here
            yield PlanFault(where, problem.given, f"{call.call} takes {_argument(problem.argument, problem.accepted)}")


# -- what all instances do together


def marked(company: Company, kind: MarkKind) -> dict[str, list[tuple[str, MethodSpec]]]:
    """Who carries a mark of this kind, by topic."""
    found: dict[str, list[tuple[str, MethodSpec]]] = {}
    for name, member in company.items():
        for method in member.spec.with_mark(kind) if member.spec is not None else ():
            for topic in method.topics(kind):
                found.setdefault(topic, []).append((name, method))
    return found


def all_known(company: Company) -> bool:
    """Whether every class could be looked at."""
    return all(member.spec is not None for member in company.values())


def _sync_faults(plan: RunPlan, place: Place, company: Company) -> Iterator[PlanFault]:
    known = marked(company, MarkKind.SYNC)
    asked = [((*place, "syncs", number), topic) for number, topic in enumerate(plan.syncs)]
    if plan.prepare not in (None, PREPARE):
        asked.append(((*place, "prepare"), str(plan.prepare)))
    for here, topic in asked:
        if topic not in known and all_known(company):
            valid = f"marked with ether_sync are: {listed(known)}"
            yield PlanFault(here, f"the sync topic {topic!r}, which nobody marks", valid, nearest(topic, known))


def _preparing(plan: RunPlan, company: Company) -> Iterator[Target]:
    for name, spec in marked(company, MarkKind.SYNC).get(plan.prepare or "", ()):
        cls = company[name].cls
        assert cls is not None
        function, called = unbound(cls, spec), f"{name}.{spec.name}"
        try:
            yield Target(called, spec, function, Arguments(function, called, spec.limits))
        except MarkError:
            continue  # a hint that cannot be resolved is told with its class


def _prepare_faults(plan: RunPlan, company: Company, conditions: Iterable[Condition]) -> Iterator[PlanFault]:
    """The preparation of a trial gets the condition's keys."""
    targets = list(_preparing(plan, company))
    for condition in conditions:
        given = condition.value if isinstance(condition.value, Mapping) else {}
        payload = {**given, "condition": condition.value, "trial": 1, "attempt": 1, "run": "run/1"}
        for target in targets:
            assert target.arguments is not None
            for problem in payload_problems(target.arguments, payload):
                takes = f"{target.name}, which prepares the trial, takes {problem.argument}: {problem.accepted}"
                yield PlanFault(condition.place_of(problem.argument), problem.given, takes)


def _spelling_faults(plan: RunPlan, company: Company, conditions: Iterable[Condition]) -> Iterator[PlanFault]:
    """A key of a condition that nobody takes is the program's own affair, unless it is nearly one that is taken."""
    targets = list(_preparing(plan, company))
    names: set[str] = set()
    for target in targets:
        assert target.function is not None
        taken, rest = parameters_of(target.function)
        if rest:
            return
        names.update(taken)
    names -= set(_GIVEN_BY_RUN)
    for condition in conditions if plan.set is None else ():
        for key in condition.values:
            meant = nearest(key, names) if key not in names else None
            if meant is not None:
                told = f"the instances that prepare the trial take: {listed(sorted(names))}"
                yield PlanFault(condition.place_of(key), f"the parameter {key!r}, which nobody takes", told, meant)


# -- topics


def _topic_faults(plan: RunPlan, place: Place, company: Company) -> Iterator[PlanFault]:
    asked = [
        *(((*place, "suspend_while", topic), topic) for topic in plan.suspend_while),
        *(((*place, "waits_for", number), topic) for number, topic in enumerate(plan.waits_for)),
        *(((*place, "data", topic), topic) for topic in plan.data),
    ]
    known = marked(company, MarkKind.PUB)
    for here, topic in asked:
        if not comes(topic, known, plan.outside) and all_known(company):
            valid = (
                f"published are: {listed(known)}; what comes from a program, or from a device that is no instance, is"
                " listed under outside"
            )
            yield PlanFault(here, f"the topic {topic!r}, which nobody publishes", valid, nearest(topic, known))


def comes(topic: str, known: Iterable[str], outside: Iterable[str]) -> bool:
    """Whether somebody publishes what a topic or filter asks for."""
    if topic.startswith(_OUTSIDE) or any(matches(wide, topic) for wide in outside):
        return True
    return any(matches(topic, each) for each in known)


def _record_faults(
    plan: RunPlan, place: Place, company: Company, recorded: Iterable[str] | None
) -> Iterator[PlanFault]:
    """Data that is expected, and that nobody would bring to disk."""
    if recorded is None:
        return
    filters = list(recorded)
    kept = {
        topic for topic, who in marked(company, MarkKind.PUB).items()
        if any(mark.save for _, method in who for mark in method.of_kind(MarkKind.PUB) if mark.topic == topic)
    }  # fmt: skip
    for topic in plan.data:
        if topic not in kept and not any(matches(wide, topic) for wide in filters):
            valid = f"recorded are: {listed(filters)}; add it to record, or publish it with save=True"
            yield PlanFault((*place, "data", topic), f"data on {topic!r}, which is not recorded", valid)


def watch_faults(watched: Iterable[str], place: Place, company: Company) -> Iterator[PlanFault]:
    """A safe state that watches somebody who is not there would be made at once, and for ever."""
    for number, name in enumerate(watched):
        if (fault := absent(name, (*place, number), company)) is not None:
            yield fault
