"""The trials of a run as the configuration plans them, so that what `ether plan` has checked is what happens.

Promises: each trial's setting, what is read back, and the calls of the plan come before its body, in the plan's order;
a call that fails ends the run as an error in its body would. The trap: arguments travel by name, as with every proxy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ether.errors import NotPlanned
from ether.runs.plan.plan_rules import conditions_at
from ether.runs.scan import Scan, refuse_failure
from ether.runs.trials import Trial, Trials

if TYPE_CHECKING:
    from ether.config.plan import PlannedSetting, RunPlan
    from ether.runs.run import Run
    from ether.session.client import Client

_READ_TIMEOUT_S = 60.0


class PlannedTrials(Iterator[Trial]):
    """What is left of the planned trials. Made by `run.planned()`."""

    def __init__(self, client: Client, row: Trials | Scan, plan: RunPlan) -> None:
        self.row = row
        self._calls = [(_method(client, call.call, call.timeout_s), call) for call in plan.calls]

    def __len__(self) -> int:
        """How many are still to come."""
        return len(self.row)

    def __iter__(self) -> PlannedTrials:
        return self

    def __next__(self) -> Trial:
        trial = next(self.row)
        for method, call in self._calls:
            refuse_failure(trial, method(*call.args, **call.kwargs))
        return trial


def planned_trials(run: Run, plan: RunPlan | None) -> PlannedTrials:
    """The trials of a run by its plan. Raises `NotPlanned`, and what `run.trials()` raises."""
    if plan is None:
        raise NotPlanned(run.name)
    conditions = [condition.value for condition in conditions_at(plan, ())]
    row = run.trials(conditions, order=plan.order, seed=plan.seed, prepare=plan.prepare, again=plan.again)
    client = run.client
    return PlannedTrials(client, row if plan.set is None else _scan(client, row, plan, plan.set), plan)


def _scan(client: Client, row: Trials, plan: RunPlan, setting: PlannedSetting) -> Scan:
    read = None if plan.read is None else _method(client, plan.read, _READ_TIMEOUT_S)
    setter = _method(client, setting.call, setting.timeout_s)

    def set_to(condition: Any) -> Any:
        return setter(**condition) if isinstance(condition, Mapping) else setter(condition)

    return Scan(row, set_to, read, plan.within, several=False)


def _method(client: Client, call: str, timeout_s: float) -> Callable[..., Any]:
    instance, _, name = call.rpartition(".")
    method: Callable[..., Any] = getattr(client.proxy(instance, timeout_s, of_class=False), name)
    return method
