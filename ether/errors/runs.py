"""Errors of runs and their trials; the whole tree is drawn in `ether.errors`."""

from __future__ import annotations

from collections.abc import Mapping

from ether.errors.base import EtherError


class RunGoesOn(EtherError, RuntimeError):
    """A session has one named run at a time, and `run` goes on already, in the program `owner`."""

    def __init__(self, wanted: str, run: str, owner: str) -> None:
        self.wanted, self.run, self.owner = wanted, run, owner
        super().__init__(
            f"the run {wanted!r} cannot begin: {run!r} goes on in {owner}, and a session has one run at a time."
            " Wait for its end, or end that program."
        )


class RunDiffers(EtherError, ValueError):
    """The recorded run that is to be resumed differs from what the program describes now; `why` says in what."""

    def __init__(self, run: str, why: str) -> None:
        self.run, self.why = run, why
        super().__init__(
            f"the run {run!r} cannot go on: {why}. Give what it began with, or begin a new one (without resume=True)."
        )


class RunStopped(EtherError, RuntimeError):
    """Another program, or a person on the page, has ended the run; `why` says who. Raised where the next trial would
    begin."""

    def __init__(self, run: str, why: str) -> None:
        self.run, self.why = run, why
        super().__init__(f"the run {run!r} was stopped: {why}. With resume=True it goes on at its next trial.")


class TrialNotReady(EtherError, TimeoutError):
    """A trial cannot begin or end; `reasons` maps the name of each instance that is not ready to the reason."""

    def __init__(self, trial: str, what: str, reasons: Mapping[str, str]) -> None:
        self.trial, self.reasons = trial, dict(reasons)
        told = "; ".join(f"{name}: {why}" for name, why in self.reasons.items())
        super().__init__(f"{trial} cannot {what}: {told}")


class TrialDisturbed(EtherError, ConnectionError):
    """Instances that took part in a trial died during it. Values that they had not handed over yet are not saved, so
    the trial does not count. `instances` are their names."""

    def __init__(self, trial: str, instances: list[str]) -> None:
        self.trial, self.instances = trial, tuple(instances)
        super().__init__(
            f"{trial} does not count: {', '.join(instances)} died during it. Run the program again with resume=True: it"
            " goes on with this trial. run.trials(…, again=1) repeats such a trial at once."
        )


class ConditionNotMet(EtherError, TimeoutError):
    """`ether.wait_for()`: no message on `topic` met the condition within `timeout_s` seconds. `last` is the value of
    the last of the `heard` messages; `nearest` is the published topic that was probably meant, where nobody publishes
    this one."""

    def __init__(self, topic: str, timeout_s: float, heard: int, last: object, nearest: str | None = None) -> None:
        self.topic, self.timeout_s, self.heard, self.last, self.nearest = topic, timeout_s, heard, last, nearest
        told = f"{heard} came, the last one was {last!r:.200}" if heard else "none came at all"
        told += f", and nobody publishes it. Did you mean {nearest!r}?" if nearest else ""
        super().__init__(f"no message on {topic!r} met the condition within {timeout_s:g} s: {told}")


class ReadbackDiffers(EtherError, ValueError):
    """A scan set `asked` and read back `found`, which differs by more than `within` (of each parameter, where it is a
    mapping)."""

    def __init__(self, trial: str, asked: object, found: object, within: float | Mapping[str, float]) -> None:
        self.trial, self.asked, self.found, self.within = trial, asked, found, within
        limits = within.items() if isinstance(within, Mapping) else [("", within)]
        told = ", ".join(f"{name} {limit:g}".strip() for name, limit in limits)
        super().__init__(f"{trial}: {asked!r:.100} was set and {found!r:.100} read back; at most {told} may differ")


class NotPlanned(EtherError, LookupError):
    """`run.planned()`: the configuration has no plan for a run of this name."""

    def __init__(self, run: str) -> None:
        self.run = run
        super().__init__(
            f"run.planned() has no trials: the configuration of this session plans no run {run!r}. Describe it under"
            " plan: in the YAML, or use run.trials(…)"
        )


class NoRunHere(EtherError, LookupError):
    """An operation on a named run, in a session in which none goes on."""

    def __init__(self, attempted: str) -> None:
        self.attempted = attempted
        super().__init__(f"{attempted} needs a run that goes on, and this session has none; ether.run(…) begins one")
