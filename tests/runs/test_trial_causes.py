"""A value belongs to the trial that caused it, through any number of hops; a trial ends when all that it caused has.

With ETHER_LONG=1 the net runs 200 trials of handlers of up to 0.3 s.
"""

from __future__ import annotations

import csv
import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from commands_here import ether_here
from engine_params import EVERY, NEEDS_MOSQUITTO, On
from patience import patience
from picky_proxy import picky_proxy
from pipe_parts import NET, PER_TRIAL
from running_brokers import STOCK, running_broker

from ether import Ether
from ether.errors import InstanceLost, TrialDisturbed
from ether.runs.run import Run

LONG = os.environ.get("ETHER_LONG") == "1"
TRIALS, MOST_S = (200, 0.3) if LONG else (4, 0.1)
ENGINE = "amqtt"

Lab = Callable[..., AbstractContextManager[Ether]]

pytestmark = [pytest.mark.in_turn("engine"), pytest.mark.timeout(1800 if LONG else 120)]


def part(name: str, **options: Any) -> dict[str, Any]:
    return {"class_path": f"pipe_parts.{name}", **options}


@pytest.fixture
def lab(on: On, request: pytest.FixtureRequest) -> Lab:
    """A session of this test's own, in which everything is recorded."""

    @contextmanager
    def lab(broker: str, **instances: Any) -> Iterator[Ether]:
        session = f"causes-{abs(hash(request.node.name)) % 10**8}"
        where = broker if "://" in broker else on(broker)
        own = Ether()
        own.tap({"session": session, "record": "all", "broker": where, "instances": instances})
        try:
            yield own
        finally:
            own.shutdown()

    return lab


def trials_of(ether: Ether, topic: str, run: str = "scan") -> list[tuple[int, int | None, str | None]]:
    """Of each value its x, its trial, and by what it has that."""
    return [(record.value["x"], record.trial, record.by) for record in ether.data(topic=topic, run=run)]


def own(count: int, times: int = 1) -> Counter[tuple[int, int, None]]:
    """What `trials_of` has to count where x is the number of the trial, which caused it."""
    return Counter({(x, x, None): times for x in range(1, count + 1)})


def cli(*words: str) -> str:
    """What `ether` prints."""
    done = ether_here(Path.cwd(), *words)
    assert done.code == 0, done
    return done.out


def without_trial(ether: Ether) -> int:
    """As `ether runs` counts them."""
    return sum(run["without_trial"] for run in json.loads(cli("runs", str(ether.session_id), "--json")))


def chain(ether: Ether) -> None:
    """V1: four topics, three hops."""
    with ether.run("scan") as run:
        for trial in run.trials(10):
            ether.pub({"x": trial.number}, topic="a")
    for topic in "abcd":
        assert Counter(trials_of(ether, topic)) == own(10), topic
    assert len(ether.data(topic="d", run="scan", trial="all")) == 10


CHAIN = {"one": part("One"), "two": part("Two", kwargs={"seconds": 0.03}), "three": part("Three")}


@pytest.mark.parametrize("engine", EVERY)
def test_each_hop_of_a_pipeline_belongs_to_the_trial_that_caused_it(lab: Lab, engine: str) -> None:
    with lab(engine, **CHAIN) as ether:
        chain(ether)


@NEEDS_MOSQUITTO
def test_so_it_does_over_mqtt_3_1_1(lab: Lab) -> None:
    with (
        running_broker(STOCK) as broker,
        picky_proxy(broker.port, only_v311=True) as proxy,
        lab(proxy.url, **CHAIN) as ether,
    ):
        chain(ether)


@pytest.fixture(scope="module")
def workshop() -> Iterator[Ether]:
    """A session with a run `scan`, in which each of three trials was told to handlers that go on in every way."""
    instances = {"gen": "Gen", "sq": "Sq", "threads": "Threads", "tasks": "Async", "store": "Store", "asker": "Asker"}
    own = Ether()
    own.tap({
        "session": "causes-workshop", "record": "all", "broker": {"engine": ENGINE},
        "instances": {name: part(kind) for name, kind in instances.items()},
    })  # fmt: skip
    with own:
        with own.run("scan") as run:
            for trial in run.trials(3):
                own.pub({"x": trial.number}, topic="go")
        yield own


def test_a_run_that_generates_values_and_their_squares(workshop: Ether) -> None:
    """go → gen → value → sq → square."""
    for topic in ("go", "value", "square"):
        assert Counter(trials_of(workshop, topic)) == own(3), topic
    assert workshop.data(topic="square", run="scan", trial=2).first.value == {"x": 2, "square": 4}


def test_threads_and_executors_that_a_handler_starts(workshop: Ether) -> None:
    for topic in ("plain", "timer", "own", "pool", "joined", "inner"):
        assert Counter(trials_of(workshop, topic)) == own(3), topic
    for topic in ("sent", "heard"):
        assert Counter(trials_of(workshop, topic)) == own(3, 6), topic
    records = list(workshop.data(topic="timer", run="scan"))
    assert {record.parents for record in records} == {(go.id,) for go in workshop.data(topic="go", run="scan")}


def test_coroutines_and_calls_inside_handlers(workshop: Ether) -> None:
    for topic in ("awaited", "task", "executor", "to-thread", "fetched", "async", "asked", "saved", "stored", "fit"):
        assert Counter(trials_of(workshop, topic)) == own(3), topic
    assert Counter(trials_of(workshop, "fetching")) == own(3, 2)


def test_the_body_s_own_threads_and_calls(workshop: Ether) -> None:
    with workshop.run("body") as run:
        for trial in run.trials(3):
            x = trial.number
            threads = [threading.Thread(target=workshop.record, args=({"x": x}, "beside")) for _ in range(2)]
            for thread in threads:
                thread.start()
            workshop.get("store", "fetch", {"x": x})
            workshop.get_later("store", "fit", {"x": x, "seconds": 0.1})
            for thread in threads:
                thread.join()
    assert Counter(trials_of(workshop, "beside", "body")) == own(3, 2)
    assert Counter(trials_of(workshop, "fetching", "body")) == Counter(trials_of(workshop, "fit", "body")) == own(3)
    workshop.record({"x": 0}, name="beside")
    workshop.flush()
    assert list(workshop.data(topic="beside"))[-1].trial is None


def net(seed: int, **options: Any) -> dict[str, Any]:
    """Fan-out and fan-in over four hops, with calls; one part handles two messages at a time."""
    kwargs = {"most_s": MOST_S, "seed": seed}
    parts = {name: part(kind, kwargs=kwargs, **options) for name, kind in NET.items()}
    parts["met"]["concurrency"] = 2
    return parts


@pytest.mark.parametrize("engine", EVERY)
def test_a_net_beside_sources_that_run_by_themselves(lab: Lab, engine: str) -> None:
    with lab(engine, **net(seed=7), free=part("Free"), follower=part("Follower")) as ether:
        with ether.run("scan") as run:
            for trial in run.trials(TRIALS, order="random", seed=3):
                ether.pub({"x": trial.number}, topic="a")
                threading.Event().wait(0.05)
        for topic, times in PER_TRIAL.items():
            assert Counter(trials_of(ether, topic)) == own(TRIALS, times), topic
        for topic in ("tick", "thread", "followed"):
            records = list(ether.data(topic=topic, run="scan"))
            assert any(record.trial is not None for record in records), topic
            assert {record.by for record in records if record.trial is not None} == {"time"}, topic
        assert without_trial(ether) == 0


@pytest.mark.parametrize("engine", EVERY if LONG else EVERY[:1])
def test_an_instance_that_is_killed_in_the_middle_and_a_run_that_is_resumed(lab: Lab, engine: str) -> None:
    with lab(engine, **net(seed=5, restart="always")) as ether:

        def start(die_at: int = 0) -> None:
            with ether.run("scan", resume=True) as run:
                for trial in run.trials(TRIALS, order="random", seed=3):
                    ether.pub({"x": trial.number}, topic="a")
                    if trial.place == die_at:
                        ether.get("end", "die")

        with pytest.raises((TrialDisturbed, InstanceLost)):
            start(die_at=TRIALS // 2)
        start()
        counted = [(topic, record) for topic in PER_TRIAL for record in ether.data(topic=topic, run="scan")]
        assert all(record.trial == record.value["x"] and record.by is None for _, record in counted)
        done = Counter(
            (topic, record.trial) for topic in PER_TRIAL for record in ether.data(topic=topic, run="scan", trial="all")
        )
        assert done == {(topic, n): times for topic, times in PER_TRIAL.items() for n in range(1, TRIALS + 1)}
        assert without_trial(ether) == 0


def test_a_thread_that_outlives_its_trial_goes_by_time(lab: Lab, tmp_path: Path) -> None:
    with lab(ENGINE, camera=part("Camera")) as ether:
        with ether.run("scan") as run:
            for trial in run.trials(3):
                if trial.number == 1:
                    ether.get("camera", "begin")
                for _ in range(2):  # the first may have been on its way when this trial began
                    ether.wait_for("frame", timeout_s=patience(10))
        ether.get("camera", "stop")
        ether.flush()
        found = Counter((record.trial, record.by) for record in ether.data(topic="frame", run="scan"))
        assert found[1, None] > 0
        assert found[2, "time"] > 0
        assert found[3, "time"] > 0
        assert found[2, None] == found[3, None] == 0
        assert without_trial(ether) == 0
        session, query = str(ether.session_id), ["--topic", "frame", "--run", "scan", "--trial", "2"]
        shown = cli("data", session, *query)
        assert "2 (by time)" in shown
        lines = [json.loads(line) for line in cli("data", session, *query, "--json").splitlines()]
        assert {(line["trial"], line["by"]) for line in lines} == {(2, "time")}
        assert "trial 2 of scan/1 by time" in cli("why", lines[0]["id"], "--session", session)
        cli("export", session, "--to", str(tmp_path / "frames.csv"), "--topic", "frame", "--run", "scan")
        rows = list(csv.DictReader((tmp_path / "frames.csv").read_text("utf-8-sig").splitlines()))
        assert {(row["trial"], row["by"]) for row in rows} >= {("1", ""), ("2", "time"), ("3", "time")}


def test_a_straggler_is_named_and_the_run_goes_on(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    with lab(ENGINE, gen=part("Gen"), endless=part("Endless")) as ether:
        bound_s = patience(3.0)
        with ether.run("scan") as run:
            began = time.monotonic()
            for trial in run.trials(3, timeout_s=bound_s):
                ether.pub({"x": trial.number}, topic="go")
            took_s = time.monotonic() - began
            ether.get("endless", "let_go")
        assert took_s < patience(7.5), "only the first trial waits for its whole time"
        (first, *_), ends = (
            [each for record in caplog.records if "has not finished what it caused" in (each := record.getMessage())],
            [r.value for r in ether.data(run="scan", kinds=("run",)) if r.value["event"] == "trial-end"],
        )
        assert (
            f"trial 1 of run 'scan/1' is over, and endless has not finished what it caused after {bound_s:g} s" in first
        )
        assert re.search(r"Endless\.never of 'go', for [0-9.]+ s", first)
        assert [list(end["unfinished"]) for end in ends] == [["endless"]] * 3
        assert Counter(trials_of(ether, "value")) == own(3)


def measure(ether: Ether, overlap: int) -> list[tuple[str, int]]:
    """PH8: each measurement takes 0.2 s, the fit of the one before as long; returns which trial began and ended, in
    the order of the run's record."""
    with ether.run("scan") as run:
        for trial in run.trials(6, overlap=overlap):
            ether.record({"x": trial.number}, name="measured")
            threading.Event().wait(0.2)
            ether.record({"x": trial.number}, name="measured")
            ether.get_later("store", "fit", {"x": trial.number, "seconds": 0.2})
    said = [record.value for record in ether.data(run=run.id, kinds=("run",))]
    return [(each["event"], each["trial"]) for each in said if each["event"] in ("trial", "trial-end")]


def fail_in_third(run: Run) -> None:
    with run:
        for trial in run.trials(4, overlap=3):
            if trial.number == 3:
                raise KeyError("here")


def test_trials_that_overlap_by_intent(lab: Lab) -> None:
    with lab(ENGINE, one=part("One"), two=part("Two", kwargs={"seconds": 0.35}), store=part("Store")) as ether:
        with ether.run("scan") as run:
            for trial in run.trials(6, overlap=3):
                ether.pub({"x": trial.number}, topic="a")
                ether.get_later("store", "fit", {"x": trial.number, "seconds": 0.1})
                ended = [
                    r.value["trial"] for r in ether.data(run=run.id, kinds=("run",)) if r.value["event"] == "trial-end"
                ]
                assert ended == list(range(1, trial.number - 2)), "as many are open as overlap says"
        for topic in ("a", "b", "c", "fit"):
            assert Counter(trials_of(ether, topic)) == own(6), topic
        assert len(ether.data(topic="c", run="scan", trial="all")) == 6
        run = ether.run("scan")
        with pytest.raises(KeyError, match="here"):
            fail_in_third(run)
        ends = [r.value for r in ether.data(run=run.id, kinds=("run",)) if r.value["event"] == "trial-end"]
        assert sorted((end["trial"], end["status"]) for end in ends) == [(1, "failed"), (2, "failed"), (3, "failed")]
        with ether.run("scan", resume=True) as run:
            assert [trial.number for trial in run.trials(4, overlap=2)] == [1, 2, 3, 4]
        with pytest.raises(ValueError, match="from 1"), ether.run("scan") as run:
            run.trials(3, overlap=0)


def test_a_trial_need_not_wait_for_the_analysis_of_the_one_before(lab: Lab) -> None:
    with lab(ENGINE, store=part("Store")) as ether:
        alone, beside = measure(ether, 1), measure(ether, 2)
        assert Counter(trials_of(ether, "measured")) == own(6, 2)
        assert Counter(trials_of(ether, "fit")) == own(6)
    for number in range(1, 6):
        assert alone.index(("trial-end", number)) < alone.index(("trial", number + 1)), alone
        assert beside.index(("trial", number + 1)) < beside.index(("trial-end", number)), beside
