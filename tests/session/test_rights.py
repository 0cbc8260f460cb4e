"""A broker that permits just what a session needs: the rule of one line, and the table of docs/brokers.md."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from commands_here import Done, ether_here
from limited_mosquitto import limited_mosquitto
from patience import patience
from programs import running, write
from running_brokers import RunningBroker, mosquitto_missing, soon

from ether import Ether
from ether.errors import EtherError, LifecycleFailed, NotSaved, PublishRefused
from ether.logs.session_file import log_path
from ether.session.discovery.directory import sessions_at
from ether.transport.endpoint import Endpoint
from ether.wire.topics import SessionTopics

pytestmark = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))

LONG = os.environ.get("ETHER_LONG") == "1"
DOCS = Path(__file__).resolve().parents[2] / "docs" / "brokers.md"
SESSION = "bench"
PROBE = {"class_path": "right_parts.Probe"}
REFUSED_S, UNTIL_S = patience(19), patience(40)
"""A broker that delivers nothing is given 5 s by the search, 3 s by `tap` itself; the fault is to use up all the time
that `tap` was given."""


class Row(NamedTuple):
    """A row of the table: the filter for this session, and the word for what does not work without it."""

    topic_filter: str
    mark: str


def table() -> list[Row]:
    rows = re.findall(r"^\| `(ether/1/<session>/[^`]+)` \|.*\| `(\w+)`: [^|]+\|$", DOCS.read_text(), re.MULTILINE)
    return [Row(topic_filter.replace("<session>", SESSION), mark) for topic_filter, mark in rows]


TABLE = table()
WHOLE = [f"topic readwrite ether/1/{SESSION}/#"]


def rules(rows: Sequence[Row]) -> list[str]:
    return [f"topic readwrite {row.topic_filter}" for row in rows]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def permitting(stack: ExitStack, permitted: Sequence[str]) -> RunningBroker:
    """A Mosquitto with these rules."""
    return stack.enter_context(limited_mosquitto("log_type all", acl="".join(f"{rule}\n" for rule in permitted)))


def tapped(stack: ExitStack, broker: RunningBroker, folder: Path, *, timeout_s: float = patience(20)) -> Ether:
    """The session, with an instance, recorded."""
    record = {"topics": "all", "folder": str(folder / "ledger")}
    own = Ether()
    config = {"session": SESSION, "broker": broker.url_tcp, "record": record, "instances": {"probe": PROBE}}
    own.tap(config, timeout_s=timeout_s)
    stack.callback(ended, own)
    return own


def ended(own: Ether) -> None:
    try:
        own.shutdown()
    except LifecycleFailed:
        pass  # where something was not permitted


# -- what works


def calls_work(own: Ether) -> bool:
    try:
        return bool(own.get("probe", "add", {"a": 1, "b": 2}, timeout_s=patience(3)) == 3)
    except EtherError:
        return False


def messages_arrive(own: Ether) -> bool:
    with own.subscribe("out") as out:
        own.pub({"value": 21}, topic="in")
        try:
            return out.get(timeout_s=patience(3)).value == 42
        except TimeoutError:
            return False


def values_are_saved(own: Ether) -> bool:
    saved = own.record(1, "value")
    try:
        saved.wait(timeout_s=patience(4))
    except NotSaved:
        return False
    return True


def logs_arrive(own: Ether) -> bool:
    text = f"said at {time.monotonic_ns()}"
    own.get("probe", "log", {"text": text})
    path = log_path(SESSION)
    return soon(lambda: path.exists() and text in path.read_text(), 4)


def late_instances_belong_to_the_run(own: Ether) -> bool:
    with own.run("warm-up") as run:
        own.add("late", PROBE)
        own.get("late", "record", {"value": 7}, timeout_s=patience(30))
        run_id = run.id
    assert own._launch is not None
    folder = Path(own._launch.config.record.folder)  # type: ignore[union-attr, arg-type]
    return len(list(own.data(folder=folder, topic="probed", run=run_id))) == 1


WORKS: dict[str, Callable[[Ether], bool]] = {
    "call": calls_work,
    "message": messages_arrive,
    "record": values_are_saved,
    "log": logs_arrive,
    "run": late_instances_belong_to_the_run,
}


# -- the table


def test_the_table_covers_every_topic_of_a_session_once() -> None:
    topics = SessionTopics(SESSION)
    assert len(TABLE) == len({row.topic_filter for row in TABLE}) >= 10
    assert {row.mark for row in TABLE} == {"tap", *WORKS}
    used = [
        topics.session_info, topics.run, topics.state("a"), topics.heartbeat("a"), topics.health("a"), topics.data("a"),
        topics.call("a", "b"), topics.reply("a"), topics.log("a"), topics.record("a"), topics.recorder("a"),
        topics.ack("a"), topics.control("a"), topics.missed("a"), topics.leader_probe,
    ]  # fmt: skip
    for topic in used:
        matching = [row for row in TABLE if covers(row.topic_filter, topic)]
        assert len(matching) == 1, (topic, matching)


def covers(topic_filter: str, topic: str) -> bool:
    return topic == topic_filter or (topic_filter.endswith("#") and topic.startswith(topic_filter[:-1]))


@pytest.mark.timeout(180)
@pytest.mark.parametrize("permitted", [pytest.param(WHOLE, id="one line"), pytest.param(rules(TABLE), id="the table")])
def test_nothing_that_a_session_needs_lies_outside(stack: ExitStack, tmp_path: Path, permitted: list[str]) -> None:
    """Leading, joining, calls, saves, recording, runs, logs, the command line, and a restart of the broker."""
    broker = permitting(stack, permitted)
    own = tapped(stack, broker, tmp_path)
    for mark, works in WORKS.items():
        assert works(own), mark
    with second_program(broker, tmp_path) as said:
        assert said == "3 success 42\n"
    for command in (["ps"], ["topic", "list"], ["logs"]):
        shown = command_line(broker, *command)
        assert shown.code == 0, shown.err
    assert "probe" in command_line(broker, "ps").out
    assert "probe" in command_line(broker, "top", "--once").out
    broker.kill()
    broker = broker.restart()
    assert soon(lambda: own.session_info()["offline_since"] is None, 20)
    assert soon(lambda: calls_work(own), 20)
    assert soon(lambda: values_are_saved(own), 20)
    with second_program(broker, tmp_path) as said:
        assert said == "3 success 42\n"
    own.shutdown()
    assert "Denied PUBLISH" not in broker.stderr()


SECOND = """
    import sys
    from ether import ether

    with ether.tap(session="bench", broker=sys.argv[1]):
        added = ether.get("probe", "add", {"a": 1, "b": 2})
        status = ether.save("probe", "store", {"value": 1})["status"]
        with ether.subscribe("out") as out:
            ether.pub({"value": 21}, topic="in")
            print(added, status, out.get(10).value, flush=True)
"""


@contextmanager
def second_program(broker: RunningBroker, folder: Path) -> Iterator[str]:
    """What another program says that has joined the session."""
    write(folder, "second.py", SECOND)
    with running(folder, "second.py", broker.url_tcp) as program:
        finished = program.finish()
        assert finished.code == 0, program.said()
        yield finished.out


def command_line(broker: RunningBroker, *command: str, session: bool = True) -> Done:
    return ether_here(Path.cwd(), *command, "-b", broker.url_tcp, *(["-s", SESSION] if session else []))


@pytest.mark.drawn(2)
@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.topic_filter.partition("bench/")[2])
def test_without_one_row_its_part_does_not_work(stack: ExitStack, tmp_path: Path, row: Row) -> None:
    broker = permitting(stack, rules([other for other in TABLE if other != row]))
    check_that_it_misses(stack, broker, tmp_path, row)


HALVES = [
    pytest.param(row, access, id=f"{row.topic_filter.partition('bench/')[2]}, {access} only")
    for row in TABLE
    for access in ("read", "write")
    # What may not be read in the data plane is missed, asked for, and sent again on the control plane.
    if (row.mark, access) != ("message", "write")
]


@pytest.mark.skipif(not LONG, reason="only with ETHER_LONG=1")
@pytest.mark.parametrize(("row", "access"), HALVES)
def test_without_half_a_row_its_part_does_not_work(stack: ExitStack, tmp_path: Path, row: Row, access: str) -> None:
    others = rules([other for other in TABLE if other != row])
    broker = permitting(stack, [*others, f"topic {access} {row.topic_filter}"])
    check_that_it_misses(stack, broker, tmp_path, row)


def check_that_it_misses(stack: ExitStack, broker: RunningBroker, folder: Path, row: Row) -> None:
    """Either `tap` raises soon and names the topic (in any case where the table says so), or the part does not work."""
    began = time.monotonic()
    own, refusal = None, ""
    try:
        own = tapped(stack, broker, folder, timeout_s=UNTIL_S)
    except EtherError as error:
        refusal = str(error)
    if own is not None:
        assert row.mark != "tap"
        assert not WORKS[row.mark](own)
        return
    assert time.monotonic() - began < REFUSED_S
    assert row.topic_filter.removesuffix("#") in refusal, refusal
    assert "cannot reach" not in refusal


# -- words


def test_a_topic_that_may_not_be_written_is_named_at_once(stack: ExitStack, tmp_path: Path) -> None:
    broker = permitting(stack, ["topic readwrite ether/1/other/#"])
    began = time.monotonic()
    with pytest.raises(PublishRefused, match="'ether/1/bench/session': not authorized"):
        tapped(stack, broker, tmp_path)
    assert time.monotonic() - began < patience(2.0)


def test_a_list_of_all_sessions_asks_for_a_name(stack: ExitStack, tmp_path: Path) -> None:
    broker = permitting(stack, WHOLE)
    own = tapped(stack, broker, tmp_path)
    with pytest.raises(PublishRefused, match=r"'ether/1/\$directory/session': not authorized.*name the session"):
        Ether().tap(broker=broker.url_tcp)
    shown = command_line(broker, "ps", session=False)
    assert shown.code == 5
    assert "name the session" in shown.err
    assert "cannot reach" not in shown.err
    assert [info.session for info in sessions_at(Endpoint.from_url(broker.url_tcp), 5, SESSION)] == [SESSION]
    own.shutdown()


def test_with_the_rights_of_the_list_all_sessions_are_listed(stack: ExitStack, tmp_path: Path) -> None:
    listing = ["topic read ether/1/+/session", "topic readwrite ether/1/$directory/#"]
    broker = permitting(stack, [*WHOLE, *listing])
    tapped(stack, broker, tmp_path)
    shown = command_line(broker, "sessions", "--json", session=False)
    assert [row["name"] for row in shown.json] == [SESSION], shown.err
