"""The log of runs: writes a run's events so that they are on disk before the next step, and reads runs back.

Promises: `record()` returns when the event is on disk at a recorder; a resumed run goes by these events. The trap: the
recorder may die and be restarted at any moment, so writing and reading wait for it, each for a stated time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ether.connection import causes
from ether.connection.deadline import Deadline
from ether.errors import CallError, NotSaved
from ether.log import get_ether_logger
from ether.protocol.run_record import RunState, fact_topics
from ether.recording.writer import RecordWriter
from ether.session.client import Client
from ether.spec.marks import MarkKind

logger = get_ether_logger("Ether")

EVENT_TIMEOUT_S = 60.0
"""Bound for an event to be on disk. A recorder that was killed is back after a second or two."""

_CALL_S = 15.0


class RunLog:
    """The events of the runs of one session."""

    def __init__(self, client: Client, record_writer: RecordWriter) -> None:
        self._client = client
        self._record_writer = record_writer

    def record(self, run: str, event: str, facts: Mapping[str, Any], timeout_s: float = EVENT_TIMEOUT_S) -> None:
        """Write an event of a run, and return when it is on disk. Raises `NotSaved` after `timeout_s` seconds,
        `EncodeError`."""
        of_run, of_trials = fact_topics(run)
        topic = of_run if event in ("begin", "end") else of_trials
        said = {"event": event, **facts}
        self._record_writer.record("run", topic, said, (), {"run": run}, causes.origin()).wait(timeout_s)

    def runs(self, run: str | None = None, timeout_s: float = EVENT_TIMEOUT_S) -> dict[str, RunState]:
        """The named runs of the ledger by id, or the run with the id `run` alone, as a recorder tells.

        Raises `NotSaved` where no recorder appears within `timeout_s` seconds, the last `CallError` where none answers.
        """
        deadline = Deadline(timeout_s)
        problem: CallError | None = None
        while not deadline.passed:
            names = self._record_writer.await_recorder(deadline)
            for name in names:
                try:
                    states = self._client.call(name, "runs", {"run": run}, min(_CALL_S, deadline.left()), MarkKind.GET)
                except CallError as error:
                    problem = error
                    logger.debug("recorder %s did not say which runs there are: %s", name, error)
                    continue
                return {state["id"]: RunState.from_value(state) for state in states}
            if names:  # recorders that are there and do not answer are asked again, but not in a busy loop
                self._client.session.await_change(lambda: False, min(0.2, deadline.left()))
        if problem is not None:
            raise problem
        raise NotSaved("the beginning of the run", f"no recorder came within {timeout_s:g} s")
