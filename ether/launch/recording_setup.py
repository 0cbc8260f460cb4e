"""From what the configuration says of recording to what is started and told: the recorder's instance, the saving side
of each process, what the contexts say of the configuration.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ether.config import EmbeddedBroker, EtherConfig, EtherInstanceConfig
from ether.config.names import RECORDER_CLASS_PATH, current_class_path
from ether.connection.deadline import Deadline
from ether.connection.link import Link
from ether.errors import OutboxFailed
from ether.launch.guest import Guest
from ether.launch.simulated_lab import Simulation
from ether.recording.outbox_file import adopt
from ether.recording.writer import RecordWriter, SavingOptions, WhenFull
from ether.session.client import Client
from ether.session.session import KEEP
from ether.system.folders import outbox_folder
from ether.wire.entries import Entry
from ether.wire.run_ids import SIMULATED
from ether.wire.topics import SessionTopics

if TYPE_CHECKING:
    from ether.provenance.context import Facts


def open_saver(
    link: Link, topics: SessionTopics, options: SavingOptions, leader: str, explain: Callable[[], Iterable[Entry]]
) -> RecordWriter:
    """The saving side of a process; `leader` is the program that starts a recorder where there is none."""
    record_writer = RecordWriter(link, topics, options)
    record_writer.explain = explain
    record_writer.ask_for_recorder = lambda: link.publish(topics.control(KEEP), {"instances": [leader], "do": "record"})
    record_writer.open()
    record_writer.adopt(link.source)
    return record_writer


def explained(
    name: str,
    incarnation: str,
    epoch: int,
    cls: type | None,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    class_path: str,
    registry: Mapping[str, Any],
    configuration: Mapping[str, Any],
) -> list[Entry]:
    """What explains an instance's values: its context, and before it what that refers to. Of a program, which has no
    class, its script."""
    from ether.provenance.context import InstanceFacts, make_context

    facts = InstanceFacts(name, incarnation, epoch, class_path, cls, args, kwargs, registry)
    return list(make_context(facts, configuration=configuration).entries(time.time()))


RECORDER = "recorder"
"""The instance that a session starts by itself when something is to be saved."""

LEADER = "main"
"""The program that starts a session, as it stands in the headers of what it publishes."""

SAVE_TIMEOUT_S = 5.0
"""For bringing what waits in the outbox to the recorder, at the end. What is left then waits on disk."""


def recorder_instance(config: EtherConfig) -> EtherInstanceConfig:
    """The recorder that a session starts by itself. Without `record:` it takes only what is saved by name."""
    chosen = config.record
    kwargs: dict[str, Any] = {"topics": []}
    if chosen is not None:
        topics = chosen.topics if isinstance(chosen.topics, str) else list(chosen.topics)
        kwargs = {"topics": topics, "logs": chosen.logs, "strangers": records_strangers(config)}
        if chosen.folder is not None:
            kwargs["folder"] = os.path.abspath(chosen.folder)
    return EtherInstanceConfig(
        class_path=RECORDER_CLASS_PATH, kwargs=kwargs, restart="always", restart_limit=1000, restart_window_s=1000.0
    )


def records_strangers(config: EtherConfig) -> bool:
    """Whether messages without Ether's headers are recorded. Left to itself: where programs that are not Ether's can be
    expected, which do not know the password of a broker of this session alone. Listening for them costs each message a
    delivery more."""
    chosen, broker = config.record, config.broker
    if chosen is not None and chosen.strangers != "auto":
        return chosen.strangers
    private = isinstance(broker, EmbeddedBroker) and broker.listen == "loopback" and broker.port == 0
    return not private


def is_recorder(name: str, instance: EtherInstanceConfig) -> bool:
    """Whether an instance records: it is ended last, when all others have saved."""
    return name == RECORDER or current_class_path(instance.class_path) == RECORDER_CLASS_PATH


def saving_options(config: EtherConfig, session: str, run: str) -> SavingOptions:
    """How a process of this session saves."""
    folder = outbox_folder(session)
    chosen = config.record
    if chosen is None:
        return SavingOptions(folder, run=run)
    outbox = chosen.outbox
    return SavingOptions(
        folder,
        None if chosen.topics == "all" else tuple(chosen.topics),
        run,
        int(outbox.max_mb * 1e6),
        outbox.max_age_s,
        WhenFull(outbox.when_full),
    )


class RecordingSetup:
    """The part that one program has in what its session records."""

    def __init__(self, config: EtherConfig, session: str, simulation: Simulation) -> None:
        mark = SIMULATED if simulation.wanted else ""
        self.run = f"{mark}{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(3).hex()}"
        """The id of this run of the session: when it began, and random bits; it says whether it was simulated."""
        self._simulation = simulation
        self.leader = LEADER
        """The program that starts a recorder where there is none."""
        self._config, self._session = config, session
        self._facts: Facts | None = None
        self._record_writer: RecordWriter | None = None

    def join(self, info: Mapping[str, Any]) -> None:
        """The session is another program's, which describes it so."""
        self.run = str(info.get("run") or "")
        self.leader = str(info.get("program") or LEADER)

    def recorder(self) -> EtherInstanceConfig:
        """The instance that records."""
        return recorder_instance(self._config)

    def instances(self, *, leads: bool) -> dict[str, EtherInstanceConfig]:
        """Those of the configuration; before them a recorder, where this program leads a session that is recorded."""
        described = self._config.named_instances()
        recorded = leads and self._config.record is not None and RECORDER not in described
        return {RECORDER: self.recorder(), **described} if recorded else described

    def options(self) -> SavingOptions:
        """How processes of this program save."""
        return saving_options(self._config, self._session, self.run)

    def configuration(self) -> dict[str, Any]:
        """What contexts say of the configuration."""
        return dict(self._described().described)

    def _described(self) -> Facts:
        if self._facts is None:
            from ether.provenance.context import Facts, configuration_facts, plain

            file, text, _ = self._config.written or (None, None, "")
            facts = configuration_facts(plain(self._config.model_dump()), text, file)
            simulation = self._simulation
            if simulation.facts is not None:
                described = {**facts.described, "simulated": simulation.facts}
                facts = Facts(described, (*facts.artifacts, *simulation.artifacts))
            self._facts = facts
        return self._facts

    # -- this program's own saving

    def open(self, client: Client, program: str) -> None:
        """From now on this program can save; what it could not bring to a recorder in an earlier life is sent."""
        self._record_writer = client.record_writer = self.record_writer_of(
            client.link, client.topics, program, "", 0, None
        )
        self._record_writer.adopt()
        if self._config.record is not None:
            simulated = {} if self._simulation.facts is None else {"simulated": self._simulation.facts}
            self._record_writer.keep_run(self.run, "begin", {"config": self.configuration()["sha256"], **simulated})

    def adopt(self) -> None:
        """Something is saved in this session: send what dead processes of it have left, from now on."""
        if self._record_writer is not None:
            self._record_writer.begin()

    def record_writer_of(
        self, link: Link, topics: SessionTopics, name: str, incarnation: str, epoch: int, cls: type | None
    ) -> RecordWriter:
        """The saving side of this program, or of an object that it hosts."""

        def explain() -> list[Entry]:
            artifacts = artifact_entries(self._described().artifacts, time.time())
            path = class_path_of(cls) if cls is not None else "__main__"
            return [*artifacts, *explained(name, incarnation, epoch, cls, (), {}, path, {}, self.configuration())]

        from ether.provenance.context import artifact_entries
        from ether.spec.methods import class_path_of

        return open_saver(link, topics, self.options(), self.leader, explain)

    def close(self, timeout_s: float = SAVE_TIMEOUT_S) -> None:
        """Bring what waits to the recorder. Twice is fine."""
        record_writer, self._record_writer = self._record_writer, None
        if record_writer is not None:
            if timeout_s and self._config.record is not None and record_writer.recorders():
                record_writer.keep_run(self.run, "end", {"status": "ended"})
            record_writer.close(timeout_s)


_HEAR_S = 5.0


@contextmanager
def saving(client: Guest, described: Mapping[str, Any]) -> Iterator[None]:
    """Within the block the client saves what the session's recorders want; `described` says what is played. What is
    not acknowledged at the end waits on disk, and the log says so."""
    info = client.session.info(_HEAR_S)
    options = SavingOptions(outbox_folder(client.topics.session), run=str(info.get("run") or ""))
    record_writer = open_saver(
        client.link,
        client.topics,
        options,
        str(info.get("program") or LEADER),
        lambda: explained(client.link.source, "", 0, None, (), {}, "ether.play", {}, {"play": dict(described)}),
    )
    client.session.hear_the_latest(Deadline(_HEAR_S))
    client.record_writer = record_writer
    try:
        yield
    finally:
        client.record_writer = None
        record_writer.close(SAVE_TIMEOUT_S)


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """An outbox whose process is dead: of which source, how many entries, in which file."""

    source: str
    count: int
    path: str


def left_behind(session: str) -> list[LeftBehind]:
    """The outboxes of a session's dead processes; they stay as they are. Files that cannot be read are named by their
    error, as with 0 entries. Raises `ConfigError`."""
    found: list[LeftBehind] = []
    waiting = adopt(outbox_folder(session))
    while True:
        try:
            file = next(waiting)
        except StopIteration:
            return found
        except OutboxFailed as error:
            found.append(LeftBehind(str(error), 0, error.path))
            continue
        found.append(LeftBehind(file.source, file.last - file.base, str(file.path)))
        file.close()
