"""What `record:` will write an hour, before anything runs: by topic, as far as that is known.

How often comes from `every:` in the configuration or `ether_every` in the class's source; how large from an array that
the return hint spells out. What neither says is taken from the session's ledger, where there is one: how its last
values came. Promises: nothing is imported, started or made; what is not known is named, and no figure is made of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ether.config import EtherConfig
from ether.config.models import EtherInstanceConfig, RegistryMethod
from ether.config.path_text import parse_path
from ether.config.when import Cron, Period, parse_when
from ether.errors import ConfigError, LedgerError, NoLedger, SeveralLedgers
from ether.ledger.places import find_ledger
from ether.ledger.reader import LedgerReader, RecordFilter
from ether.log import get_ether_logger
from ether.recording.receipt_rules import wanted
from ether.runs.plan.class_lookup import SourceUnclear
from ether.runs.plan.estimate_rules import kept_bytes
from ether.runs.plan.report import free_bytes_of, ledger_folder_of, recorded_topics
from ether.runs.plan.source_marks import PublishedBySource, import_places, published_by
from ether.wire.topics import matches

logger = get_ether_logger("Ether")

_LOOKED_AT = 200
"""So many of the last values of a topic say how it comes."""
_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class RecordedRate:
    """What one instance records on one topic. `per_s` and `bytes` (of one value) are None where they are not known;
    `based_on` says where they come from."""

    topic: str
    instance: str
    per_s: float | None
    bytes: float | None
    based_on: tuple[str, ...] = ()

    @property
    def bytes_per_hour(self) -> float | None:
        """On the disk; None where it is not known."""
        if self.per_s is None or self.bytes is None:
            return None
        return self.per_s * _HOUR_S * kept_bytes(self.bytes)


@dataclass(frozen=True, slots=True)
class RecordRates:
    """What will be recorded. `unseen` are instances whose class says nothing, with the reason."""

    folder: str
    free_bytes: float
    topics: tuple[RecordedRate, ...]
    unseen: tuple[str, ...] = ()

    @property
    def bytes_per_hour(self) -> float:
        """Of all topics of which it is known."""
        return sum(rate.bytes_per_hour or 0.0 for rate in self.topics)

    @property
    def unknown(self) -> tuple[RecordedRate, ...]:
        """The topics of which it is not."""
        return tuple(rate for rate in self.topics if rate.bytes_per_hour is None)

    @property
    def is_known(self) -> bool:
        """Whether the figure is that of everything."""
        return not self.unknown and not self.unseen


def record_rates(config: EtherConfig, environment: Mapping[str, str]) -> RecordRates:
    """What the session of this configuration will record."""
    topics: list[RecordedRate] = []
    unseen: list[str] = []
    for key, instance in config.instances.items():
        name = instance.name_or(key)
        if not instance.autorun:
            continue
        try:
            said = _published(config, instance)
        except SourceUnclear as error:
            unseen.append(f"{name}: {error}")
            continue
        topics += [rate for one in said if (rate := _rate_of(config, name, instance, one)) is not None]
    folder = ledger_folder_of(config, environment)
    return RecordRates(
        str(folder), free_bytes_of(folder), tuple(_as_recorded(config, topics, environment)), tuple(unseen)
    )


def _published(config: EtherConfig, instance: EtherInstanceConfig) -> list[PublishedBySource]:
    """By the configuration, and by the class's source; what the configuration says of a method counts."""
    entry = config.registry.get(instance.class_path)
    written = dict(entry.methods) if entry else {}
    by_yaml = [said for method, options in written.items() for said in _by_yaml(method, options)]
    try:
        by_source = published_by(instance.class_path, import_places())
    except SourceUnclear:
        if not by_yaml:
            raise
        by_source = []
    sizes = {said.method: (said.bytes, said.shape) for said in by_source}
    merged = []
    for said in by_yaml:
        size, shape = sizes.get(said.method, (None, ""))
        merged.append(replace(said, bytes=size, shape=shape))
    return [*merged, *(said for said in by_source if said.method not in written)]


def _by_yaml(path: str, options: RegistryMethod) -> Iterator[PublishedBySource]:
    method = options.as_ or parse_path(path).as_name
    ticks = [use.every for use in options.ether_every]
    for use in options.ether_pub:
        every = use.every or (ticks[0] if ticks else None)
        yield PublishedBySource(use.as_ or method, use.topic or "", use.save, every, None)


def _rate_of(
    config: EtherConfig, name: str, instance: EtherInstanceConfig, said: PublishedBySource
) -> RecordedRate | None:
    topic = said.topic or f"{instance.class_path.rpartition('.')[2]}.{said.method}"
    recorded = recorded_topics(config)
    if not said.save and not wanted(None if recorded is None else tuple(recorded), topic, matches):
        return None
    per_s = _per_second(said.every)
    based_on = [f"every {said.every}"] if said.every and per_s is not None else []
    return RecordedRate(topic, name, per_s, said.bytes, (*based_on, *([said.shape] if said.shape else [])))


def _per_second(every: str | None) -> float | None:
    if every is None:
        return None
    try:
        match parse_when(every):
            case Period(seconds=seconds):
                return 1.0 / seconds
            case Cron() as cron:
                days = 1.0 if len(cron.weekdays) == 7 else len(cron.weekdays) / 7
                return len(cron.minutes) * len(cron.hours) * days / 86_400.0
    except ConfigError:
        return None
    return 0.0  # once


# -- from the ledger


def _as_recorded(
    config: EtherConfig, rates: Sequence[RecordedRate], environment: Mapping[str, str]
) -> list[RecordedRate]:
    """The same rates; what is not known of them is as it was recorded last."""
    if all(rate.bytes_per_hour is not None for rate in rates):
        return list(rates)
    try:
        folder = ledger_folder_of(config, environment)
        with LedgerReader.open(find_ledger(folder, environment)) as reader:
            return [_completed(rate, reader) for rate in rates]
    except (NoLedger, SeveralLedgers, LedgerError) as error:
        logger.debug("nothing was recorded before: %s", error)
        return list(rates)


def _completed(rate: RecordedRate, reader: LedgerReader) -> RecordedRate:
    if rate.bytes_per_hour is not None:
        return rate
    wish = RecordFilter(topic=rate.topic, source=rate.instance)
    last = list(reader.records(wish, newest_first=True, limit=_LOOKED_AT))
    if not last:
        return rate
    span = last[0].time - last[-1].time
    per_s = (len(last) - 1) / span if span > 0 else None
    size = sum(record.size for record in last) / len(last)
    words = "as recorded last"
    return RecordedRate(
        rate.topic, rate.instance, per_s if rate.per_s is None else rate.per_s,
        size if rate.bytes is None else rate.bytes, (*rate.based_on, words),
    )  # fmt: skip
