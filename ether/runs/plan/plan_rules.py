"""Checks a planned run before anything moves, from the plan and the classes alone; makes the conditions of its trials.

Promises: pure; each mistake is one `PlanFault`, with its position in the configuration. A class that cannot be imported
is reported once, not at each mention of its instance. The trap: a topic may be published by a program, or by a device
that is no instance; a plan has to list such topics (`outside`), or they are reported as never published.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ether.config.names import PREPARE
from ether.config.plan import RunPlan
from ether.errors import MarkError
from ether.protocol.alarm_words import alarm_topic
from ether.runs.plan.call_rules import (
    Place,
    PlanFault,
    PlannedInstances,
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
"""Prefix of topics outside of the session's root, which anything may publish."""
_GIVEN_BY_RUN = ("condition", "trial", "attempt", "run")
"""Arguments that a trial's preparation gets beside the keys of its condition."""


@dataclass(frozen=True, slots=True)
class Condition:
    """The condition of a trial, and the positions of the condition and of each of its values in the configuration."""

    value: Any
    place: Place
    values: Mapping[str, Place]

    def place_of(self, argument: str) -> Place:
        """The position of an argument's value; that of the whole condition where the argument is none of its keys.
        `argument` may lead into a value, as `point.x` does."""
        return self.values.get(argument.partition(".")[0], self.place)


def conditions_at(plan: RunPlan, place: Place) -> list[Condition]:
    """The conditions of all trials, in the plan's order. Raises `ValueError` for parameters of different lengths that
    are to be combined by `zip`."""
    if isinstance(plan.conditions, Mapping):
        # The grid is made of indices, not of values, so that each condition knows its values' positions.
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


def shape_of(plan: RunPlan) -> tuple[int, ...]:
    """The number of values of each parameter of a grid; empty where the conditions are none."""
    if not isinstance(plan.conditions, Mapping) or plan.by != GRID:
        return ()
    return tuple(len(values) for values in plan.conditions.values())


def trial_count(plan: RunPlan) -> int:
    """The number of trials, computed without making their conditions: a grid may have millions."""
    if isinstance(plan.conditions, Mapping):
        lengths = [len(values) for values in plan.conditions.values()]
        return math.prod(lengths) if plan.by == GRID else max(lengths, default=0)
    return len(plan.conditions) if plan.conditions is not None else plan.trials or 0


def _sample_conditions(plan: RunPlan, place: Place) -> list[Condition]:
    """As few conditions as contain every value. Raises `ValueError`.

    A method accepts or refuses each argument by itself, so a grid of 100 by 100 values needs 199 checks, not 10,000:
    the first combination, and then each further value of each parameter with the first values of the others."""
    if not isinstance(plan.conditions, Mapping) or plan.by != GRID or not all(plan.conditions.values()):
        return conditions_at(plan, place)[:1] if plan.conditions is None else conditions_at(plan, place)
    first = dict.fromkeys(plan.conditions, 0)
    rows = [first] + [first | {name: at} for name, values in plan.conditions.items() for at in range(1, len(values))]
    return [_of_parameters(plan.conditions, row, (*place, "conditions")) for row in rows]


def _of_parameters(parameters: Mapping[str, list[Any]], row: Mapping[str, int], here: Place) -> Condition:
    value = {name: parameters[name][at] for name, at in row.items()}
    return Condition(value, here, {name: (*here, name, at) for name, at in row.items()})


def run_faults(
    plan: RunPlan, place: Place, instances: PlannedInstances, recorded: Iterable[str] | None
) -> list[PlanFault]:
    """All faults of one planned run, each once. `recorded` are the topic filters that the session records, None for
    all."""
    try:
        conditions = _sample_conditions(plan, place)
    except ValueError as error:
        return [PlanFault((*place, "conditions"), "parameters", str(error))]
    found = [
        *_setting_faults(plan, place, instances, conditions), *_read_faults(plan, place, instances),
        *_calls_faults(plan, place, instances), *_sync_faults(plan, place, instances),
        *_prepare_faults(plan, instances, conditions), *_spelling_faults(plan, instances, conditions),
        *_topic_faults(plan, place, instances), *_record_faults(plan, place, instances, recorded),
    ]  # fmt: skip
    return list({(fault.place, fault.text): fault for fault in found}.values())


# -- calls


def _setting_faults(
    plan: RunPlan, place: Place, instances: PlannedInstances, conditions: Iterable[Condition]
) -> Iterator[PlanFault]:
    if plan.set is None:
        return
    here = (*place, "set")
    target = target_of(plan.set.call, here, instances)
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


def _read_faults(plan: RunPlan, place: Place, instances: PlannedInstances) -> Iterator[PlanFault]:
    if plan.read is None:
        return
    here = (*place, "read")
    target = target_of(plan.read, here, instances)
    if target.problem is not None:
        yield target.problem
    for problem in call_problems(target, (), {}):
        yield PlanFault(here, plan.read, f"what is read back needs no arguments: {problem.accepted}")


def _calls_faults(plan: RunPlan, place: Place, instances: PlannedInstances) -> Iterator[PlanFault]:
    for number, call in enumerate(plan.calls):
        here = (*place, "calls", number)
        target = target_of(call.call, here, instances)
        if target.problem is not None:
            yield target.problem
            continue
        yield from unit_faults(target, call.unit, (*here, "unit"))
        for problem in call_problems(target, call.args, call.kwargs):
            where = (*here, "kwargs", problem.argument) if problem.argument in call.kwargs else here
            yield PlanFault(where, problem.given, f"{call.call} takes {_argument(problem.argument, problem.accepted)}")


# -- sync topics and preparation


def _marked(instances: PlannedInstances, kind: MarkKind) -> dict[str, list[tuple[str, MethodSpec]]]:
    """The methods with a decorator of this kind, by topic, each with the name of its instance."""
    found: dict[str, list[tuple[str, MethodSpec]]] = {}
    for name, planned in instances.items():
        for method in planned.spec.with_mark(kind) if planned.spec is not None else ():
            for topic in method.topics(kind):
                found.setdefault(topic, []).append((name, method))
    return found


def _all_known(instances: PlannedInstances) -> bool:
    """Whether every class could be imported. Otherwise a topic that seems missing may belong to an unknown class."""
    return all(planned.spec is not None for planned in instances.values())


def _sync_faults(plan: RunPlan, place: Place, instances: PlannedInstances) -> Iterator[PlanFault]:
    known = _marked(instances, MarkKind.SYNC)
    named = [((*place, "syncs", number), topic) for number, topic in enumerate(plan.syncs)]
    if plan.prepare not in (None, PREPARE):
        named.append(((*place, "prepare"), str(plan.prepare)))
    for here, topic in named:
        if topic not in known and _all_known(instances):
            valid = f"marked with ether_sync are: {listed(known)}"
            yield PlanFault(here, f"the sync topic {topic!r}, which nobody marks", valid, nearest(topic, known))


def _preparing(plan: RunPlan, instances: PlannedInstances) -> Iterator[Target]:
    """The methods that prepare each trial."""
    for name, spec in _marked(instances, MarkKind.SYNC).get(plan.prepare or "", ()):
        cls = instances[name].cls
        assert cls is not None
        function, called = unbound(cls, spec), f"{name}.{spec.name}"
        try:
            yield Target(called, spec, function, Arguments(function, called, spec.limits))
        except MarkError:
            continue  # a type hint that cannot be resolved is reported at the class


def _prepare_faults(plan: RunPlan, instances: PlannedInstances, conditions: Iterable[Condition]) -> Iterator[PlanFault]:
    """Conditions whose keys are arguments that a preparing method refuses."""
    targets = list(_preparing(plan, instances))
    for condition in conditions:
        given = condition.value if isinstance(condition.value, Mapping) else {}
        payload = {**given, "condition": condition.value, "trial": 1, "attempt": 1, "run": "run/1"}
        for target in targets:
            assert target.arguments is not None
            for problem in payload_problems(target.arguments, payload):
                takes = f"{target.name}, which prepares the trial, takes {problem.argument}: {problem.accepted}"
                yield PlanFault(condition.place_of(problem.argument), problem.given, takes)


def _spelling_faults(
    plan: RunPlan, instances: PlannedInstances, conditions: Iterable[Condition]
) -> Iterator[PlanFault]:
    """Keys of conditions that are probably misspelt: no preparing method takes the key, but one takes a similar name.

    A key that resembles no parameter is no fault, since the body of a trial may use it. With `set`, keys are checked
    against the setter."""
    targets = list(_preparing(plan, instances))
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
                valid = f"the instances that prepare the trial take: {listed(sorted(names))}"
                yield PlanFault(condition.place_of(key), f"the parameter {key!r}, which nobody takes", valid, meant)


# -- topics


def _topic_faults(plan: RunPlan, place: Place, instances: PlannedInstances) -> Iterator[PlanFault]:
    named = [
        *(((*place, "suspend_while", topic), topic) for topic in plan.suspend_while),
        *(((*place, "waits_for", number), topic) for number, topic in enumerate(plan.waits_for)),
        *(((*place, "data", topic), topic) for topic in plan.data),
    ]
    known = [*_marked(instances, MarkKind.PUB), *_alarm_topics(instances)]
    for here, topic in named:
        if not _is_published(topic, known, plan.outside) and _all_known(instances):
            valid = (
                f"published are: {listed(known)}; what comes from a program, or from a device that is no instance, is"
                " listed under outside"
            )
            yield PlanFault(here, f"the topic {topic!r}, which nobody publishes", valid, nearest(topic, known))


def _alarm_topics(instances: PlannedInstances) -> list[str]:
    return [
        alarm_topic(name, alarm.name)
        for name, planned in instances.items()
        for alarm in (planned.spec.alarms if planned.spec is not None else ())
    ]


def _is_published(topic: str, known: Iterable[str], outside: Iterable[str]) -> bool:
    """Whether an instance, or a publisher outside of the configuration, publishes on a topic or filter."""
    if topic.startswith(_OUTSIDE) or any(matches(wide, topic) for wide in outside):
        return True
    return any(matches(topic, each) for each in known)


def _record_faults(
    plan: RunPlan, place: Place, instances: PlannedInstances, recorded: Iterable[str] | None
) -> Iterator[PlanFault]:
    """Expected data that would not be recorded: neither by `record:`, nor because its publisher says `save=True`."""
    if recorded is None:
        return
    filters = list(recorded)
    saved = {
        topic for topic, methods in _marked(instances, MarkKind.PUB).items()
        if any(mark.save for _, method in methods for mark in method.of_kind(MarkKind.PUB) if mark.topic == topic)
    }  # fmt: skip
    for topic in plan.data:
        if topic not in saved and not any(matches(wide, topic) for wide in filters):
            valid = f"recorded are: {listed(filters)}; add it to record, or publish it with save=True"
            yield PlanFault((*place, "data", topic), f"data on {topic!r}, which is not recorded", valid)


def watch_faults(watched: Iterable[str], place: Place, instances: PlannedInstances) -> Iterator[PlanFault]:
    """Names that a safe state watches and no instance has: the safe state would be entered at once, and never left."""
    for number, name in enumerate(watched):
        if (fault := absent(name, (*place, number), instances)) is not None:
            yield fault
