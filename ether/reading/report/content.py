"""What a report of a run shows, gathered in one pass over its records.

Promises: memory grows with the number of topics and columns, not with the number of records. What is left out, because
there are too many topics, columns or trials, is counted and said. The trap: a record may hold anything, so a value that
cannot be read is counted, and ends nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ether.ledger.reader import LedgerReader
from ether.protocol.run_record import RunState, TrialPlan
from ether.provenance.origins import KeptText, Origin, kept_texts, origin_of
from ether.reading.columns import flatten, is_array, json_text
from ether.reading.data import Data, Record, stored_in_time_order
from ether.reading.plots.svg import Line, Plot, Thinned, time_unit
from ether.reading.report.picture import is_picture

MOST_PLOTS = 40
MOST_COLUMNS = 12
"""Of one topic, columns that are plotted."""
MOST_LINES = 4
"""In one plot."""
MOST_TRIALS = 1_000
MOST_PICTURES = 12
MOST_TEXT = 200_000
"""Characters of one kept text."""
_VALUE_WIDTH = 120

Scalar = int | float


@dataclass(slots=True)
class ReportTopic:
    """The records of one topic. Times are unix seconds by the sources' clocks."""

    topic: str
    kind: str
    count: int = 0
    first: float = 0.0
    last: float = 0.0
    sources: dict[str, int] = field(default_factory=dict)
    last_value: str = ""
    last_id: str = ""
    unreadable: int = 0
    picture: Any = None
    """The last array that looks like a picture."""

    def take(self, record: Record) -> None:
        """Count a record; records come by time."""
        at = record.corrected_time
        self.first, self.last = (at, at) if not self.count else (min(self.first, at), max(self.last, at))
        self.count += 1
        self.sources[record.source] = self.sources.get(record.source, 0) + 1
        self.last_id = record.id
        self.last_value = value_text(record)


@dataclass(frozen=True, slots=True)
class ReportTrial:
    """One trial: its condition and what became of it."""

    number: int
    condition: str
    status: str
    attempts: int
    seconds: float | None
    result: str
    within: int | None = None


@dataclass(frozen=True, slots=True)
class LogText:
    """A line of the log."""

    time: float
    level: str
    source: str
    message: str


@dataclass(frozen=True, slots=True)
class WhyTree:
    """Where the last value of a topic came from, as `ether why` draws it."""

    topic: str
    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that the page shows."""

    title: str
    session: str
    ledger: str
    state: RunState | None
    status: str
    begin: float
    end: float
    records: int
    rows: tuple[int, int]
    """The first and the last row of the ledger that belong to it."""
    topics: Sequence[ReportTopic]
    plots: Sequence[Plot]
    against: Sequence[Plot]
    trials: Sequence[ReportTrial]
    trials_left_out: int
    origins: Sequence[tuple[Origin, int]]
    """Each with how many values it made."""
    texts: Sequence[KeptText]
    proof: Sequence[str] = ()
    logs: Sequence[LogText] = ()
    trees: Sequence[WhyTree] = ()
    left_out: Sequence[str] = ()

    @property
    def simulated(self) -> bool:
        """Whether any of its values come from simulated instruments."""
        return any(origin.simulated for origin, _ in self.origins)


def gather(data: Data, state: RunState | None, status: str) -> Report:
    """The report of these records; `state` is the run's, None where they are of no named run. It lacks the proof, the
    log and the trees, which are others' to tell. Raises `LedgerError`."""
    data = data.held()
    begin, end = _span(data, state)
    gathered = _Gathered(begin, end)
    for record in data:
        gathered.take(record)
    with LedgerReader.open(data.folder) as reader:
        made = [(reader.context(sha256), count) for sha256, count in _contexts(data, reader).items()]
        known = [(context, count) for context, count in made if context is not None]
        origins = [(origin_of(context), count) for context, count in known]
        texts = kept_texts(reader, [context for context, _ in known])
        session = reader.session
    rows, trials_left = _trial_rows(state)
    plots, left_out = gathered.plots()
    return Report(
        title=state.id if state is not None else data.query.run or session, session=session, ledger=str(data.folder),
        state=state, status=status, begin=begin, end=end, records=gathered.records, rows=gathered.rows,
        topics=sorted(gathered.topics.values(), key=lambda topic: topic.topic), plots=plots,
        against=list(gathered.against(state)), trials=rows, trials_left_out=trials_left, origins=origins, texts=texts,
        left_out=left_out,
    )  # fmt: skip


def value_text(record: Record) -> str:
    """A value on one short line."""
    if record.problem is not None:
        return f"(cannot be read: {record.problem})"
    value = record.value
    if is_array(value):
        return f"array {'×'.join(map(str, value.shape))} {value.dtype}"
    if isinstance(value, Mapping):
        arrays = {key: f"array {'×'.join(map(str, cell.shape))}" for key, cell in value.items() if is_array(cell)}
        value = {**value, **arrays}
    text = json_text(value)
    return text if len(text) <= _VALUE_WIDTH else f"{text[:_VALUE_WIDTH]}…"


def _span(data: Data, state: RunState | None) -> tuple[float, float]:
    first, last = data.first, data.last
    times = [record.corrected_time for record in (first, last) if record is not None]
    if state is not None and state.begun:
        times += [state.begun, state.ended or state.last or state.begun]
    return (min(times), max(times)) if times else (0.0, 0.0)


def _contexts(data: Data, reader: LedgerReader) -> dict[str, int]:
    """How many of the records each context explains."""
    counts: dict[str, int] = {}
    for stored in stored_in_time_order(reader, data.query):
        if stored.context:
            counts[stored.context] = counts.get(stored.context, 0) + 1
    return counts


class _Gathered:
    """What one pass over the records has found."""

    def __init__(self, begin: float, end: float) -> None:
        self.records = 0
        self.rows = (0, 0)
        self.topics: dict[str, ReportTopic] = {}
        self._begin, self._end = begin, end
        self._lines: dict[tuple[str, str], dict[str, Thinned]] = {}
        self._columns_left_out: dict[str, set[str]] = {}
        self._sources_left_out: dict[tuple[str, str], set[str]] = {}
        self._plots_left_out: set[tuple[str, str]] = set()
        self._means: dict[tuple[str, str], dict[int, tuple[float, int]]] = {}

    def take(self, record: Record) -> None:
        self.records += 1
        self.rows = (min(self.rows[0] or record.row, record.row), max(self.rows[1], record.row))
        topic = self.topics.setdefault(record.topic, ReportTopic(record.topic, record.kind))
        topic.take(record)
        if record.problem is not None:
            topic.unreadable += 1
            return
        for column, cell in flatten(record.value, ()).items():
            if is_array(cell) and cell.shape == ():
                cell = cell.item()
            if is_array(cell):
                if is_picture(cell):
                    topic.picture = cell
            elif isinstance(cell, Scalar) and not isinstance(cell, bool):
                self._take_number(record, column, cell)

    def _take_number(self, record: Record, column: str, cell: Scalar) -> None:
        key = (record.topic, column)
        lines = self._lines.get(key)
        if lines is None:
            if sum(topic == record.topic for topic, _ in self._lines) >= MOST_COLUMNS:
                self._columns_left_out.setdefault(record.topic, set()).add(column)
                return
            if len(self._lines) >= MOST_PLOTS:
                self._plots_left_out.add(key)
                return
            lines = self._lines[key] = {}
        line = lines.get(record.source)
        if line is None:
            if len(lines) >= MOST_LINES:
                self._sources_left_out.setdefault(key, set()).add(record.source)
                return
            line = lines[record.source] = Thinned(self._begin, self._end)
        number = _float(cell)
        line.take(record.corrected_time, number)
        if record.trial is not None and number - number == 0:
            means = self._means.setdefault(key, {})
            total, count = means.get(record.trial, (0.0, 0))
            means[record.trial] = (total + number, count + 1)

    def plots(self) -> tuple[list[Plot], list[str]]:
        """A plot for each column of numbers, over the time since the begin; and what was left out."""
        per, unit = time_unit(self._end - self._begin)
        plots = []
        for (topic, column), lines in self._lines.items():
            drawn = [
                Line(source, [((at - self._begin) / per, value) for at, value in line.points()])
                for source, line in lines.items()
            ]
            notes = [
                f"{line.not_finite:,} of {source} are not finite" for source, line in lines.items() if line.not_finite
            ]
            if left := self._sources_left_out.get((topic, column)):
                notes.append(f"{len(left):,} more sources are not drawn")
            plots.append(Plot(_name(topic, column), drawn, x=unit, notes=notes))
        return plots, self._left_out()

    def _left_out(self) -> list[str]:
        said = [
            f"{len(columns):,} more columns of {topic} are not drawn"
            for topic, columns in self._columns_left_out.items()
        ]
        if self._plots_left_out:
            said.append(f"{len(self._plots_left_out):,} more plots are not drawn: there are {MOST_PLOTS} already")
        return said

    def against(self, state: RunState | None) -> Iterator[Plot]:
        """What was measured in a trial, and its result, against each number of the trial's condition."""
        if state is None:
            return
        conditions = {n: _numbers(plan.condition(n)) for plan in state.plans for n in plan.order}
        keys = dict.fromkeys(key for numbers in conditions.values() for key in numbers)
        measured = {
            f"mean of {_name(topic, column)}": {number: total / count for number, (total, count) in means.items()}
            for (topic, column), means in self._means.items()
        }
        results = _results(state)
        for name, by_trial in [*results.items(), *measured.items()][:MOST_COLUMNS]:
            for key in keys:
                points = [(conditions[n][key], value) for n, value in by_trial.items() if key in conditions.get(n, {})]
                if len({x for x, _ in points}) > 1:
                    yield Plot(f"{name} against {key}", [Line(name, sorted(points))], x=key, scatter=True)


def _name(topic: str, column: str) -> str:
    return topic if column == "value" else f"{topic}: {column}"


def _float(cell: Scalar) -> float:
    try:
        return float(cell)
    except OverflowError:  # an integer beyond a float
        return float("inf")


def _numbers(value: object) -> dict[str, float]:
    """The numbers in a condition or a result, by name."""
    cells = flatten(value, ())
    return {
        name if name != "value" else "condition": _float(cell)
        for name, cell in cells.items()
        if isinstance(cell, Scalar) and not isinstance(cell, bool)
    }


def _results(state: RunState) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for number, attempts in state.trials.items():
        if attempts.counts is not None and attempts.result is not None:
            for name, value in _numbers(attempts.result).items():
                found.setdefault("result" if name == "condition" else f"result: {name}", {})[number] = value
    return found


def _trial_rows(state: RunState | None) -> tuple[list[ReportTrial], int]:
    if state is None:
        return [], 0
    planned = [(plan, number) for plan in state.plans for number in plan.order]
    rows = [_trial_row(state, plan, number) for plan, number in planned[:MOST_TRIALS]]
    return rows, len(planned) - len(rows)


def _trial_row(state: RunState, plan: TrialPlan, number: int) -> ReportTrial:
    found = state.trials.get(number)
    status = "not begun"
    if found is not None:
        status = "done" if found.counts is not None else "open" if found.open else "not done"
    return ReportTrial(
        number, _short(plan.condition(number)), status, 0 if found is None else found.tried,
        None if found is None else found.seconds,
        "" if found is None or found.result is None else _short(found.result),
        None if plan.within is None else plan.within[0],
    )  # fmt: skip


def _short(value: object) -> str:
    text = json_text(value)
    return text if len(text) <= _VALUE_WIDTH else f"{text[:_VALUE_WIDTH]}…"
