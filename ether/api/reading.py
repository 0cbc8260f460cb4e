"""The part of the front door that reads recorded data: `data`, `runs` and `play`."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ether.ledger.reader import StoredRecord
    from ether.reading.data import Data
    from ether.reading.filter_rules import Moment, Where
    from ether.reading.find_runs import FoundRun, Runs, Sessions
    from ether.reading.run_facts import WhichTrials
    from ether.runs.replay import Played
    from ether.session.client import Client

_VALUES = ("data", "record")


class Reading(ABC):
    """Recorded data, with or without a session."""

    @property
    @abstractmethod
    def session_id(self) -> str | None:
        """The name of the session; None without one."""

    @abstractmethod
    def _joined(self, call: str) -> Client:
        """The access to the session. Raises `NotJoined`, which names the call."""

    @abstractmethod
    def _on_read(self) -> Callable[[StoredRecord], object] | None:
        """Notes a record that this program reads; None without a session."""

    def data(
        self,
        session: Sessions | None = None,
        topic: str | None = None,
        run: str | None = None,
        *,
        runs: Iterable[FoundRun] | Where | None = None,
        trial: WhichTrials | None = None,
        instance: str | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        where: Where | None = None,
        kinds: Sequence[str] = _VALUES,
        folder: str | os.PathLike[str] | None = None,
    ) -> Data:
        """Recorded data: an iterable of records, with `to_pandas()`, `to_arrow()` and `to_numpy()`. Works without a
        session, and while the data is being recorded.

        `session` is the name of a session; without it, this program's session is read, or else the one that was
        recorded last. `folder`, a ledger's folder, may be given instead. A pattern of names (`animal7*`) or a list of
        sessions reads several ledgers as one; each record then says its `session`. All other parameters narrow the
        records down:

        - `topic`: a topic; `+` and `#` are wildcards.
        - `run`: the id of a run, or a run's name, which means the last run of that name.
        - `runs`: what `ether.runs()` has found, or the condition for it (`"animal == 7"`), in any number of ledgers:
          without `session`, in all.
        - `trial`: the number of a trial of that run, a list of numbers, or "all". Only trials that are done count; of a
          repeated trial, the last attempt that was done. Trials inside of a trial are among it.
        - `instance`: the name of the instance that published or recorded.
        - `since`, `until`: unix seconds, a datetime, a text such as "2025-01-16 11:28", or a time before now such as
          "-10 min".
        - `where`: a function of the value, or a condition such as "celsius > 21", {"mode": "fast"},
          ("celsius", ">", 21), or a list of conditions that all have to hold.
        - `kinds`: the kinds of entries; by default published messages ("data") and recorded values ("record").

        Raises `NoLedger`, `SeveralLedgers`, `QueryMistake`, `InvalidName`. Reading raises `LedgerError`.
        """
        from ether.reading.query import DataRequest
        from ether.reading.several import ask_any
        from ether.system.clock import wall_time

        request = DataRequest(topic, run, instance, since, until, where, kinds)
        wanted = folder if folder is not None else session
        data = ask_any(request, wanted, runs, trial, self.session_id, now=wall_time(), environment=os.environ)
        data.on_read = self._on_read()
        return data

    def runs(
        self,
        where: Where | None = None,
        *,
        session: Sessions | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
    ) -> Runs:
        """The named runs of all ledgers of this user (or of `session`: a name, a pattern of names, a folder, or a list
        of these), in the order in which they began, by what was said of them when they began:
        `ether.runs("animal == 7", since="-3 weeks")`. Works without a session.

        `where` is a condition as in `data`, on the metadata of the run, and on `run`, `name`, `session`, `status`,
        `trials`, `trials_done`, `error`. Some of the run lies between `since` and `until`. A list, with `to_pandas()`;
        `ether.data(runs=…)` reads what was recorded in them. Raises `NoLedger`, `SeveralLedgers`, `QueryMistake`.
        """
        from ether.reading.find_runs import find_runs
        from ether.system.clock import wall_time

        return find_runs(session, where, since, until, now=wall_time(), environment=os.environ)

    def play(
        self,
        session: str | os.PathLike[str] | None = None,
        topic: str | None = None,
        run: str | None = None,
        *,
        instance: str | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        where: Where | None = None,
        folder: str | os.PathLike[str] | None = None,
        speed: float | str = 1.0,
        as_topic: str | None = None,
        onto_devices: bool = False,
    ) -> Played:
        """Publish recorded messages again, into this session: the same bodies, in the recorded order and with the
        recorded timing.

        The messages are chosen by the parameters of `data`. `speed` is the number of recorded seconds that pass in one
        second; "max" leaves no pauses. With `as_topic`, all messages go to that topic instead of their recorded ones.
        Each message is marked as a replay, and names the recorded message as its parent. What it causes is refused
        (`ReplayRefused`) by methods with limits or a safe state and by the adapters of `hardware_adapters`, and topics
        of other programs are left out; with `onto_devices` nothing of that is.

        Returns when the broker has acknowledged all messages: the numbers sent and skipped, and the duration in
        seconds. Raises as `data`, and `PublishTimeout`, `TransportError`.
        """
        from ether.runs.pacing_rules import speed_of
        from ether.runs.replay import Player

        client = self._joined("ether.play()")
        data = self.data(
            session, topic, run, instance=instance, since=since, until=until, where=where, kinds=("data",),
            folder=folder,
        )  # fmt: skip
        data.on_read = None  # what is played is no input of this program
        return Player(client, data, speed_of(speed), as_topic, onto_devices=onto_devices).play()

    @staticmethod
    def check_device(device: str, what: str = "a command") -> None:
        """For drivers of your own, before they move something: raises `ReplayRefused` where a replay is what has caused
        the present call, through any number of hops, and it is not meant for devices. `what` was to be done with
        `device`; both are for the error's text."""
        from ether.connection.causes import check_device

        check_device(device, what)
