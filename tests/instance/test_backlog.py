"""A backlog of messages holds up no call, no question and no end, and no message is handled after the cleanup.

Reproducers A4 and A5 of the list of faults: 20,000 messages to a handler of 5 ms held every call up until it timed out,
the end took 20 s and a kill, and 1,654 messages were handled after the object had cleaned up. The short form has 2,500
messages; with ETHER_LONG=1 there are 50,000, 10,000 times a setpoint is published and read back, and `ether ps` asks.
The figures of that are in benchmarks/backlog.py.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from backlog_parts import Source, peaks_mb, read
from engine_params import EVERY, On
from patience import patience
from running_brokers import soon

from ether import Ether
from ether.connection.link import Link
from ether.errors import LifecycleFailed, RequestTimeout
from ether.wire.topics import SessionTopics, matches

LONG = os.environ.get("ETHER_LONG") == "1"
MESSAGES, READ_BACK, CALLS = (50_000, 10_000, 100) if LONG else (2_500, 40, 3)
MOST_MB = 64
VERBS = (
    "drain", "save_all", "cleanup", "stop", "sync", "trial", "trial-now", "trial-work", "safe", "log-level", "keeper",
    "announce", "fence",
)  # fmt: skip
pytestmark = pytest.mark.timeout(900 if LONG else 120)


@pytest.fixture
def time_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance is asked early what it does, a third of the time-out before its end."""
    monkeypatch.setattr("ether.calls.client._PROBE_LEAD_S", patience(2.0))


@pytest.fixture
def ether() -> Iterator[Ether]:
    own = Ether()
    yield own
    own.shutdown()


def tap(ether: Ether, folder: Path, broker: object, ms: float = 5.0) -> None:
    slow = {"class_path": "backlog_parts.Slow", "kwargs": {"folder": str(folder), "ms": ms}}
    source = {"class_path": "backlog_parts.Source"}
    ether.tap(
        {"session": "backlog", "broker": broker, "instances": {"slow": slow, "source": source}}, timeout_s=patience(60)
    )


def begin_backlog(ether: Ether, folder: Path, count: int = MESSAGES) -> None:
    assert ether.get("source", "burst", {"count": count}, timeout_s=patience(60)) == count
    assert soon(lambda: read(folder, "handled") > 0, patience(10))


def took(ether: Ether, method: str) -> float:
    begun = time.monotonic()
    ether.get("slow", method, timeout_s=patience(10))
    return time.monotonic() - begun


def queued_by_ps() -> int:
    """How much waits at the slow one, as it tells `ether ps`, which waits 0.8 s for that; 0 where it says nothing."""
    command = [sys.executable, "-m", "ether", "ps", "-s", "backlog", "--json"]
    done = subprocess.run(command, capture_output=True, check=True, timeout=patience(60))
    [queued] = [row["queued"] for row in json.loads(done.stdout)["members"] if row["name"] == "slow"]
    return int(queued or 0)


def rest_of(folder: Path) -> Callable[[], bool]:
    """Whether nothing more was handled since half a second ago, asked again and again."""
    known, since = -1, time.monotonic()

    def is_at_rest() -> bool:
        nonlocal known, since
        if (handled := read(folder, "handled")) != known:
            known, since = handled, time.monotonic()
        return time.monotonic() - since >= 0.5

    return is_at_rest


def assert_little_more(before: dict[str, float]) -> None:
    """Nobody's memory has grown by much: the reader's, the source's, the broker's."""
    more = {who: mb - before[who] for who, mb in peaks_mb().items() if who in before}
    assert len(more) >= 3 or not before, more
    assert not any(mb >= MOST_MB for mb in more.values()), more


@pytest.mark.parametrize("engine", EVERY)
def test_a4_a5_a_backlog_holds_up_no_call_and_no_end(
    engine: str, on: On, ether: Ether, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind all messages the calls would take ten seconds and more."""
    tap(ether, tmp_path, on(engine))
    quiet_s = statistics.median(took(ether, "now") for _ in range(CALLS))
    peaks = peaks_mb()
    begin_backlog(ether, tmp_path)
    own_s, worker_s = ([took(ether, method) for _ in range(CALLS)] for method in ("now", "last"))
    assert max(own_s) < patience(2.4), "a method with a thread of its own"
    assert max(worker_s) < patience(2.4), "a method of the worker, whose caller has published nothing"
    assert not LONG or statistics.median(own_s) < quiet_s + patience(0.02)
    for n in range(READ_BACK):  # on a topic that is not paused, and on the one that is
        ether.pub({"n": n}, topic="setpoint")
        assert ether.get("slow", "last", timeout_s=patience(10)) == n
    before = read(tmp_path, "handled")
    ether.pub({"n": -1}, topic="fast")
    assert ether.get("slow", "last", timeout_s=patience(10)) == READ_BACK - 1
    assert before < read(tmp_path, "handled") < MESSAGES / 2, "the caller's message, and not the others'"

    assert not LONG or soon(lambda: queued_by_ps() > 0, patience(5))
    assert_little_more(peaks)
    monkeypatch.setattr("ether.launch.launcher.STEP_TIMEOUT_S", patience(1.0))
    begun = time.monotonic()
    with pytest.raises(LifecycleFailed) as failed:
        ether.shutdown()
    assert time.monotonic() - begun < patience(6.0)  # three steps of 1 s; with what waits it would be 9 s and more
    told = re.search(r"slow: stop: ([\d,]+) messages were not handled: \1 on 'fast'", str(failed.value))
    assert told is not None, str(failed.value)
    assert re.search(r"slow had [\d,]+ waiting", str(failed.value))
    assert "killed" not in str(failed.value)
    assert int(told.group(1).replace(",", "")) + read(tmp_path, "handled") == MESSAGES + 2
    assert read(tmp_path, "late") == 0


def test_an_instance_hears_its_commands_and_not_what_others_say_of_missed_messages(
    ether: Ether, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was sent the questions and reports of all processes, and its own ones twice: each of its readers' questions
    was answered twice, and what was sent again grew without end."""
    links: list[Link] = []
    listen = Link.listen_to_each

    def listened(link: Link, *args: Any, **options: Any) -> None:
        links.append(link)
        listen(link, *args, **options)

    monkeypatch.setattr(Link, "listen_to_each", listened)
    ether.tap({"session": "backlog", "broker": {"engine": "amqtt"}})
    ether.host(Source(), "source")
    [link], topics = links, SessionTopics("backlog")
    heard = {verb for verb in VERBS if link.listens_to(topics.control_by(verb, "main"))}
    assert heard == {verb for verb in VERBS if link.listens_to(topics.control(verb))} == set(VERBS)
    assert not link.listens_to(topics.missed("0123456789ab"))
    assert not link.listens_to(topics.leader_probe)
    assert link.listens_to(topics.missed(link.node))
    own = [name for name in link._routes._receivers if matches(name, topics.missed(link.node))]
    assert own == [f"{topics.missed(link.node)}/#"], "each of them makes a copy"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell the most memory")
@pytest.mark.in_turn("engine")
@pytest.mark.parametrize("engine", EVERY)
@pytest.mark.parametrize("qos", [1, 0])
def test_a_source_of_pictures_and_its_slow_reader_stay_within_64_mb(
    engine: str, qos: int, on: On, ether: Ether, tmp_path: Path
) -> None:
    """120 MB at once. Most of them wait in files. At QoS 0 a broker may drop what its reader does not take in time."""
    tap(ether, tmp_path, on(engine), ms=1)
    peaks = peaks_mb()
    burst = {"count": 400, "size": 300_000, "qos": qos}
    assert ether.get("source", "burst", burst, timeout_s=patience(60)) == 400
    assert soon((lambda: read(tmp_path, "handled") == 400) if qos else rest_of(tmp_path), patience(60))
    assert_little_more(peaks)


@pytest.mark.usefixtures("time_to_say")
def test_a_time_out_says_what_is_before_the_call(ether: Ether, tmp_path: Path) -> None:
    """Where its caller has published much itself, the call waits for that, and says so."""
    tap(ether, tmp_path, {"engine": "amqtt"}, ms=20)
    for n in range(200):
        ether.pub({"n": n}, topic="fast")
    assert soon(lambda: read(tmp_path, "handled") > 0, patience(10))
    with pytest.raises(RequestTimeout, match=r"slow is still busy, since .* in got, \d+ more waiting, ") as caught:
        ether.get("slow", "last", timeout_s=1.5)
    before = caught.value.before
    assert before is not None
    assert f"{before} of them before this call" in str(caught.value)
    assert 50 < before <= 200
    assert soon(lambda: read(tmp_path, "handled") == 200, 30)  # an end would not wait for all of them


@pytest.mark.usefixtures("time_to_say")
def test_a_call_that_takes_long_is_told_apart_from_one_that_hangs(ether: Ether, tmp_path: Path) -> None:
    tap(ether, tmp_path, {"engine": "amqtt"})

    def told(method: str, seconds: float, timeout_s: float) -> str:
        with pytest.raises(RequestTimeout) as caught:
            ether.get("slow", method, {"seconds": seconds}, timeout_s=timeout_s)
        assert caught.value.before == 0
        return str(caught.value)

    assert re.search(r"in busy; if that is its usual time, say so .*takes='5min'", told("busy", 2.2, 2.0))
    assert ether.get("slow", "last") == -1
    assert "in expose; it says that it takes up to 2 s" in told("expose", 1.9, 1.8)
    assert ether.get("slow", "last") == -1
    assert "in expose; that is longer than the 2 s that it says it takes: it may hang" in told("expose", 4.8, 4.5)


def test_a_caller_waits_as_long_as_the_method_says_that_it_takes(ether: Ether, tmp_path: Path) -> None:
    """Without a time-out of its own. In the lab with a shorter default, because nobody wants to wait for 10 s."""
    tap(ether, tmp_path, {"engine": "amqtt"})
    client = ether._joined("test")
    ether.get("slow", "last")
    assert client.patience_s("slow", "busy") == 10.0
    assert client.patience_s("slow", "expose") == client.patience_s("Slow", "expose") == 12.0


def test_what_save_all_publishes_is_handled_where_no_backlog_is_left(ether: Ether, tmp_path: Path) -> None:
    """The system is at rest; then a save_all method of the source publishes."""
    tap(ether, tmp_path, {"engine": "amqtt"}, ms=0)
    begin_backlog(ether, tmp_path, 30)
    ether.shutdown()
    assert read(tmp_path, "handled") == 31
    assert read(tmp_path, "late") == 0
