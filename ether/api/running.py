"""The half of the front door for experiments: named runs, and waiting for a condition."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ether.errors import NoRunHere, NotAllowedHere

if TYPE_CHECKING:
    from ether.config.plan import RunPlan
    from ether.launch.launcher import Launch
    from ether.runs.run import Run
    from ether.session.client import Client

_ASK_S = 5.0


class Running(ABC):
    """Runs of trials, for the program that leads an experiment."""

    @abstractmethod
    def _joined(self, call: str) -> Client:
        """The way into the session; raises `NotJoined`, which names the call."""

    @abstractmethod
    def _launched(self, call: str) -> Launch:
        """This program's part in the session; raises `NotJoined` and `NotAllowedHere`."""

    def run(
        self, name: str, /, *, resume: bool = False, suspend_while: Mapping[str, object] | None = None,
        progress: bool | None = None, **metadata: Any,
    ) -> Run:  # fmt: skip
        """A named run, as a context: `with ether.run("dose-response", compound="A") as run:`. Its beginning, its end
        and how it ended are recorded; all that anybody of the session saves meanwhile belongs to it.

        `resume` goes on with the last run of that name, at the first trial that is not done; with a new one where
        there is none. `suspend_while` maps topics to conditions (a function of the value, or a value): as long as one
        holds, no trial begins; left out, those that the configuration plans for a run of this name. `progress` draws a
        bar; left out, where there is a terminal.

        The run has an `id`, `name/N`; `run.trials(…)`, `run.scan(…)` and `run.planned()` are its trials. Raises, on
        entering, `RunGoesOn`, `RunDiffers`, `NotSaved`, `InvalidName`.
        """
        from ether.config.names import check_name
        from ether.runs.run import Run, RunOptions
        from ether.system.process_owner import is_dead_here, owner_facts

        plan = self._launched("ether.run()").config.plan.get(check_name("run", name))
        client = self._joined("ether.run()")
        if client.record_writer is None:
            raise NotAllowedHere("ether.run()", "nothing is recorded in a lab")
        owner = owner_facts(client.link.source, client.record_writer.options.run)
        options = RunOptions(
            name, metadata, owner, resume, _held_up_by(suspend_while, plan), progress, plan
        )  # fmt: skip
        return Run(client, client.record_writer, options, is_dead_here)

    def pause_run(self, why: str = "", *, timeout_s: float = _ASK_S) -> str:
        """Hold up the run that goes on in this session, whichever program leads it, before its next trial. Returns the
        run's id; raises `NoRunHere`."""
        return self._ask_run("ether.pause_run()", "pause", why, timeout_s)

    def resume_run(self, *, timeout_s: float = _ASK_S) -> str:
        """Let it go on; as `pause_run`."""
        return self._ask_run("ether.resume_run()", "resume", "", timeout_s)

    def wait_for(self, topic: str, condition: Callable[[Any], object] | None = None, *, timeout_s: float = 60.0) -> Any:
        """Wait for a message whose value meets a condition: `ether.wait_for("temp", lambda t: t > 37, timeout_s=60)`.
        Returns its value. Only messages that come after this call count; without a condition the first one does.

        Raises `ConditionNotMet`, which says what came last; what the condition raises, with a note of the value.
        """
        from ether.runs.interlock import wait_for

        return wait_for(self._joined("ether.wait_for()"), topic, condition, timeout_s)

    def _ask_run(self, call: str, verb: str, why: str, timeout_s: float) -> str:
        from ether.runs.run_control import ask_run

        client = self._joined(call)
        for program in self._programs(client, timeout_s):
            told = ask_run(client, program, verb, why, timeout_s)
            if told is not None:
                return str(told["run"])
        raise NoRunHere(call)

    @staticmethod
    def _programs(client: Client, timeout_s: float) -> list[str]:
        """Those that may lead a run: the one that the retained tag names comes first."""
        client.session.open(timeout_s)
        leader = str(client.session.info(timeout_s).get("program") or "main")
        others = [member.name for member in client.session.announcements() if member.kind != "instance"]
        return [*dict.fromkeys([leader, *others])]


def _held_up_by(given: Mapping[str, object] | None, plan: RunPlan | None) -> Mapping[str, object]:
    """What is given goes before what is planned."""
    if given is not None or plan is None:
        return dict(given or {})
    return dict(plan.suspend_while)
