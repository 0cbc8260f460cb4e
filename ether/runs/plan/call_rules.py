"""Whether a call that a plan speaks of would be taken, decided from the class alone: no object is made, nothing moves.

Promises: what is said here is what the instance would say: the same hints, limits and signatures decide. The trap: an
attribute that a constructor makes is not there yet, so a class with `__getattr__` is believed.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ether.errors import ArgumentProblem, MarkError, ValidationFailed
from ether.spec.arguments import Arguments, shown
from ether.spec.marks import MarkKind
from ether.spec.methods import ClassSpec, MethodSpec
from ether.spec.wrapping import PlannedCall

Place = tuple[str | int, ...]
"""Where something stands in the configuration, key by key."""

_CALLABLE = (MarkKind.GET, MarkKind.SAVE)


@dataclass(frozen=True, slots=True)
class PlanFault:
    """Something that would go wrong: where it is written, what was found, what would be valid."""

    place: Place
    found: str
    valid: str
    nearest: str | None = None

    @property
    def text(self) -> str:
        """As a sentence."""
        hint = f" Did you mean {self.nearest!r}?" if self.nearest else ""
        return f"found {self.found}; {self.valid}.{hint}"


@dataclass(frozen=True, slots=True)
class Member:
    """An instance as the plan sees it. `cls` and `spec` are None where its class cannot be looked at."""

    name: str
    place: Place
    cls: type | None = None
    spec: ClassSpec | None = None


Company = Mapping[str, Member]
"""The instances, by name."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The name that was probably meant."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1)), None)


def listed(names: Iterable[str]) -> str:
    """Names for a sentence."""
    return ", ".join(names) or "none"


def absent(name: str, place: Place, company: Company) -> PlanFault | None:
    """An instance that nobody declares."""
    if name in company:
        return None
    return PlanFault(
        place, f"the instance {name!r}, which nobody declares", f"declared are: {listed(company)}",
        nearest(name, company),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Target:
    """A method that is to be called. `problem` takes the place of the rest where it cannot be."""

    name: str
    spec: MethodSpec | None = None
    function: Callable[..., Any] | None = None
    arguments: Arguments | None = None
    problem: PlanFault | None = None


def target_of(call: str, place: Place, company: Company) -> Target:
    """The method that `instance.method` means."""
    instance, _, method = call.rpartition(".")
    if (missing := absent(instance, place, company)) is not None:
        return Target(call, problem=missing)
    member = company[instance]
    if member.cls is None or member.spec is None:
        return Target(call)  # that its class cannot be looked at is a fault of its own
    spec = next((each for each in member.spec.methods if each.name == method and _is_called(each)), None)
    if spec is None:
        return Target(call, problem=_not_callable(member, method, place))
    try:
        function = unbound(member.cls, spec)
        return Target(call, spec, function, Arguments(function, call, spec.limits))
    except MarkError as error:
        return Target(call, problem=PlanFault(place, call, str(error).rstrip(".")))


def _is_called(spec: MethodSpec) -> bool:
    return any(spec.of_kind(kind) for kind in _CALLABLE)


def _not_callable(member: Member, method: str, place: Place) -> PlanFault:
    assert member.spec is not None
    known = [spec.name for spec in member.spec.methods if _is_called(spec)]
    title = member.spec.name
    if callable(getattr(member.cls, method, None)):
        valid = f"it is not marked ether_get or ether_save; {title} answers to: {listed(known)}"
        return PlanFault(place, f"the method {title}.{method}, which nobody can call", valid)
    found = f"the method {method!r}, which {title} ({member.name}) does not have"
    return PlanFault(place, found, f"{title} answers to: {listed(known)}", nearest(method, known))


def unbound(cls: type, spec: MethodSpec) -> Callable[..., Any]:
    """A method as a bound one, without an object: to look at, never to call."""
    stand_in = object()
    if spec.accessor is not None:
        return spec.accessor(stand_in)
    function = inspect.getattr_static(cls, spec.name)
    bound: Callable[..., Any] = function.__get__(stand_in, cls) if hasattr(function, "__get__") else function
    return bound


# -- arguments


def call_problems(target: Target, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[ArgumentProblem]:
    """What is wrong with the arguments of a call, by a proxy's rules: they travel by name."""
    if target.function is None or target.arguments is None:
        return []
    try:
        bound = inspect.signature(target.function).bind(*args, **kwargs)
    except TypeError as error:
        given = ", ".join([*map(shown, args), *(f"{name}={shown(value)}" for name, value in kwargs.items())])
        takes = f"{error}: its signature is {target.spec.name if target.spec else ''}{_signature(target)}"
        return [ArgumentProblem(_unexpected(target, kwargs), given or "nothing", takes)]
    return payload_problems(target.arguments, by_name(bound))


def payload_problems(arguments: Arguments, payload: Mapping[str, Any]) -> list[ArgumentProblem]:
    """What is wrong with a payload."""
    try:
        arguments.bind(payload)
    except ValidationFailed as error:
        return list(error.problems)
    return []


def parameters_of(function: Callable[..., Any]) -> tuple[list[str], bool]:
    """The names that it takes, and whether it takes any other."""
    parameters = inspect.signature(function).parameters.values()
    rest = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    return [p.name for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD], rest


def _signature(target: Target) -> str:
    assert target.function is not None
    return str(inspect.signature(target.function))


def _unexpected(target: Target, kwargs: Mapping[str, Any]) -> str:
    assert target.function is not None
    names, rest = parameters_of(target.function)
    return next((name for name in kwargs if name not in names and not rest), "")


def by_name(bound: inspect.BoundArguments) -> dict[str, Any]:
    """The arguments of a call by their names."""
    given = dict(bound.arguments)
    for name, parameter in bound.signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            given.update(given.pop(name, {}))
    return given


def unit_faults(target: Target, unit: str | Mapping[str, str] | None, place: Place) -> Iterator[PlanFault]:
    """Units that are not those of the method. Nothing is ever converted."""
    if target.spec is None or target.function is None or unit is None:
        return
    names, _ = parameters_of(target.function)
    units = unit if isinstance(unit, Mapping) else dict.fromkeys(names[:1], unit)
    for name, said in units.items():
        here = (*place, name) if isinstance(unit, Mapping) else place
        known = target.spec.limits.get(name)
        if name not in names:
            yield PlanFault(
                here, f"the argument {name!r}", f"{target.name} takes: {listed(names)}", nearest(name, names)
            )
        elif known is None or not known.unit:
            yield PlanFault(here, f"the unit {said}", f"{target.name} does not say in which unit {name} is: say"
                        " it in the registry (arguments: …, unit: …), or leave it out here")  # fmt: skip
        elif known.unit != said:
            yield PlanFault(
                here, f"the unit {said}", f"{target.name} takes {name} in {known.unit}, and nothing is converted"
            )


# -- what an instance calls by itself


def own_call_faults(member: Member, calls: Iterable[PlannedCall], place: Place) -> Iterator[PlanFault]:
    """Of `on_connect`, `on_stop` or a safe state: calls of methods that need no mark."""
    assert member.cls is not None
    assert member.spec is not None
    specs = {spec.name: spec for spec in member.spec.methods}
    for number, call in enumerate(calls):
        here = (*place, number)
        spec = specs.get(call.method, MethodSpec(call.method, ()))
        if spec.accessor is None and not _has(member.cls, call.method):
            known = [*specs, *(name for name in dir(member.cls) if not name.startswith("_"))]
            found = f"the method {call.method!r}, which {member.spec.class_path} does not have"
            yield PlanFault(here, found, "expected a method of the class", nearest(call.method, known))
        elif spec.accessor is not None or hasattr(member.cls, call.method):
            target = Target(call.method, spec, *_looked_at(member.cls, spec))
            for problem in call_problems(target, call.args, call.kwargs):
                yield PlanFault(here, f"{call}", str(problem))


def _looked_at(cls: type, spec: MethodSpec) -> tuple[Callable[..., Any], Arguments]:
    function = unbound(cls, spec)
    return function, Arguments(function, spec.name, spec.limits)


def _has(cls: type, name: str) -> bool:
    return callable(getattr(cls, name, None)) or hasattr(cls, "__getattr__")
