"""From a payload to the arguments of a method, by the method's own type hints.

A dict maps to arguments by name: extra keys are ignored, `**kwargs` receives the rest. Any other payload goes to one
parameter: the one named `root`, else the only one, else the only one without a default. That parameter receives a dict
as a whole, too, where its name is not among the dict's keys and its hint accepts a mapping (a model, a dataclass, a
dict) or is missing: so `ether.pub(Reading(...))` arrives as the model. An empty message (None) leaves the defaults
unchanged. Values are validated by pydantic, leniently ("42" fits an int), so a model-typed parameter receives the
model, and an annotated array (see `ether.spec.array_hints`) also accepts lists of numbers.

A hint that does not resolve here, because only a type checker sees it, or that pydantic cannot check, makes an argument
that is passed on as it came (`Arguments.unchecked`): it is a reason for a warning, and none to refuse a driver that
works. A method that tells nothing of its parameters is called by position with a list, by name with a dict.

The trap: hints are resolved when a class is hosted, not at the first message.
"""

from __future__ import annotations

import difflib
import inspect
import re
import reprlib
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from typing import TYPE_CHECKING, Any

from ether.errors import ArgumentProblem, MarkError, ValidationFailed
from ether.log import get_ether_logger
from ether.spec.array_hints import PLAIN, plain_integers
from ether.spec.hints import place_of, resolved_hints, unresolved_hints, validator_of
from ether.spec.library_hints import is_quantity_hint, library_note
from ether.spec.outcomes import is_quantity, number_in
from ether.spec.signatures import open_parameter, signature_of
from ether.spec.units import UnitUnfit, has_unit, in_unit, unit_key
from ether.spec.wrapping import Limit

if TYPE_CHECKING:
    from pydantic_core import ValidationError

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME = (*_POSITIONAL, inspect.Parameter.KEYWORD_ONLY)


_REQUIRED = "a value is required"
_MOST_IGNORED = 200
_DIGITS = re.compile(r"\d+")


logger = get_ether_logger("Ether")


class _Shortener(reprlib.Repr):
    def repr_ndarray(self, value: Any, level: int) -> str:
        """An array by its dtype and shape: its numbers are too many for a message."""
        return f"an array of {value.dtype} with shape {value.shape}"


shorten = _Shortener()
shorten.maxstring = shorten.maxother = 200
shorten.maxlist = shorten.maxtuple = shorten.maxdict = shorten.maxset = 12


def shown(value: object) -> str:
    """A value for an error message: short, one line, and never itself an error."""
    try:
        return shorten.repr(value)
    except Exception:  # noqa: BLE001  a user's own __repr__ runs here; a failing one must not hide the failure it describes
        return f"<{type(value).__name__} that cannot be shown>"


@dataclass(frozen=True, slots=True)
class _Parameter:
    name: str
    required: bool
    positional_only: bool
    takes_mapping: bool
    takes_quantity: bool
    default: Any
    validate: Callable[[Any], Any] | None


class Arguments:
    """The parameters of one method, prepared once (when the class is hosted) and bound to every payload."""

    def __init__(
        self,
        method: Callable[..., Any],
        name: str,
        limits: Mapping[str, Limit] | None = None,
        from_topic: frozenset[str] = frozenset(),
    ) -> None:
        """`method` is bound (or a function without `self`). `from_topic`: parameters that levels of the topic fill, so
        that no payload goes to them as a whole. Raises `MarkError` for limits, or levels, of an argument that the
        method does not have, and for a wrong `ArraySpec`."""
        self.name = name
        self._from_topic = from_topic
        self._ignored: set[str] = set()
        """Keys of payloads that no argument takes, and that were looked at."""
        parameters = signature_of(method).parameters.values()
        hints = resolved_hints(method)
        written = unresolved_hints(method, hints)
        self.unchecked: dict[str, str] = {}
        """The hints that are not checked, by argument, as they are written."""
        self.place = place_of(method)
        self._open = open_parameter(parameters)
        self._parameters = tuple(
            self._parameter(p, hints.get(p.name, Any), written) for p in parameters if p.kind in _BY_NAME
        )
        self._names = frozenset(p.name for p in self._parameters)
        self._takes_rest = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
        self._whole = self._parameter_for_whole_payload()
        self._limits = {argument: limit for argument, limit in (limits or {}).items() if limit.bounds}
        self._units = {argument: limit.unit for argument, limit in (limits or {}).items() if limit.unit}
        self._quantities = frozenset(p.name for p in self._parameters if p.takes_quantity)
        self._check_limits_apply(limits or {})
        self._check_levels_apply()

    def bind(
        self, payload: object, from_topic: Mapping[str, str] | None = None
    ) -> tuple[list[Any], dict[str, Any]]:  # fmt: skip
        """Positional and named arguments for a payload; raises `ValidationFailed` that names each wrong one. What the
        topic says (`from_topic`, by name) counts more than the payload.

        `values` starts as the payload by name; each parameter takes its own out of it, validated. What is left are the
        keys that no parameter has: `**kwargs` receives them, or they are ignored. A missing optional parameter is not
        passed, so that Python fills in the default; only a positional-only one must be, to keep the order. Values in
        other units are converted first. Limits are checked last, on validated values, and only when every value is
        valid."""
        if self._open is not None:
            return self._as_given(payload, self._open)
        if not self._parameters and not self._takes_rest:
            return [], {}
        values = self._by_name(payload)
        if from_topic:
            values.update(from_topic)
        if self._units:
            self._convert_units(values)
        problems: list[ArgumentProblem] = []
        positional: list[Any] = []
        named: dict[str, Any] = {}
        for parameter in self._parameters:
            if parameter.name not in values:
                if parameter.required:
                    problems.append(ArgumentProblem(parameter.name, "nothing", _REQUIRED))
                elif parameter.positional_only:  # keeps the places of the ones behind it
                    positional.append(parameter.default)
                continue
            value = values.pop(parameter.name)
            if parameter.validate is not None:
                value = _validated(parameter, parameter.validate, value, problems)
            if parameter.positional_only:
                positional.append(value)
            else:
                named[parameter.name] = value
        if values and not self._takes_rest and (problems or not self._ignored.issuperset(values)):
            problems = self._look_at_rest(values, named, problems)
        if self._limits and not problems:
            problems.extend(self._beyond(positional, named, values))
        if problems:
            raise ValidationFailed(self.name, problems if payload is not None else self._without_payload(problems))
        if self._takes_rest:
            named.update(values)
        return positional, named

    def _as_given(self, payload: object, args: str) -> tuple[list[Any], dict[str, Any]]:
        """For a method that tells nothing of its parameters: a list is its positional arguments, a dict its named ones,
        with a list of positional ones under the name `args`; any other value is the only argument."""
        if payload is None:
            return [], {}
        if self._units:
            payload = self._given_in_units(payload, args)
        if self._limits and not isinstance(payload, Mapping):
            # Which of them is the limited one cannot be told, and nothing beyond a limit may reach a device.
            limited = ", ".join(self._limits)
            accepted = f"arguments by name, because {limited} has limits and the signature is not known"
            raise ValidationFailed(self.name, [ArgumentProblem("payload", shown(payload), accepted)])
        if isinstance(payload, Mapping):
            named = {key: value for key, value in payload.items() if isinstance(key, str)}
            if problems := list(self._beyond([], named, {})):
                raise ValidationFailed(self.name, problems)
            positional = named.pop(args, [])
            if self._limits and positional:
                accepted = f"arguments by name, because {', '.join(self._limits)} has limits"
                raise ValidationFailed(self.name, [ArgumentProblem(args, shown(positional), accepted)])
            return (list(positional) if isinstance(positional, list | tuple) else [positional]), named
        return (list(payload), {}) if isinstance(payload, list | tuple) else ([payload], {})

    def _given_in_units(self, payload: object, args: str) -> object:
        """The payload with its named values in the units of their arguments. At a place that is not known, a value with
        a unit would reach the device as a text."""
        if isinstance(payload, Mapping):
            named = dict(payload)
            self._convert_units(named)
            if not self._has_unit_unplaced(payload, args):
                return named
        elif not _any_unit(payload):
            return payload
        accepted = f"values with units by name ({', '.join(self._units)}), because the signature is not known"
        raise ValidationFailed(self.name, [ArgumentProblem("payload", shown(payload), accepted)])

    def _has_unit_unplaced(self, payload: Mapping[Any, Any], args: str) -> bool:
        """Whether a unit stands in a payload, and which argument it is meant for cannot be told."""
        placed = payload.get(args)
        if placed is not None and _any_unit(placed):
            return True
        beside = has_unit(payload) or (placed is not None and unit_key(payload) is not None)
        return beside and not self._units.keys() & payload.keys()

    def _convert_units(self, values: dict[str, Any]) -> None:
        """Convert the values of arguments with a unit to it. Raises `ValidationFailed` where one does not convert."""
        beside = self._unit_beside(values)
        problems = []
        for argument in self._units.keys() & values.keys():
            value, unit = values[argument], self._units[argument]
            if beside is not None and not has_unit(value):
                value = {"value": value, "unit": beside}
            try:
                number = in_unit(value, unit)
            except UnitUnfit as error:
                problems.append(ArgumentProblem(argument, shown(value), error.accepted))
                continue
            quantity = argument in self._quantities and number is not None
            values[argument] = {"magnitude": number, "units": unit} if quantity else number
            if beside is not None and (self._takes_rest or self._open is not None):
                values[unit_key(values) or ""] = unit  # the driver gets it, too, and may go by it
        if problems:
            raise ValidationFailed(self.name, problems)

    def _unit_beside(self, values: dict[str, Any]) -> str | None:
        """The unit that stands beside the value of the one argument that has a unit, in a key that no argument
        takes by its name."""
        key = unit_key(values)
        if key is None or key in self._names or key in self._units:
            return None
        unit: str = values[key]
        given = self._units.keys() & values.keys()
        if len(given) > 1 and any(self._units[argument] != unit for argument in given):
            accepted = f"beside each value, as '5 {unit}', because several of the arguments have units"
            raise ValidationFailed(self.name, [ArgumentProblem(key, shown(unit), accepted)])
        return unit if len(given) == 1 else None

    def _parameter(self, parameter: inspect.Parameter, hint: Any, written: Mapping[str, str]) -> _Parameter:
        name = parameter.name
        if name in written:
            self.unchecked[name] = written[name]
        try:
            return _parameter(parameter, hint)
        except MarkError as error:
            if isinstance(error.__cause__, MarkError):  # a description of an array, which is written for Ether
                raise
            self.unchecked[name] = inspect.formatannotation(parameter.annotation)
            return _parameter(parameter, Any)

    def check_within(self, given: Mapping[str, Any]) -> None:
        """Raises `ValidationFailed` where an argument, given by name or left to its default, is outside its limits."""
        if problems := list(self._beyond([], given, {})):
            raise ValidationFailed(self.name, problems)

    def _look_at_rest(
        self, rest: Mapping[str, Any], named: Mapping[str, Any], problems: list[ArgumentProblem]
    ) -> list[ArgumentProblem]:
        """Keys that no argument takes are ignored. One that is nearly the name of an argument that was not given is
        named: in the problem of a missing one, else once in the log."""
        absent = [name for name in self._names if name not in named]
        for key in rest:
            if key in self._ignored or len(self._ignored) >= _MOST_IGNORED:
                continue
            meant = next(iter(difflib.get_close_matches(key, absent, n=1, cutoff=0.75)), None)
            if meant is not None and _DIGITS.findall(meant) != _DIGITS.findall(key):
                meant = None  # names by themselves
            if meant is None or all(p.argument != meant for p in problems):
                self._ignored.add(key)
            if meant is not None and all(p.argument != meant for p in problems):
                logger.warning(
                    "%s: the payload has %r, which no argument takes. Did you mean %r?", self.name, key, meant
                )
            problems = [
                ArgumentProblem(p.argument, p.given, f"{p.accepted}; the payload has {key!r}. Did you mean {meant!r}?")
                if p.argument == meant and p.given == "nothing"
                else p
                for p in problems
            ]
        return problems

    def _without_payload(self, problems: list[ArgumentProblem]) -> list[ArgumentProblem]:
        """The problems of an empty message, whose None was tried as the value of the one parameter that is required."""
        whole = self._whole.name if self._whole is not None and self._whole.required else ""
        missing = ArgumentProblem(whole, "nothing", _REQUIRED)
        return list(dict.fromkeys(missing if p.argument.partition(".")[0] == whole else p for p in problems))

    def _beyond(
        self, positional: list[Any], named: Mapping[str, Any], rest: Mapping[str, Any]
    ) -> Iterator[ArgumentProblem]:
        """The arguments outside their limits. A default is checked, too: it reaches the device like any other value."""
        names = [p.name for p in self._parameters if p.positional_only]
        defaults = {p.name: p.default for p in self._parameters if not p.required and p.default is not None}
        given = {**defaults, **dict(zip(names, positional, strict=False)), **rest, **named}
        for argument, limit in self._limits.items():
            if argument in given and not limit.accepts(self._number(argument, given[argument])):
                yield limit.problem(argument, shown(given[argument]))

    def _number(self, argument: str, value: Any) -> Any:
        """A value as its limits see it: of a quantity the number in the argument's unit."""
        unit = self._units.get(argument)
        return number_in(value, unit, self.name) if unit is not None and is_quantity(value) else value

    def _check_limits_apply(self, limits: Mapping[str, Limit]) -> None:
        for argument in limits.keys() - self._names:
            if not self._takes_rest:
                nearest = difflib.get_close_matches(argument, self._names, n=1)
                hint = f" Did you mean {nearest[0]!r}?" if nearest else f" It has: {', '.join(self._names) or 'none'}."
                raise MarkError(f"the registry limits {argument!r} of {self.name}, which has no such argument.{hint}")

    def _check_levels_apply(self) -> None:
        for level in sorted(self._from_topic - self._names):
            if not self._takes_rest:
                nearest = difflib.get_close_matches(level, self._names, n=1)
                hint = f" Did you mean {nearest[0]!r}?" if nearest else f" It has: {', '.join(self._names) or 'none'}."
                raise MarkError(
                    f"a topic of {self.name} has the level {{{level}}}, and no argument of that name.{hint}"
                )

    def _by_name(self, payload: object) -> dict[str, Any]:
        """The payload as values by name, in this order: a mapping that is not meant for one parameter; nothing for an
        empty message; one value for the parameter that takes whole payloads. Otherwise `ValidationFailed`."""
        if self._units and self._whole is not None and self._whole.name in self._units and self._is_value(payload):
            return {self._whole.name: payload}
        # `type(payload) is dict` first: `isinstance` with the abstract class is slower, and nearly every payload is a
        # dict
        if (type(payload) is dict or isinstance(payload, Mapping)) and not self._takes_whole(payload):
            return {key: value for key, value in payload.items() if isinstance(key, str)}
        if payload is None and not (self._whole and self._whole.required):
            return {}
        if self._whole is not None:
            return {self._whole.name: payload}
        names = ", ".join(p.name for p in self._parameters) or "only named values"
        accepted = f"the method takes ({names}): send a dict with these keys"
        raise ValidationFailed(self.name, [ArgumentProblem("payload", shown(payload), accepted)])

    def _is_value(self, payload: object) -> bool:
        """Whether a mapping is one value with its unit, and no mapping of arguments."""
        return isinstance(payload, Mapping) and has_unit(payload) and unit_key(payload) not in self._names

    def _takes_whole(self, payload: Mapping[Any, Any]) -> bool:
        """Whether one parameter receives this mapping as a whole, instead of its values by name."""
        whole = self._whole
        if whole is None or not whole.takes_mapping or whole.name in payload or self._takes_rest:
            return False
        # For an optional one: a mapping whose keys are all other arguments, or an empty one, is meant by name.
        return whole.required or not self._names.issuperset(payload)

    def _parameter_for_whole_payload(self) -> _Parameter | None:
        """The parameter named `root`, else the only one, else the only one without a default; None for no such one."""
        taking = [p for p in self._parameters if p.name not in self._from_topic]
        required = [p for p in taking if p.required]
        for candidates in ([p for p in taking if p.name == "root"], taking, required):
            if len(candidates) == 1:
                return candidates[0]
        return None


def check_needs_nothing(method: Callable[..., Any], name: str) -> None:
    """Raises `MarkError` for a method that cannot be called without arguments."""
    try:
        inspect.signature(method).bind()
    except TypeError as error:
        raise MarkError(f"{name} cannot be called at set times: {error}. Give its parameters defaults.") from None
    except ValueError:  # some methods written in C have no signature
        return


def _any_unit(given: object) -> bool:
    """Whether arguments by position have units."""
    return any(map(has_unit, given if isinstance(given, list | tuple) else [given]))


def _parameter(parameter: inspect.Parameter, hint: Any) -> _Parameter:
    return _Parameter(
        name=parameter.name,
        required=parameter.default is inspect.Parameter.empty,
        positional_only=parameter.kind is inspect.Parameter.POSITIONAL_ONLY,
        takes_mapping=parameter.name == "root"
        or (parameter.default is inspect.Parameter.empty and _takes_mapping(hint)),
        takes_quantity=is_quantity_hint(hint),
        default=parameter.default,
        validate=validator_of(hint),
    )


def _takes_mapping(hint: Any) -> bool:
    if typing.get_origin(hint) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    origin = typing.get_origin(hint) or hint
    if hint is Any or hint is object or typing.is_typeddict(hint):
        return True
    if not isinstance(origin, type) or origin is types.UnionType:
        return any(_takes_mapping(choice) for choice in typing.get_args(hint))
    if (note := library_note(origin)) is not None:
        return note.takes_mapping
    named_tuple = issubclass(origin, tuple) and hasattr(origin, "_fields")
    return is_dataclass(origin) or hasattr(origin, "model_validate") or issubclass(origin, Mapping) or named_tuple


def _validated(
    parameter: _Parameter, validate: Callable[[Any], Any], value: Any, problems: list[ArgumentProblem]
) -> Any:
    try:
        return validate(value if type(value) in PLAIN else plain_integers(value))
    except ValueError as error:
        from pydantic_core import ValidationError

        if not isinstance(error, ValidationError):
            raise
        problems.extend(problems_of(error, parameter.name))
        return None


def problems_of(error: ValidationError, name: str) -> list[ArgumentProblem]:
    """Pydantic's errors, each with its place inside the argument (or the result) called `name`."""
    return [
        ArgumentProblem(".".join([name, *map(str, detail["loc"])]), shown(detail["input"]), detail["msg"])
        for detail in error.errors(include_url=False, include_context=False, include_input=True)
    ]
