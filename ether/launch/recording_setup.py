"""What a program sets up so that its session is recorded, from the configuration to the processes.

Three parts: the recorder's instance and the options of saving, as the configuration asks for them; `RecordingSetup`,
the part of one program in the recording of its session; and `saving`, for a command that plays recorded messages. The
saving side of each process is in `process_records`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from ether.config import EmbeddedBroker, EtherConfig, EtherInstanceConfig
from ether.config.loading import at_place
from ether.config.names import RECORDER_CLASS_PATH, current_class_path
from ether.config.record import Recording
from ether.config.volumes import parse_keep, parse_rotation, said_of_life
from ether.connection.link import Link
from ether.launch.process_records import ContextFacts, open_record_writer
from ether.launch.simulated.lab import Simulation
from ether.ledger.places import default_folder, leave_pointer
from ether.log import get_ether_logger
from ether.recording.options import GATHER_S
from ether.recording.receipt_rules import RECORDER as RECORDER
from ether.recording.receipt_rules import RecorderAbout
from ether.recording.writer import RecordWriter, SavingOptions, WhenFull
from ether.session.client import Client
from ether.spec.methods import class_path_of
from ether.system.clock import wall_time
from ether.system.folders import outbox_folder
from ether.system.processes import this_place
from ether.wire.entries import Entry
from ether.wire.run_ids import SIMULATED
from ether.wire.topics import SessionTopics

if TYPE_CHECKING:
    from ether.provenance.context import Facts

logger = get_ether_logger("Ether")

LEADER = "main"
"""The name, in the headers of its messages, of a program that starts a session."""

SAVE_TIMEOUT_S = 5.0
"""For sending what waits in the outbox to the recorder, at the end. What is left after that waits on disk."""

_INFO_TIMEOUT_S = 5.0


# -- as the configuration asks for it


def recorder_instance(config: EtherConfig) -> EtherInstanceConfig:
    """The recorder that a session starts by itself. Without `record:` it takes only what is saved by name."""
    chosen = config.record
    kwargs: dict[str, Any] = {"topics": []}
    if chosen is not None:
        topics = chosen.topics if isinstance(chosen.topics, str) else list(chosen.topics)
        kwargs = {"topics": topics, "logs": chosen.logs, "strangers": records_strangers(config)}
        if chosen.sync_every_s:
            kwargs["sync_every_s"] = chosen.sync_every_s
        if (folder := chosen_folder(config)) is not None:
            kwargs["folder"] = folder
        kwargs |= _life_of_the_ledger(chosen)
    return EtherInstanceConfig(
        class_path=RECORDER_CLASS_PATH, kwargs=kwargs, restart="always", restart_limit=1000, restart_window_s=1000.0
    )


def _warn_of_other_pace(chosen: Recording, about: RecorderAbout, place: str) -> None:
    """How often a recorder writes is its own program's to say."""
    if "sync_every_s" in chosen.model_fields_set and about.sync_every_s not in (None, chosen.sync_every_s):
        logger.warning(
            "record.sync_every_s: %g is not used for what goes to %s: %r records there with %g, by its own"
            " program's word", chosen.sync_every_s, place, about.name, about.sync_every_s,
        )  # fmt: skip


def _life_of_the_ledger(chosen: Recording) -> dict[str, Any]:
    """The recorder's arguments for rotation and retention; none where nothing is said of them."""
    found: dict[str, Any] = {}
    if chosen.rotate is not None:
        found["rotate"] = chosen.rotate if isinstance(chosen.rotate, str) else list(chosen.rotate)
    if chosen.keep is not None:
        found |= {"keep": chosen.keep, "until_backed_up": chosen.until_backed_up}
    return found


def chosen_folder(config: EtherConfig) -> str | None:
    """The ledger's folder that the configuration names; None where it names none."""
    return None if config.record is None or config.record.folder is None else os.path.abspath(config.record.folder)


def records_strangers(config: EtherConfig) -> bool:
    """Whether foreign messages (those without Ether's headers) are recorded. With `auto`: where the broker can have
    clients that are not Ether's. An embedded broker on loopback with a port of its own has none, because nobody else
    knows its password; and listening to foreign messages costs one more delivery of each message."""
    chosen, broker = config.record, config.broker
    if chosen is not None and chosen.strangers != "auto":
        return chosen.strangers
    private = isinstance(broker, EmbeddedBroker) and broker.listen == "loopback" and broker.port == 0
    return not private


def is_recorder(name: str, instance: EtherInstanceConfig) -> bool:
    """Whether an instance records. It is ended last, when all others have saved."""
    return name == RECORDER or current_class_path(instance.class_path) == RECORDER_CLASS_PATH


def saving_options(config: EtherConfig, session: str, run: str) -> SavingOptions:
    """How the processes of this session save."""
    folder = outbox_folder(session)
    chosen = config.record
    if chosen is None:
        return SavingOptions(folder, run=run)
    outbox, named = chosen.outbox, chosen_folder(config)
    return SavingOptions(
        folder,
        None if chosen.topics == "all" else tuple(chosen.topics),
        run,
        int(outbox.max_mb * 1e6),
        outbox.max_age_s,
        WhenFull(outbox.when_full),
        max(GATHER_S, chosen.sync_every_s),
        (this_place().host, named) if named is not None and RECORDER not in config.named_instances() else None,
    )


# -- one program's part in the recording of its session


class RecordingSetup:
    """The part of one program in the recording of its session: what it starts, and what it saves itself."""

    def __init__(self, config: EtherConfig, session: str, simulation: Simulation) -> None:
        mark = SIMULATED if simulation.wanted else ""
        self.run = f"{mark}{time.strftime('%Y%m%d-%H%M%S', time.localtime(wall_time()))}-{os.urandom(3).hex()}"
        """The id of this run of the session: when it began, and random bits; it says whether it was simulated."""
        self.leader = LEADER
        """The program that starts a recorder where there is none."""
        self._config, self._session = config, session
        self._simulation = simulation
        self._facts: Facts | None = None
        self._record_writer: RecordWriter | None = None

    def join(self, info: Mapping[str, Any]) -> None:
        """Another program leads the session: take run and leader from its entry, `info`."""
        self.run = str(info.get("run") or "")
        self.leader = str(info.get("program") or LEADER)

    def recorder(self) -> EtherInstanceConfig:
        """The instance that records."""
        return recorder_instance(self._config)

    def instances(self, *, leads: bool) -> dict[str, EtherInstanceConfig]:
        """The configured instances; before them a recorder, where this program leads a session that is recorded."""
        described = self._config.named_instances()
        recorded = leads and self._config.record is not None and RECORDER not in described
        return {RECORDER: self.recorder(), **described} if recorded else described

    def own_recorder(self) -> tuple[str, EtherInstanceConfig] | None:
        """For a program that has joined: the recorder that its `record:` asks for, under a name that is free, where no
        recorder of the session does that already. Raises `ConfigError` where another one has this very folder, and does
        not record all of these topics."""
        chosen, writer = self._config.record, self._record_writer
        if chosen is None or writer is None or RECORDER in self._config.named_instances():
            return None
        topics = None if chosen.topics == "all" else tuple(chosen.topics)
        place = chosen_folder(self._config) or str(default_folder(self._session, os.environ))
        recorders = writer.recorders()
        for about in recorders:
            if (about.host, about.folder) == (this_place().host, place):
                if about.covers(topics):
                    self._check_life(chosen, about, place)
                    _warn_of_other_pace(chosen, about, place)
                    return None
                wanted = "all topics" if topics is None else ", ".join(topics)
                problem = (
                    f"session {self._session!r}, which this program joins, is recorded into {place} by {about.name!r},"
                    f" which does not record {wanted}; name another folder, or let the program that leads the session"
                    " record that"
                )
                raise at_place(self._config, problem, "record")
        name = f"{RECORDER}-{os.urandom(3).hex()}" if recorders else RECORDER
        return name, self.recorder()

    def _check_life(self, chosen: Recording, about: RecorderAbout, place: str) -> None:
        """Raise `ConfigError` where `rotate` or `keep` are others than those by which the folder is recorded to."""
        retention = chosen.keep and parse_keep(chosen.keep, until_backed_up=chosen.until_backed_up)
        said = said_of_life((chosen.rotate and parse_rotation(chosen.rotate)) or None, retention or None)
        if said and said != about.life:
            problem = (
                f"session {self._session!r}, which this program joins, is recorded into {place} by {about.name!r} with"
                f" {about.life or 'neither rotate nor keep'}, and not with {said}; one program says so for all"
            )
            raise at_place(self._config, problem, "record")

    def await_recorder(self, name: str, timeout_s: float) -> None:
        """Return when values of this program are sent to this recorder."""
        if self._record_writer is not None:
            self._record_writer.await_named(name, timeout_s)

    def options(self) -> SavingOptions:
        """How the processes of this program save."""
        return saving_options(self._config, self._session, self.run)

    def configuration(self) -> dict[str, Any]:
        """What contexts say of the configuration."""
        return dict(self._configuration_facts().described)

    def _configuration_facts(self) -> Facts:
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

    def open(self, client: Client, program: str) -> None:
        """From now on this program can save; what it could not send to a recorder in an earlier run is sent now."""
        writer = self.record_writer_of(client.link, client.topics, program, "", 0, None)
        self._record_writer = client.record_writer = writer
        writer.adopt()
        if (folder := chosen_folder(self._config)) is not None and self.leader == LEADER:
            # Also where no recorder ever begins: what waits in outboxes belongs into this folder.
            with suppress(OSError):  # then the recorder, which needs the folder, says so
                leave_pointer(self._session, folder, os.environ)
        if self._config.record is not None:
            simulated = {} if self._simulation.facts is None else {"simulated": self._simulation.facts}
            writer.keep_run(self.run, "begin", {"config": self.configuration()["sha256"], **simulated})

    def hear_recorders(self, timeout_s: float) -> None:
        """Return when the recorders of a session that this program has joined are known: they say what is saved."""
        if self._record_writer is not None:
            self._record_writer.hear_recorders(timeout_s)

    def adopt(self) -> None:
        """Something is saved in this session: send what its dead processes have left, from now on."""
        if self._record_writer is not None:
            self._record_writer.begin()

    def record_writer_of(
        self, link: Link, topics: SessionTopics, name: str, incarnation: str, epoch: int, cls: type | None
    ) -> RecordWriter:
        """The record writer of this program, or of an object that it hosts (then with its class)."""
        from ether.provenance.context import artifact_entries

        def explain() -> list[Entry]:
            artifacts = artifact_entries(self._configuration_facts().artifacts, wall_time())
            path = class_path_of(cls) if cls is not None else "__main__"
            facts = ContextFacts(name, self.configuration(), incarnation, epoch, path, cls)
            return [*artifacts, *facts.entries()]

        return open_record_writer(link, topics, self.options(), self.leader, explain)

    def has_unsaved(self) -> bool:
        """Whether something may still have to be brought to a recorder."""
        return self._record_writer is not None and self._record_writer.has_unsaved()

    @property
    def has_recorder(self) -> bool:
        """Whether the session has a recorder, as far as this program knows."""
        return self._record_writer is not None and bool(self._record_writer.recorders())

    def bring_home(self) -> dict[str, str]:
        """Bring what this program and its processes have saved to a recorder; returns what could not be, by source:
        where it lies, and why."""
        writer = self._record_writer
        left = [] if writer is None else writer.bring_home(SAVE_TIMEOUT_S)
        return {
            source: f"{count:,} entries are on no recorder's disk ({writer.why_not()}); they wait in {path}, from"
            f" where 'ether rescue {self._session}' brings them into a ledger"
            for source, count, path in left
            if writer is not None
        }

    def close(self, timeout_s: float = SAVE_TIMEOUT_S) -> None:
        """Send what waits to the recorder, and close this program's record writer. Twice is fine."""
        writer, self._record_writer = self._record_writer, None
        if writer is not None:
            if timeout_s and self._config.record is not None and writer.recorders():
                writer.keep_run(self.run, "end", {"status": "ended"})
            writer.close(timeout_s)


# -- for the command line


@contextmanager
def saving(client: Client, described: Mapping[str, Any], program: str = "ether.play") -> Iterator[None]:
    """Within the block the client saves what the session's recorders want; `described` says what is played or by whom,
    and `program` is the name of its context. What is not acknowledged at the end waits on disk, and the log says so."""
    info = client.session.info(_INFO_TIMEOUT_S)
    options = SavingOptions(outbox_folder(client.topics.session), run=str(info.get("run") or ""))
    facts = ContextFacts(client.link.source, {program.rpartition(".")[2]: dict(described)}, class_path=program)
    leader = str(info.get("program") or LEADER)
    writer = open_record_writer(client.link, client.topics, options, leader, facts.entries)
    writer.hear_recorders(_INFO_TIMEOUT_S)
    client.record_writer = writer
    try:
        yield
    finally:
        client.record_writer = None
        writer.close(SAVE_TIMEOUT_S)
