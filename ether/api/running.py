"""The part of the front door for experiments: named runs, and waiting for a condition."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ether.errors import NoRunHere, NotAllowedHere
from ether.errors.keywords import probably_meant
from ether.log import get_ether_logger

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
        """The access to the session. Raises `NotJoined`, which names the call."""

    @abstractmethod
    def _launched(self, call: str) -> Launch:
        """What this program has started or joined. Raises `NotJoined`; `NotAllowedHere` inside of an instance."""

    def run(
        self, name: str, /, *, resume: bool = False, suspend_while: Mapping[str, object] | None = None,
        progress: bool | None = None, **metadata: Any,
    ) -> Run:  # fmt: skip
        """A named run, as a context manager: `with ether.run("dose-response", compound="A") as run:`.

        Its beginning, its end and the way in which it ended are recorded, with `metadata` (here `compound`). All data
        that any instance or program of the session saves meanwhile belongs to the run. Its trials come from
        `run.trials(…)`, `run.scan(…)`, `run.adapt(…)` or `run.planned()`. Its `id` is `name/N`, for the Nth run of that
        name.

        With `resume`, the last run of that name goes on at its first trial that is not done; where there is none, a
        new run begins. `suspend_while` maps topics to conditions (a function of the value, or a value to be equal to):
        while one of them holds, no trial begins. Without it, the conditions are those that the configuration plans for
        a run of this name. `progress` says whether a progress bar is drawn; without it, where standard error is a
        terminal.

        Raises `InvalidName`, `NotJoined`, `NotAllowedHere`. Raises on entering `RunGoesOn` where another run goes on in
        this session; `RunDiffers` where a resumed run had other metadata or other devices; `NotSaved` where no recorder
        writes the beginning.
        """
        from ether.config.names import check_name
        from ether.runs.run import Run, RunOptions
        from ether.system.process_owner import is_dead_here, owner_facts

        for key in metadata:
            if (meant := probably_meant(key, ["resume", "suspend_while", "progress"])) is not None:
                get_ether_logger().warning(
                    "ether.run(): %s= is recorded as metadata of run %r. Did you mean %s=?", key, name, meant
                )
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
        """Hold up the run that goes on in this session before its next trial, whichever program leads it. `why` is
        recorded and shown. Returns the run's id; raises `NoRunHere` where no program answers within `timeout_s`
        seconds each."""
        return self._ask_run("ether.pause_run()", "pause", why, timeout_s)

    def resume_run(self, *, timeout_s: float = _ASK_S) -> str:
        """Let a paused run go on. Result and errors are those of `pause_run`."""
        return self._ask_run("ether.resume_run()", "resume", "", timeout_s)

    def stop_run(self, why: str = "", *, timeout_s: float = _ASK_S) -> str:
        """End the run that goes on in this session, whichever program leads it: where its next trial would begin,
        `RunStopped` is raised there. Result and errors are those of `pause_run`."""
        return self._ask_run("ether.stop_run()", "stop", why, timeout_s)

    def wait_for(self, topic: str, condition: Callable[[Any], object] | None = None, *, timeout_s: float = 60.0) -> Any:
        """Wait for a message on a topic whose value meets a condition, and return the value:
        `ether.wait_for("temp", lambda t: t > 37, timeout_s=60)`.

        Only messages that arrive after the call count. Without a condition, the first message is taken.

        Raises `ConditionNotMet` after `timeout_s` seconds, which shows the last value; and whatever the condition
        raises, with a note of the value.
        """
        from ether.runs.interlock import wait_for

        return wait_for(self._joined("ether.wait_for()"), topic, condition, timeout_s)

    def _ask_run(self, call: str, verb: str, why: str, timeout_s: float) -> str:
        from ether.runs.run_control import ask_run

        client = self._joined(call)
        for program in self._programs(client, timeout_s):
            answer = ask_run(client, program, verb, why, timeout_s)
            if answer is not None:
                return str(answer["run"])
        raise NoRunHere(call)

    @staticmethod
    def _programs(client: Client, timeout_s: float) -> list[str]:
        """The programs that may lead a run, the leader of the session first."""
        client.session.open(timeout_s)
        leader = str(client.session.info(timeout_s).get("program") or "main")
        others = [member.name for member in client.session.announcements() if member.kind != "instance"]
        return [*dict.fromkeys([leader, *others])]


def _held_up_by(given: Mapping[str, object] | None, plan: RunPlan | None) -> Mapping[str, object]:
    """The conditions that were given; without any, the planned ones."""
    if given is not None or plan is None:
        return dict(given or {})
    return dict(plan.suspend_while)
