"""Trials that begin with steps of ours: `Scan` calls a setter before the body of each trial, and reads back what it has
set; `PlannedTrials` carries out the `plan:` of the configuration.

Promises: what was set and what was read back is on disk before the body begins. The trap: these are iterators around
`Trials`, and the row of trials watches whether the user's loop still holds them; nothing else may keep them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ether.errors import ReadbackDiffers
from ether.runs.trial import Trial
from ether.runs.trials import Trials

if TYPE_CHECKING:
    from ether.config.plan import RunPlan
    from ether.session.client import Client

_READ_TIMEOUT_S = 60.0
"""Bound of one planned reading; the plan gives none."""

Setter = Callable[..., Any] | Mapping[str, Callable[[Any], Any]]
Reader = Callable[[], Any] | Mapping[str, Callable[[], Any]]
Tolerance = float | Mapping[str, float]


class Scan(Iterator[Trial]):
    """The trials of a scan that are still to be done. Made by `run.scan()`."""

    def __init__(
        self, trials: Trials, setter: Setter, read: Reader | None, within: Tolerance | None, *,
        several: bool | None = None,
    ) -> None:  # fmt: skip
        """With `several`, a condition is a dict of the setter's arguments; without, it is the setter's one argument;
        with None each condition decides by itself. Several setters, by name, get one value each."""
        self.row = trials.row
        self._trials = trials
        self._setter, self._read, self._within, self._several = setter, read, within, several

    def __len__(self) -> int:
        """The number of trials that are still to come."""
        return len(self._trials)

    def __iter__(self) -> Scan:
        return self

    def __next__(self) -> Trial:
        return _next_after(self._trials, self._move)

    def _move(self, trial: Trial) -> None:
        self._set(trial, trial.condition)
        if self._read is not None:
            trial.readback = self._read_back(trial, self._read)
        # Recorded before the comparison, so that a readback that differs is on disk, too.
        self.row.note_setting(trial)
        if self._read is not None and self._within is not None:
            self._check(trial, self._within)

    def _set(self, trial: Trial, asked: Any) -> None:
        if isinstance(self._setter, Mapping):
            # Each device is set for each trial, also to the value that it should still have: it may have been
            # restarted, and this program too.
            for name, setter in self._setter.items():
                refuse_failure(trial, setter(asked[name]))
        else:
            several = isinstance(asked, Mapping) if self._several is None else self._several
            refuse_failure(trial, self._setter(**asked) if several else self._setter(asked))

    def _read_back(self, trial: Trial, read: Reader) -> Any:
        if not isinstance(read, Mapping):
            found = read()
            refuse_failure(trial, found)
            return found
        values = {name: each() for name, each in read.items()}
        for value in values.values():
            refuse_failure(trial, value)
        return values

    def _check(self, trial: Trial, within: Tolerance) -> None:
        """Compare the readback with the setting, number by number. Raises `ReadbackDiffers`.

        Parameters that are read back by name are compared by name. Otherwise several parameters are compared in the
        order of the condition's keys: a readback is one number, a list, or a dict in the same order. Another number of
        values differs, too."""
        asked, found = trial.condition, trial.readback
        wanted = dict(asked) if isinstance(asked, Mapping) else {"": asked}
        if isinstance(self._read, Mapping):
            wanted = {name: wanted[name] for name in found}
        given = list(found.values() if isinstance(found, Mapping) else found if _is_list(found) else [found])
        limits = [within.get(name) if isinstance(within, Mapping) else within for name in wanted]
        near = len(given) == len(wanted) and all(
            limit is None or abs(one - other) <= limit
            for one, other, limit in zip(wanted.values(), given, limits, strict=True)
        )
        if not near:
            raise ReadbackDiffers(str(trial), asked, found, within)


class PlannedTrials(Iterator[Trial]):
    """The trials of a run's plan that are still to be done. Made by `run.planned()`."""

    def __init__(self, client: Client, trials: Trials, plan: RunPlan) -> None:
        """`trials` have the conditions of `plan`; its setting and calls go to the instances that it names."""
        self.row = trials.row
        self._trials = trials if plan.set is None else _planned_scan(client, trials, plan)
        self._calls = [(_method(client, call.call, call.timeout_s), call) for call in plan.calls]

    def __len__(self) -> int:
        """The number of trials that are still to come."""
        return len(self._trials)

    def __iter__(self) -> PlannedTrials:
        return self

    def __next__(self) -> Trial:
        return _next_after(self._trials, self._call)

    def _call(self, trial: Trial) -> None:
        for method, call in self._calls:
            refuse_failure(trial, method(*call.args, **call.kwargs))


def _next_after(trials: Iterator[Trial], step: Callable[[Trial], None]) -> Trial:
    """The next trial, after a step of ours before its body. Where an instance dies in the step, the trial is repeated
    as it is for a body in a `with` block."""
    while True:
        trial = next(trials)
        try:
            step(trial)
        except Exception as error:
            if not trial.ended(error):
                raise
        else:
            return trial


def _planned_scan(client: Client, trials: Trials, plan: RunPlan) -> Scan:
    """The scan of a plan that has a setting."""
    assert plan.set is not None
    read = None if plan.read is None else _method(client, plan.read, _READ_TIMEOUT_S)
    return Scan(trials, _method(client, plan.set.call, plan.set.timeout_s), read, plan.within)


def _method(client: Client, call: str, timeout_s: float) -> Callable[..., Any]:
    """The method of an instance that the text `instance.method` names."""
    instance, _, name = call.rpartition(".")
    method: Callable[..., Any] = getattr(client.proxy(instance, timeout_s, of_class=False), name)
    return method


def refuse_failure(trial: Trial, answer: object) -> None:
    """Raise `RuntimeError` for the answer of a method marked `@ether_save` whose status is `error`."""
    if isinstance(answer, Mapping) and answer.get("status") == "error" and "error" in answer:
        raise RuntimeError(f"{trial}: {answer.get('message') or answer['error']}")


def _is_list(value: object) -> bool:
    return isinstance(value, (list, tuple))
