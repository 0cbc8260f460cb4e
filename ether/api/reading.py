"""The part of the front door that reads recorded data: `data` and `play`."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ether.reading.data import Data
    from ether.reading.filter_rules import Moment, Where
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

    def data(
        self,
        session: str | os.PathLike[str] | None = None,
        topic: str | None = None,
        run: str | None = None,
        *,
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
        recorded last. `folder`, a ledger's folder, may be given instead. All other parameters narrow the records down:

        - `topic`: a topic; `+` and `#` are wildcards.
        - `run`: the id of a run, or a run's name, which means the last run of that name.
        - `trial`: the number of a trial of that run, a list of numbers, or "all". Only trials that are done count; of a
          repeated trial, the last attempt that was done.
        - `instance`: the name of the instance that published or recorded.
        - `since`, `until`: unix seconds, a datetime, a text such as "2025-01-16 11:28", or a time before now such as
          "-10 min".
        - `where`: a function of the value, or a condition such as "celsius > 21", {"mode": "fast"},
          ("celsius", ">", 21), or a list of conditions that all have to hold.
        - `kinds`: the kinds of entries; by default published messages ("data") and recorded values ("record").

        Raises `NoLedger`, `SeveralLedgers`, `QueryMistake`, `InvalidName`. Reading raises `LedgerError`.
        """
        from ether.reading.query import DataRequest, ask
        from ether.reading.run_facts import of_run
        from ether.system.clock import wall_time

        request = DataRequest(topic, run, instance, since, until, where, kinds)
        ledger = folder if folder is not None else session if session is not None else self.session_id
        data = ask(request, ledger, now=wall_time(), environment=os.environ)
        return of_run(data, trial)

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
    ) -> Played:
        """Publish recorded messages again, into this session: the same bodies, in the recorded order and with the
        recorded timing.

        The messages are chosen by the parameters of `data`. `speed` is the number of recorded seconds that pass in one
        second; "max" leaves no pauses. With `as_topic`, all messages go to that topic instead of their recorded ones.
        Each message is marked as a replay, and names the recorded message as its parent.

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
        return Player(client, data, speed_of(speed), as_topic).play()
