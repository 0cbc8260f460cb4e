"""The half of the front door that looks back: `data` and `play`."""

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
    """What was recorded, for whoever wants it back: in a session or outside of any."""

    @property
    @abstractmethod
    def session_id(self) -> str | None:
        """The name of the session, None outside of one."""

    @abstractmethod
    def _joined(self, call: str) -> Client:
        """The way into the session; raises `NotJoined`, which names the call."""

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
        """What was recorded: an iterator of records, with `to_pandas()`, `to_arrow()` and `to_numpy()`.

        `session` is a session's name; left out, the one that this program is in, else the one recorded last. `folder`
        is a ledger's folder instead. `run` is a run's id, or the name of one: then the last of that name. `trial` is
        the number of one of its trials, several, or "all": what belongs to trials that are done, of a repeated one the
        attempt that counts. `topic` may have wildcards; `instance` is who published; `since` and `until` are
        unix seconds, a datetime, "2025-01-16 11:28", or how long ago ("-10 min"); `where` is a function of the value,
        or a condition: "celsius > 21", {"mode": "fast"}, ("celsius", ">", 21), or a list of them.

        Works without a session, and while one is recorded. Raises `NoLedger`, `SeveralLedgers`, `QueryMistake`,
        `InvalidName`; reading raises `LedgerError`.
        """
        import time

        from ether.reading.query import DataRequest, ask
        from ether.reading.run_facts import of_run

        request = DataRequest(topic, run, instance, since, until, where, kinds)
        ledger = folder if folder is not None else session if session is not None else self.session_id
        data = ask(request, ledger, now=time.time(), environment=os.environ)
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
        """Publish recorded messages again, into this session: the same bodies, in the recorded order and rhythm.

        The messages are chosen as for `data`. `speed` is how many recorded seconds pass in one, "max" leaves no
        pauses; `as_topic` takes the place of the recorded topics. Each message names the recorded one as its parent,
        and is marked as a replay. Returns when the broker has acknowledged all, with how many there were.
        """
        from ether.runs.pacing_rules import speed_of
        from ether.runs.replay import Player

        client = self._joined("ether.play()")
        data = self.data(
            session, topic, run, instance=instance, since=since, until=until, where=where, kinds=("data",),
            folder=folder,
        )  # fmt: skip
        return Player(client, data, speed_of(speed), as_topic).play()
