"""Decides from the class alone whether an instance would accept a planned call. No object is made, nothing moves.

Promises: the answer is the one that the instance would give, because the same type hints, limits and signatures decide.
The trap: attributes that a constructor sets do not exist yet, so a class with `__getattr__` is assumed to have any
method.
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
from ether.spec.signatures import signature_of
from ether.spec.wrapping import PlannedCall

Place = tuple[str | int, ...]
"""A position in the configuration, as its keys and list indices: `("plan", "dose", "conditions", 2)`."""

_CALLABLE = (MarkKind.GET, MarkKind.SAVE)


@dataclass(frozen=True, slots=True)
class PlanFault:
    """One fault of a plan: its position in the configuration, what is written there, what would be valid."""

    place: Place
    found: str
    valid: str
    nearest: str | None = None

    @property
    def text(self) -> str:
        """The fault as a sentence."""
        hint = f" Did you mean {self.nearest!r}?" if self.nearest else ""
        end = "" if self.valid.endswith((".", "?")) else "."
        return f"found {self.found}; {self.valid}{end}{hint}"

    @property
    def path(self) -> str:
        """The place as text: `plan.dose.conditions[2]`."""
        parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.place)
        return "".join(parts).removeprefix(".")


@dataclass(frozen=True, slots=True)
class PlannedInstance:
    """An instance of the configuration. `cls` and `spec` are None where its class cannot be imported or described."""

    name: str
    place: Place
    cls: type | None = None
    spec: ClassSpec | None = None


PlannedInstances = Mapping[str, PlannedInstance]
"""All instances of the configuration, by name."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name that is most like `word`; None where none is like it."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1)), None)


def listed(names: Iterable[str]) -> str:
    """Names, separated by commas; "none" without any."""
    return ", ".join(names) or "none"


def constructor_fault(
    title: str, signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any], place: Place
) -> PlanFault | None:  # fmt: skip
    """The fault of arguments that a constructor does not take, at the argument where it is one; None without any.
    `place` is that of the instance."""
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        known = [name for name in signature.parameters if name not in ("args", "kwargs")]
        wrong = next((name for name in kwargs if name not in known), None)
        where: Place = place if wrong is None else (*place, "kwargs", wrong)
        found = f"arguments for the constructor of {title}: {error}"
        hint = nearest(wrong, known) if wrong is not None else None
        return PlanFault(where, found, f"expected {title}{signature}", hint)
    return None


def absent(name: str, place: Place, instances: PlannedInstances) -> PlanFault | None:
    """The fault of a name that no instance of the configuration has; None where one has it."""
    if name in instances:
        return None
    return PlanFault(
        place, f"the instance {name!r}, which nobody declares", f"declared are: {listed(instances)}",
        nearest(name, instances),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Target:
    """A method that the plan calls. `problem` says why it cannot be called; then the other fields are None. All are
    None where the class could not be imported: nothing can be said about its methods."""

    name: str
    spec: MethodSpec | None = None
    function: Callable[..., Any] | None = None
    arguments: Arguments | None = None
    problem: PlanFault | None = None


def target_of(call: str, place: Place, instances: PlannedInstances) -> Target:
    """Find the method that the text `instance.method` names."""
    instance, _, method = call.rpartition(".")
    if (missing := absent(instance, place, instances)) is not None:
        return Target(call, problem=missing)
    planned = instances[instance]
    if planned.cls is None or planned.spec is None:
        return Target(call)  # a class that cannot be imported is reported once, at the instance
    spec = next((each for each in planned.spec.methods if each.name == method and _is_called(each)), None)
    if spec is None:
        return Target(call, problem=_not_callable(planned, method, place))
    try:
        function = unbound(planned.cls, spec)
        return Target(call, spec, function, Arguments(function, call, spec.limits))
    except MarkError as error:
        return Target(call, problem=PlanFault(place, call, str(error).rstrip(".")))


def _is_called(spec: MethodSpec) -> bool:
    return any(spec.of_kind(kind) for kind in _CALLABLE)


def _not_callable(planned: PlannedInstance, method: str, place: Place) -> PlanFault:
    assert planned.spec is not None
    known = [spec.name for spec in planned.spec.methods if _is_called(spec)]
    title = planned.spec.name
    if callable(getattr(planned.cls, method, None)):
        valid = f"it is not marked ether_get or ether_save; {title} answers to: {listed(known)}"
        return PlanFault(place, f"the method {title}.{method}, which nobody can call", valid)
    found = f"the method {method!r}, which {title} ({planned.name}) does not have"
    return PlanFault(place, found, f"{title} answers to: {listed(known)}", nearest(method, known))


def unbound(cls: type, spec: MethodSpec) -> Callable[..., Any]:
    """A method bound to a placeholder instead of an instance: its signature lacks `self`. To be inspected, never
    called."""
    # `__get__` binds functions, static methods and class methods each in its own way, and does not check the object.
    stand_in = object()
    if spec.accessor is not None:
        return spec.accessor(None)
    function = inspect.getattr_static(cls, spec.name)
    bound: Callable[..., Any] = function.__get__(stand_in, cls) if hasattr(function, "__get__") else function
    return bound


# -- arguments


def call_problems(target: Target, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[ArgumentProblem]:
    """The faults of a call's arguments, by the rules of a proxy, which sends positional arguments by name, too."""
    if target.function is None or target.arguments is None:
        return []
    try:
        bound = signature_of(target.function).bind(*args, **kwargs)
    except TypeError as error:
        given = ", ".join([*map(shown, args), *(f"{name}={shown(value)}" for name, value in kwargs.items())])
        takes = f"{error}: its signature is {target.spec.name if target.spec else ''}{_signature(target)}"
        return [ArgumentProblem(_unexpected(target, kwargs), given or "nothing", takes)]
    return payload_problems(target.arguments, _by_name(bound))


def payload_problems(arguments: Arguments, payload: Mapping[str, Any]) -> list[ArgumentProblem]:
    """The faults that binding a payload to a method's parameters reports."""
    try:
        arguments.bind(payload)
    except ValidationFailed as error:
        return list(error.problems)
    return []


def parameters_of(function: Callable[..., Any]) -> tuple[list[str], bool]:
    """The names of a function's parameters, and whether it has `**kwargs`, which take any other name."""
    parameters = signature_of(function).parameters.values()
    rest = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    return [p.name for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD], rest


def _signature(target: Target) -> str:
    assert target.function is not None
    return str(signature_of(target.function))


def _unexpected(target: Target, kwargs: Mapping[str, Any]) -> str:
    """The first keyword that the method does not accept; "" where it accepts all of them."""
    assert target.function is not None
    names, rest = parameters_of(target.function)
    return next((name for name in kwargs if name not in names and not rest), "")


def _by_name(bound: inspect.BoundArguments) -> dict[str, Any]:
    """The arguments of a call by their names, with the contents of `**kwargs` beside the others."""
    given = dict(bound.arguments)
    for name, parameter in bound.signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            given.update(given.pop(name, {}))
    return given


def unit_faults(target: Target, unit: str | Mapping[str, str] | None, place: Place) -> Iterator[PlanFault]:
    """The units of a plan that are not the units of the method's arguments. Values are never converted.

    `unit` is one unit, which then belongs to the first parameter, or one for each parameter by name."""
    if target.spec is None or target.function is None or unit is None:
        return
    names, _ = parameters_of(target.function)
    units = unit if isinstance(unit, Mapping) else dict.fromkeys(names[:1], unit)
    for name, given in units.items():
        here = (*place, name) if isinstance(unit, Mapping) else place
        known = target.spec.limits.get(name)
        if name not in names:
            yield PlanFault(
                here, f"the argument {name!r}", f"{target.name} takes: {listed(names)}", nearest(name, names)
            )
        elif known is None or not known.unit:
            yield PlanFault(here, f"the unit {given}", f"{target.name} does not say in which unit {name} is: say"
                        " it in the registry (arguments: …, unit: …), or leave it out here")  # fmt: skip
        elif known.unit != given:
            yield PlanFault(
                here, f"the unit {given}", f"{target.name} takes {name} in {known.unit}, and nothing is converted"
            )


# -- calls that an instance makes by itself


def own_call_faults(planned: PlannedInstance, calls: Iterable[PlannedCall], place: Place) -> Iterator[PlanFault]:
    """The faults of the calls of `on_connect`, `on_stop` or a safe state. Their methods need no decorator."""
    assert planned.cls is not None
    assert planned.spec is not None
    specs = {spec.name: spec for spec in planned.spec.methods}
    for number, call in enumerate(calls):
        here = (*place, number)
        # Three cases: a method or property that the spec describes, a plain method of the class, or neither. A class
        # with `__getattr__` may have the method nevertheless; then there is no signature to check, and no fault.
        spec = specs.get(call.method, MethodSpec(call.method, ()))
        if spec.accessor is None and not _has(planned.cls, call.method):
            known = [*specs, *(name for name in dir(planned.cls) if not name.startswith("_"))]
            found = f"the method {call.method!r}, which {planned.spec.class_path} does not have"
            yield PlanFault(here, found, "expected a method of the class", nearest(call.method, known))
        elif spec.accessor is not None or hasattr(planned.cls, call.method):
            target = Target(call.method, spec, *_function_and_arguments(planned.cls, spec))
            for problem in call_problems(target, call.args, call.kwargs):
                yield PlanFault(here, f"{call}", str(problem))


def _function_and_arguments(cls: type, spec: MethodSpec) -> tuple[Callable[..., Any], Arguments]:
    function = unbound(cls, spec)
    return function, Arguments(function, spec.name, spec.limits)


def _has(cls: type, name: str) -> bool:
    return callable(getattr(cls, name, None)) or hasattr(cls, "__getattr__")
