"""What is wrong with what a program says, decided from its source and the classes: the program's half of `ether plan`.

Promises: pure; what depends on a value that is only known when the program runs is left out, never guessed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ether.errors import ArgumentProblem, MarkError, ValidationFailed
from ether.runs.plan.call_rules import (
    Company,
    Member,
    PlanFault,
    Target,
    call_problems,
    listed,
    nearest,
    payload_problems,
    target_of,
    unbound,
)
from ether.runs.plan.plan_rules import all_known, comes, marked
from ether.runs.plan.script import UNKNOWN, Mention, Program, TopicMention
from ether.spec.arguments import Arguments
from ether.spec.marks import MarkKind


@dataclass(frozen=True, slots=True)
class LineFault:
    """A fault in a line of a program."""

    line: int
    fault: PlanFault


def program_faults(program: Program, company: Company, runs: Iterable[str], outside: Iterable[str]) -> list[LineFault]:
    """Everything that is wrong. `runs` are those that the configuration plans, `outside` topics that come from
    elsewhere; what the program itself publishes comes, too."""
    known_runs, heard = list(runs), [*outside, *program.publishes]
    found: list[LineFault] = []
    for mention in program.mentions:
        found += [LineFault(mention.line, fault) for fault in _mention_faults(mention, company)]
    for topic in program.topics:
        found += [LineFault(topic.line, fault) for fault in _topic_faults(topic, company, heard)]
    for line, run in program.planned:
        if run not in known_runs:
            told = f"planned are: {listed(known_runs)}"
            found.append(LineFault(line, PlanFault(("run", "planned()"), f"the run {run!r}, which nobody plans", told,
                                               nearest(run, known_runs))))  # fmt: skip
    return list(dict.fromkeys(sorted(found, key=lambda each: each.line)))


def _mention_faults(mention: Mention, company: Company) -> Iterator[PlanFault]:
    place = (f"{mention.service}.{mention.method}",)
    member = _member(mention.service, company)
    if member is None:
        classes = [each.spec.name for each in company.values() if each.spec is not None]
        if all_known(company) or nearest(mention.service, company):
            found = f"the instance {mention.service!r}, which nobody declares"
            yield PlanFault(
                place, found, f"declared are: {listed(company)}", nearest(mention.service, [*company, *classes])
            )
        return
    target = target_of(f"{member.name}.{mention.method}", place, company)
    if target.problem is not None:
        yield target.problem
    elif mention.checked:
        for problem in _problems(mention, target):
            takes = f"{mention.service}.{mention.method} takes"
            said = f"{problem.argument}: {problem.accepted}" if problem.argument else problem.accepted
            yield PlanFault(place, problem.given, f"{takes} {said}")


def _member(service: str, company: Company) -> Member | None:
    """The instance of that name, else one of that class."""
    if service in company:
        return company[service]
    return next((each for each in company.values() if each.spec is not None and each.spec.name == service), None)


def _problems(mention: Mention, target: Target) -> Iterator[ArgumentProblem]:
    """Those that do not come of a value which is not known."""
    if target.arguments is None:
        return
    if mention.payload:
        (payload,) = mention.args
        unknown = {name for name, value in payload.items() if value is UNKNOWN} if isinstance(payload, dict) else set()
        found = _of_payload(target.arguments, payload)
    else:
        unknown = _unknown_of(target, mention)
        found = call_problems(target, mention.args, mention.kwargs)
    for problem in found:
        if problem.argument.partition(".")[0] not in unknown:
            yield problem


def _of_payload(arguments: Arguments, payload: Any) -> list[ArgumentProblem]:
    try:
        arguments.bind(payload)
    except ValidationFailed as error:
        return list(error.problems)
    return []


def _unknown_of(target: Target, mention: Mention) -> set[str]:
    """The arguments whose values are not known."""
    assert target.function is not None
    try:
        bound = inspect.signature(target.function).bind(*mention.args, **mention.kwargs)
    except TypeError:
        return set()  # the number or the names are wrong, which needs no values
    return {name for name, value in bound.arguments.items() if value is UNKNOWN}


def _topic_faults(mention: TopicMention, company: Company, outside: Iterable[str]) -> Iterator[PlanFault]:
    if not mention.sync:
        known = marked(company, MarkKind.PUB)
        if all_known(company) and not comes(mention.topic, known, outside):
            told = f"published are: {listed(sorted({*known, *outside}))}"
            yield PlanFault((mention.topic,), f"the topic {mention.topic!r}, which nobody publishes", told,
                        nearest(mention.topic, known))  # fmt: skip
        return
    methods = marked(company, MarkKind.SYNC)
    if mention.topic not in methods:
        if all_known(company):
            told = f"marked with ether_sync are: {listed(methods)}"
            yield PlanFault((mention.topic,), f"the sync topic {mention.topic!r}, which nobody marks", told,
                        nearest(mention.topic, methods))  # fmt: skip
        return
    for name, spec in methods[mention.topic]:
        cls = company[name].cls
        assert cls is not None
        yield from _sync_faults(mention, f"{name}.{spec.name}", unbound(cls, spec), spec.limits)


def _sync_faults(
    mention: TopicMention, called: str, function: Callable[..., Any], limits: Mapping[str, Any]
) -> Iterator[PlanFault]:
    try:
        arguments = Arguments(function, called, limits)
    except MarkError:
        return  # told with its class
    unknown = {name for name, value in mention.arguments.items() if value is UNKNOWN}
    for problem in payload_problems(arguments, mention.arguments):
        if problem.argument.partition(".")[0] not in unknown:
            yield PlanFault((mention.topic,), problem.given, f"{called} takes {problem.argument}: {problem.accepted}")
