"""What somebody once published with the retain flag never runs: not at a start, not after a reconnect (fault E1)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from lossy_proxy import LossyProxy
from patience import patience
from programs import Program, running, write
from running_brokers import engines, mosquitto_missing, running_broker, soon
from stock_mosquittos import publish, stock_mosquitto, url_of

from ether import Ether

needs_mosquitto = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
BROKERS = [
    *(pytest.param(engine, marks=needs_mosquitto if engine == "mosquitto" else ()) for engine in engines),
    pytest.param("stock", marks=needs_mosquitto),
]
PUMP = {"pump": {"class_path": "pump_parts.Pump"}}
DOSE, STOP = "ether/1/bench/call/pump/dose", "ether/1/bench/control/stop"
JUNK = {
    DOSE: '{"ul": 5}',
    STOP: "{}",
    "ether/1/bench/control/cleanup": "{}",
    "ether/1/bench/control/keep": '{"instances": ["main"], "do": "shutdown"}',
    "ether/1/bench/control/fence": '{"name": "pump", "epoch": 99, "nodes": []}',
    "ether/1/bench/reply/main": "1",
    "ether/1/bench/log/pump": "1",
    "ether/1/bench/state/pump/pulse": "1",
}


@pytest.fixture(params=BROKERS)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with ExitStack() as stack:
        if request.param == "stock":
            yield url_of(stack.enter_context(stock_mosquitto()))
        else:
            yield stack.enter_context(running_broker(request.param)).url_tcp


@contextmanager
def lab(url: str) -> Iterator[Ether]:
    ether = Ether()
    ether.tap({"session": "bench", "broker": url, "instances": PUMP})
    try:
        yield ether
    finally:
        ether.shutdown()


def test_a_retained_request_does_not_run_when_its_instance_starts(url: str) -> None:
    """R1: once it was dosed at each start, and a retained `stop` ended each session."""
    for topic, body in JUNK.items():
        publish(url, topic, body, retain=True)
    for _ in range(2):
        with lab(url) as ether:
            # The count comes through the subscription through which the retained request has come before.
            assert ether.get("pump", "count") == 0
            assert [member["state"] for member in ether.instances()] == ["ready"]


def test_a_stranger_may_call_and_is_not_repeated(url: str) -> None:
    with lab(url) as ether:
        publish(url, DOSE, '{"ul": 5}')
        assert soon(lambda: ether.get("pump", "count") == 1, 5)
    with lab(url) as ether:
        assert ether.get("pump", "count") == 0


def test_a_retained_request_does_not_run_after_a_reconnect(url: str) -> None:
    publish(url, DOSE, '{"ul": 5}', retain=True)
    host, _, port = url.rpartition("@")[2].removeprefix("mqtt://").partition(":")
    user = url.removeprefix("mqtt://").partition("@")[0].partition(":") if "@" in url else ("", "", "")
    with LossyProxy(host, int(port), seed=1) as proxy:
        through = proxy.url(user[0], user[2]) if user[0] else f"mqtt://{proxy.host}:{proxy.port}"
        with lab(through) as ether:
            for _ in range(3):
                assert proxy.cut("pump") == 1
                assert proxy.wait_for(lambda: any(name.startswith("pump") for name in proxy.clients()), patience(10))
                assert soon(lambda: answers(ether), 10)
                assert ether.get("pump", "count") == 0


def answers(ether: Ether) -> bool:
    try:
        return bool(ether.get("pump", "pid", timeout_s=patience(1)))
    except Exception:
        return False


@needs_mosquitto
def test_a_request_that_is_published_with_the_retain_flag_now_is_refused_over_mqtt_5() -> None:
    """As a bridge does with what the other side retains, each time it connects."""
    with stock_mosquitto() as port, lab(url_of(port)) as ether:
        publish(url_of(port), DOSE, '{"ul": 5}', retain=True)
        publish(url_of(port), DOSE, '{"ul": 5}')
        assert soon(lambda: ether.get("pump", "count") == 1, 5)
        assert ether.get("pump", "count") == 1


PROGRAM = """
    import sys
    from ether import ether
    pump = {"class_path": "pump_parts.Pump"}
    with ether.tap({"session": "bench", "broker": sys.argv[1], "instances": {"pump": pump}}):
        print("doses", ether.get("pump", "count"), flush=True)
"""


@needs_mosquitto
def test_the_user_is_told_once_which_topic_and_what_to_do(tmp_path: Path) -> None:
    write(tmp_path, "lab.py", PROGRAM)
    (tmp_path / "pump_parts.py").write_text((Path(__file__).parents[1] / "parts" / "pump_parts.py").read_text())
    with stock_mosquitto() as port:
        publish(url_of(port), DOSE, '{"ul": 5}', retain=True)
        with running(tmp_path, "lab.py", url_of(port)) as program:
            program.wait_for("doses 0")
            program.wait_for("mosquitto_pub -r -n -t")
            program.assert_nothing_left()
            assert warnings_of(program) == 1, program.said()


def warnings_of(program: Program) -> Any:
    return sum("ignores the retained message" in line and DOSE in line for line in program.lines["err"])
