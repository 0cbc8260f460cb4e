"""Where the conditions of trials come from when they are drawn one by one, while the run goes on: an iterator, or a
strategy that is told the result of each trial.

Promises: nothing is drawn before it is asked for. A resumed run draws what was drawn before once more, so that iterator
and strategy come to the state in which they were; where they then say something else, that is `RunDiffers`, or, where
the strategy is told the conditions anyway, a warning.

The trap: after a resume there are conditions and results as the ledger gives them, where a tuple is a list. A strategy
gets them in this form from the beginning, so that what works in the first life works in every other.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, Final

from ether.errors import RunDiffers
from ether.log import get_ether_logger
from ether.protocol.run_record import Attempts, TrialPlan
from ether.runs.trial_rules import same
from ether.wire.codec import decode, encode

logger = get_ether_logger("Ether")

END: Final = object()
"""No further condition comes."""

_STRATEGY = (
    "a strategy is an object with ask() and tell(condition, result), a generator that is sent the results, or a"
    " function of the list of (condition, result) so far, which returns the next condition, or None"
)


def as_recorded(value: Any) -> Any:
    """A value as it comes back from a ledger, to be compared with one: tuples become lists, keys become text."""
    return None if value is None else decode(*encode(value))


class ConditionSource(ABC):
    """Draws the conditions of one row of trials."""

    @abstractmethod
    def restore(self, run: str, plan: TrialPlan, trials: Mapping[int, Attempts]) -> list[Any]:
        """Come to the state after the recorded conditions of a row; returns them, as the body is to get them. Raises
        `RunDiffers`."""

    @abstractmethod
    def draw(self) -> Any:
        """The next condition, or `END`."""

    @abstractmethod
    def tell(self, condition: Any, result: Any) -> None:
        """A trial is done."""


class IteratedConditions(ConditionSource):
    """The items of an iterator."""

    def __init__(self, conditions: Iterator[Any]) -> None:
        self._conditions = conditions

    def draw(self) -> Any:
        return next(self._conditions, END)

    def tell(self, condition: Any, result: Any) -> None:
        return

    def restore(self, run: str, plan: TrialPlan, trials: Mapping[int, Attempts]) -> list[Any]:
        drawn: list[Any] = []
        for place, recorded in enumerate(plan.conditions, 1):
            condition = self.draw()
            if condition is END:
                raise RunDiffers(run, f"{len(plan.conditions)} conditions were drawn, and now there are {place - 1}")
            _check_same(run, place, recorded, as_recorded(condition))
            drawn.append(condition)
        if plan.complete and self.draw() is not END:
            raise RunDiffers(run, f"{len(drawn)} conditions were drawn in all, and now there are more")
        return drawn


class AdaptedConditions(ConditionSource):
    """What a strategy asks for."""

    def __init__(self, strategy: _Strategy) -> None:
        self._strategy = strategy

    def draw(self) -> Any:
        condition = self._strategy.ask()
        return END if condition is END or condition is None else as_recorded(condition)

    def tell(self, condition: Any, result: Any) -> None:
        self._strategy.tell(condition, result)

    def restore(self, run: str, plan: TrialPlan, trials: Mapping[int, Attempts]) -> list[Any]:
        for place, (number, condition) in enumerate(zip(plan.order, plan.conditions, strict=True), 1):
            self._strategy.ask_again(run, place, condition)
            attempts = trials.get(number, Attempts())
            if attempts.counts is not None:
                self.tell(condition, attempts.result)
        return list(plan.conditions)


def strategy_of(strategy: object) -> _Strategy:
    """A user's strategy by its form. Raises `TypeError` for something that has none of them."""
    if inspect.isclass(strategy):
        raise TypeError(f"run.adapt() asks an object, and {strategy.__name__} is a class: {_STRATEGY}")
    if callable(getattr(strategy, "ask", None)) and callable(getattr(strategy, "tell", None)):
        return _AskTell(strategy)
    if isinstance(strategy, Generator):
        return _Sent(strategy)
    if inspect.isgeneratorfunction(strategy):
        raise TypeError(f"{strategy!r:.80} makes generators and is none: call it, run.adapt(strategy(…)); {_STRATEGY}")
    if callable(strategy):
        return _OfHistory(strategy)
    raise TypeError(f"run.adapt() cannot ask {strategy!r:.80}: {_STRATEGY}")


class _Strategy(ABC):
    """A strategy in one of its forms. After `ask` comes `tell`, or the next `ask` where the trial was given up."""

    @abstractmethod
    def ask(self) -> Any:
        """The next condition; None or `END` for none."""

    @abstractmethod
    def tell(self, condition: Any, result: Any) -> None: ...

    @abstractmethod
    def ask_again(self, run: str, place: int, recorded: Any) -> None:
        """Ask for a condition that was asked for before this program, and is recorded."""


class _AskTell(_Strategy):
    """An object with `ask()` and `tell(condition, result)`, as optimizers have them."""

    def __init__(self, strategy: Any) -> None:
        self._strategy = strategy
        self._warned = False

    def ask(self) -> Any:
        try:
            return self._strategy.ask()
        except StopIteration:
            return END

    def tell(self, condition: Any, result: Any) -> None:
        self._strategy.tell(condition, result)

    def ask_again(self, run: str, place: int, recorded: Any) -> None:
        condition = self.ask()
        if not self._warned and (condition is END or not same(recorded, as_recorded(condition))):
            # An optimizer that draws at random without a seed. What it is told is what counts for it.
            self._warned = True
            logger.warning(
                "the strategy of run %s asks for another condition %d than before this program: it is told %.80r, which"
                " was done. With a seed of its own it would ask for the same",
                run, place, recorded,
            )  # fmt: skip


class _Sent(_Strategy):
    """A generator that yields conditions and is sent the result of each."""

    def __init__(self, strategy: Generator[Any, Any, Any]) -> None:
        self._strategy = strategy
        self._result: Any = None

    def ask(self) -> Any:
        result, self._result = self._result, None
        try:
            return self._strategy.send(result)
        except StopIteration:
            return END

    def tell(self, condition: Any, result: Any) -> None:
        self._result = result

    def ask_again(self, run: str, place: int, recorded: Any) -> None:
        condition = self.ask()
        if condition is END:
            raise RunDiffers(run, f"condition {place} was {recorded!r:.80}, and now the generator ends before it")
        _check_same(run, place, recorded, as_recorded(condition))


class _OfHistory(_Strategy):
    """A function of all conditions and results so far. It has no other state, so it is asked nothing twice."""

    def __init__(self, strategy: Callable[[list[tuple[Any, Any]]], Any]) -> None:
        self._strategy = strategy
        self._told: list[tuple[Any, Any]] = []

    def ask(self) -> Any:
        try:
            return self._strategy(list(self._told))
        except StopIteration:
            return END

    def tell(self, condition: Any, result: Any) -> None:
        self._told.append((condition, result))

    def ask_again(self, run: str, place: int, recorded: Any) -> None:
        return


def _check_same(run: str, place: int, recorded: Any, now: Any) -> None:
    if not same(recorded, now):
        raise RunDiffers(
            run,
            f"condition {place} was {recorded!r:.80}, and is {now!r:.80} now. Where conditions depend on results,"
            " run.adapt() tells them again when a run is resumed",
        )
