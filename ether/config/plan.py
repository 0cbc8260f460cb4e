"""What the YAML may say of experiments before they run: `plan:`, a mapping from names of runs to their plans.

The plan is not a second copy of the program: `run.planned()` makes the trials from it, so the run does what `ether
plan` has checked. What the program does inside its trials (`waits_for`, `syncs`, `data`) is stated here, too, and is
checked as stated.

The trap: sizes and durations need a unit. `each: 30` would have to be guessed.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from ether.config.drivers import Identifier, Names, WhenText
from ether.config.names import PREPARE, check_name
from ether.config.part import ConfigPart
from ether.config.when import duration_s
from ether.errors import ConfigError

SIZES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]+)")
_CALL_RULE = "expected an instance and its method, such as stage.move."


def size_bytes(text: object) -> float:
    """The bytes of a size such as `2 MB`; raises `ConfigError` with the rule."""
    found = _SIZE.fullmatch(text.strip()) if isinstance(text, str) else None
    if found is None or found[2] not in SIZES:
        raise ConfigError(f"found {text!r:.60}; write a number and its unit ({', '.join(SIZES)}), such as 2 MB.")
    return float(found[1]) * SIZES[found[2]]


def _check_size(text: Any) -> Any:
    size_bytes(text)
    return text


def _check_duration(text: Any) -> Any:
    duration_s(text)
    return text


def _check_call(text: str) -> str:
    instance, _, method = text.rpartition(".")
    if not instance or not method.isidentifier():
        raise ConfigError(f"found {text!r:.60}; {_CALL_RULE}")
    return text


def _short_call(value: Any) -> Any:
    """`stage.home` is short for `{call: stage.home}`."""
    return {"call": value} if isinstance(value, str) else value


def _list(value: Any) -> Any:
    return [] if value is None else value if isinstance(value, (list, tuple)) else [value]


def _empty_if_none(value: Any) -> Any:
    return {} if value is None else value


def _check_one_source(plan: RunPlan) -> RunPlan:
    if (plan.trials is None) == (plan.conditions is None):
        given = "neither trials nor conditions" if plan.trials is None else "both trials and conditions"
        raise ConfigError(f"found {given}; expected one of them: a number of trials, or the conditions of each.")
    if plan.set is not None and plan.conditions is None:
        raise ConfigError("found set without conditions; what is set are the conditions.", path="set")
    if plan.order == "snake" and not (isinstance(plan.conditions, dict) and plan.by == "grid"):
        raise ConfigError("found snake; this order needs a grid: conditions by name, and by: grid.", path="order")
    return plan


SizeText = Annotated[str, BeforeValidator(_check_size)]
DurationText = Annotated[str, BeforeValidator(_check_duration)]
CallName = Annotated[str, AfterValidator(_check_call)]
UnitText = Annotated[str, Field(min_length=1)]


class PlannedSetting(ConfigPart):
    """What is called with the condition of each trial."""

    call: CallName = Field(
        description="instance.method, called with the condition; with its keys where it is a mapping"
    )
    unit: UnitText | dict[Identifier, UnitText] | None = Field(
        None, description="the unit of the conditions, or of each parameter; it must be the method's own"
    )
    timeout_s: float = Field(60.0, gt=0, description="how long the call may take")


class TrialCall(PlannedSetting):
    """One call that is made in every trial, before its body."""

    call: CallName = Field(description="instance.method")
    args: Annotated[tuple[Any, ...], BeforeValidator(_list)] = Field((), description="a list of arguments")
    kwargs: Annotated[dict[str, Any], BeforeValidator(_empty_if_none)] = Field(
        {}, description="a mapping of arguments by name"
    )


class PlannedData(ConfigPart):
    """What is to be recorded on a topic. What is left out is taken from past runs of the session."""

    every: WhenText | None = Field(None, description="how often a message comes, such as 10Hz or 0.5s")
    per_trial: float | None = Field(None, ge=0, description="how many messages a trial makes, instead of every")
    size: SizeText | None = Field(None, description="how large a message is, such as 2 MB")


Setting = Annotated[PlannedSetting | None, BeforeValidator(_short_call)]
TrialCalls = Annotated[tuple[Annotated[TrialCall, BeforeValidator(_short_call)], ...], BeforeValidator(_list)]


class RunPlan(ConfigPart):
    """One run: its trials, what happens in each, and what it may take."""

    trials: int | None = Field(None, ge=1, strict=True, description="how many trials")
    conditions: list[Any] | dict[Identifier, list[Any]] | None = Field(
        None, description="a list with the condition of each trial; or lists of the values of parameters, by name"
    )
    by: Literal["grid", "zip"] = Field(
        "grid", description="of parameters: every combination, or the first of each, then the second"
    )
    order: Literal["given", "random", "snake"] = Field(
        "given", description="given, random, or snake: a grid to and fro, so that one parameter changes at a time"
    )
    seed: int | None = Field(None, strict=True, description="makes the same random order again")
    prepare: str | None = Field(
        PREPARE, min_length=1, description="the sync topic that prepares a trial; null for none"
    )
    again: int = Field(0, ge=0, strict=True, description="how often a trial during which an instance died is repeated")
    set: Setting = Field(None, description="instance.method that is called with each trial's condition")
    read: CallName | None = Field(None, description="instance.method whose value is read back after that")
    within: float | None = Field(None, ge=0, description="how far what is read back may be away")
    calls: TrialCalls = Field((), description="calls that are made in each trial, before its body, in this order")
    suspend_while: Annotated[dict[str, Any], BeforeValidator(_empty_if_none)] = Field(
        {}, description="topics and values: as long as one of them has that value, no trial begins"
    )
    waits_for: Names = Field((), description="topics that the program waits for in a trial")
    syncs: Names = Field((), description="sync topics that the program calls in a trial")
    outside: Names = Field((), description="topics that come from programs or devices that are no instances here")
    data: Annotated[
        dict[str, Annotated[PlannedData, BeforeValidator(_empty_if_none)]], BeforeValidator(_empty_if_none)
    ] = Field({}, description="what is to be recorded, by topic")
    each: DurationText | None = Field(None, description="how long one trial takes, such as 30s")
    at_most: DurationText | None = Field(None, description="how long the whole run may take, such as 2h")


def _check_run(name: str) -> str:
    return check_name("run", name)


RunPlans = Annotated[
    dict[
        Annotated[str, AfterValidator(_check_run)],
        Annotated[RunPlan, BeforeValidator(_empty_if_none), AfterValidator(_check_one_source)],
    ],
    BeforeValidator(_empty_if_none),
]
