"""A heater is off within the stated time, whoever is gone: its controller, the broker, the launcher, the network."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from lossy_proxy import LossyProxy
from patience import patience
from programs import running, write
from running_brokers import RunningBroker, engines, mosquitto_missing, running_broker, soon

from ether import Ether
from ether.errors import EtherError, LifecycleFailed, RemoteError, StartFailed

ROUNDS = 20 if os.environ.get("ETHER_LONG") == "1" else 2
AFTER_S = 1.0
CALLS_S = patience(0.7)
"""For the calls themselves, in a process of their own. What does not notice that
somebody is gone makes none within the 15 s for which they are waited for."""
HERE = str(Path(__file__).parents[1] / "parts")

needs_mosquitto = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
ENGINES = [pytest.param(engine, marks=needs_mosquitto if engine == "mosquitto" else ()) for engine in engines]
HEATER = "driven_parts.Heater"


class Device:
    """What the heater was told."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "heater.log"
        self.log.touch()

    def lines(self) -> list[tuple[float, str]]:
        """When, and what."""
        said = [line.partition(" ") for line in self.log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return [(float(when), word.strip()) for when, _, word in said]

    def words(self) -> list[str]:
        return [word for _, word in self.lines()]

    def until(self, word: str, since: float, timeout_s: float = 15.0) -> float:
        """How long after `since` it was told this."""
        deadline, pause = time.monotonic() + patience(timeout_s), threading.Event()
        while not (found := [when for when, said in self.lines() if said == word and when >= since]):
            assert time.monotonic() < deadline, f"{word!r} was not said; {self.lines()}"
            pause.wait(0.01)
        return found[0] - since


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


@pytest.fixture
def ether() -> Iterator[Ether]:
    own = Ether()
    yield own
    try:
        own.shutdown()
    except (LifecycleFailed, EtherError):
        pass  # what was killed on purpose cannot be asked


def config(device: Device, broker: str = "", controlled: bool = False, **safe: Any) -> dict[str, Any]:
    state = {"after": f"{AFTER_S:g}s", "calls": [{"method": "set_power", "args": [0]}], **safe}
    methods = {name: {"ether_get": {}} for name in ("set_power", "hang", "read", "break_down")}
    said: dict[str, Any] = {
        "instances": {"heater": {"class_path": HEATER, "args": [str(device.log)]}},
        "registry": {HEATER: {"methods": methods, "on_connect": "connect", "safe_state": state}},
    }
    if controlled:
        said["instances"]["controller"] = {"class_path": "driven_parts.Controller", "after": "heater"}
        said["registry"]["driven_parts.Controller"] = {"methods": {"regulate": {"ether_every": "200ms"}}}
        state["watch"] = "controller"
    return {**said, "broker": broker} if broker else said


def eventually(ask: Callable[[], object], timeout_s: float = 15.0) -> object:
    """What it gives as soon as it is not refused."""
    deadline, pause = time.monotonic() + patience(timeout_s), threading.Event()
    while True:
        try:
            return ask()
        except EtherError:
            assert time.monotonic() < deadline
            pause.wait(0.05)


def pid_of(ether: Ether, name: str) -> int:
    return int(seen(ether, name)["pid"])


def seen(ether: Ether, name: str) -> dict[str, Any]:
    """What everybody knows of an instance."""
    return next(each for each in ether.instances() if each["name"] == name)


@pytest.mark.parametrize("engine", ENGINES)
def test_its_controller_is_killed(ether: Ether, device: Device, engine: str) -> None:
    ether.tap({**config(device, controlled=True), "broker": {"engine": engine}})
    for _ in range(ROUNDS):
        device.until("power 40", time.monotonic())  # it is regulated
        killed = time.monotonic()
        os.kill(pid_of(ether, "controller"), signal.SIGKILL)
        assert device.until("power 0", killed) <= AFTER_S + CALLS_S
        ether.restart("controller")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("round_", range(ROUNDS))
def test_the_broker_is_killed(ether: Ether, device: Device, engine: str, round_: int) -> None:
    with running_broker(engine) as broker:
        ether.tap(config(device, broker.url_tcp))
        ether.get("heater", "set_power", 40)
        killed = time.monotonic()
        os.kill(broker.engine_pid, signal.SIGKILL)
        assert device.until("power 0", killed) <= AFTER_S + CALLS_S
        assert device.words() == ["connect", "power 40", "power 0"]


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_the_launcher_is_killed(device: Device, tmp_path: Path, round_: int) -> None:
    script = f"""
        import sys, threading
        sys.path.append({HERE!r})
        from ether import ether
        ether.tap({config(device)!r})
        ether.get("heater", "set_power", 40)
        print("heater: warm", flush=True)
        threading.Event().wait(60)
    """
    with running(tmp_path, write(tmp_path, "lab.py", script)) as program:
        program.wait_for("heater: warm")
        killed = time.monotonic()
        program.kill()
        assert device.until("power 0", killed) <= AFTER_S + CALLS_S
        program.assert_nothing_left()


@pytest.fixture
def far(request: pytest.FixtureRequest) -> Iterator[tuple[RunningBroker, LossyProxy]]:
    """A broker behind a network that can be stopped."""
    with running_broker("amqtt") as broker, LossyProxy(broker.host, broker.port) as proxy:
        yield broker, proxy


def test_the_network_is_dropped_and_comes_back(
    ether: Ether, device: Device, far: tuple[RunningBroker, LossyProxy]
) -> None:
    broker, proxy = far
    ether.tap(config(device, proxy.url(broker.username, broker.password)))
    for _ in range(ROUNDS):
        eventually(lambda: ether.get("heater", "set_power", 40, timeout_s=patience(2)))
        dropped = time.monotonic()
        assert proxy.stall(AFTER_S + CALLS_S) > 0
        assert device.until("power 0", dropped) <= AFTER_S + CALLS_S
    eventually(lambda: ether.get("heater", "set_power", 30, timeout_s=patience(2)))
    assert device.words()[-1] == "power 30"


def test_it_is_announced_and_what_comes_meanwhile_is_refused(ether: Ether, device: Device) -> None:
    ether.tap(config(device, controlled=True, allow=["read"]))
    device.until("power 40", 0.0)
    controller = pid_of(ether, "controller")
    os.kill(controller, signal.SIGSTOP)
    try:
        device.until("power 0", 0.0)
        with pytest.raises(
            RemoteError, match=r"heater is in its safe state \(its controller \(controller\) is gone for 1 s"
        ):
            ether.get("heater", "set_power", 10)
        assert ether.get("heater", "read") == "here"
        assert soon(lambda: "safe" in seen(ether, "heater"), 5.0)
        assert seen(ether, "heater")["safe"]["why"] == "its controller (controller) is gone for 1 s"
    finally:
        os.kill(controller, signal.SIGCONT)
    eventually(lambda: ether.get("heater", "set_power", 10))
    assert "power 10" in device.words()
    assert soon(lambda: "safe" not in seen(ether, "heater"), 5.0)


def test_a_call_that_fails_is_made_again(ether: Ether, device: Device) -> None:
    with running_broker("amqtt") as broker:
        ether.tap(config(device, broker.url_tcp))
        ether.get("heater", "break_down", 2)
        killed = time.monotonic()
        os.kill(broker.engine_pid, signal.SIGKILL)
        assert device.until("power 0", killed) <= AFTER_S + 2 * 1.0 + 2 * CALLS_S


@pytest.mark.parametrize("force", [True, False])
def test_a_hanging_driver_is_bypassed_only_where_that_is_said(ether: Ether, device: Device, force: bool) -> None:
    with running_broker("amqtt") as broker:
        ether.tap(config(device, broker.url_tcp, force=force))
        ether.get("heater", "set_power", 40)
        ether.get_later("heater", "hang", 6.0)
        device.until("hang", 0.0)
        killed = time.monotonic()
        os.kill(broker.engine_pid, signal.SIGKILL)
        took = device.until("power 0", killed)
        assert took <= AFTER_S + 0.5 + CALLS_S if force else took > AFTER_S + 0.5 + CALLS_S


def test_at_the_orderly_end(ether: Ether, device: Device) -> None:
    said = config(device, at_stop=True)
    said["instances"]["heater"]["on_stop"] = ["disconnect"]
    ether.tap(said)
    ether.get("heater", "set_power", 40)
    ether.shutdown()
    assert device.words() == ["connect", "power 40", "power 0", "disconnect"]


def test_a_safe_state_that_cannot_be_called_does_not_start(ether: Ether, device: Device) -> None:
    with pytest.raises(StartFailed, match=r"safe_state: .*driven_parts\.Heater has no method 'set_powr'"):
        ether.tap(config(device, calls="set_powr"))


@pytest.mark.parametrize("engine", ENGINES if os.environ.get("ETHER_LONG") == "1" else ENGINES[:1])
def test_it_goes_on_measuring(ether: Ether, engine: str) -> None:
    """PH10: the broker is away for some seconds. What `poll` measures meanwhile is recorded, and marked; `level` is
    named in `refuse`, and `turn` publishes nothing."""
    with running_broker(engine) as broker:
        safe = {"after": f"{AFTER_S:g}s", "calls": ["off"], "refuse": ["level"]}
        plc = {"class_path": "driven_parts.Plc", "safe_state": safe}
        session = f"night-{engine}"
        ether.tap({"session": session, "record": "all", "broker": broker.url_tcp, "instances": {"plc": plc}})
        assert ether.wait_for("night", lambda n: n >= 5, timeout_s=patience(10))
        os.kill(broker.engine_pid, signal.SIGSTOP)
        threading.Event().wait(AFTER_S + 2.5)  # the time for which the broker stands still is the case itself
        os.kill(broker.engine_pid, signal.SIGCONT)
        assert soon(lambda: "safe" not in seen(ether, "plc"), 10.0)
        eventually(lambda: ether.get("plc", "set", {"value": 1}, timeout_s=patience(2)))
        ether.shutdown()
    polled, levels = list(ether.data(session, "night")), list(ether.data(session, "level"))
    assert [record.value for record in polled] == list(range(1, len(polled) + 1))
    marked = [record for record in polled if record.safe is not None]
    assert len(marked) >= 20
    assert {record.safe for record in marked} == {"the broker or the way to it is gone for 1 s"}
    # What does not go on stands still for 2.5 s.
    assert max(after.time - before.time for before, after in pairwise(polled)) < patience(1.2)
    assert levels
    assert not [record for record in levels if marked[0].time <= record.time <= marked[-1].time]


def test_a_person_makes_all_safe_at_once_and_ends_it_again(ether: Ether, device: Device) -> None:
    described = config(device)
    described["instances"]["plain"] = {"class_path": "driven_parts.Plc"}
    ether.tap(described)
    ether.get("heater", "set_power", {"watts": 30})
    began = time.monotonic()
    answers = ether.make_safe("smoke")
    assert answers == {"heater": {"safe": True, "calls": ("set_power(0)",), "why": ""}}
    device.until("power 0", began)
    with pytest.raises(RemoteError, match="smoke"):
        ether.get("heater", "set_power", {"watts": 30})
    assert ether.end_safe_state()["heater"]["safe"]
    eventually(lambda: ether.get("heater", "set_power", {"watts": 20}))
    assert soon(lambda: not _safe(ether), 5.0)


def test_what_cannot_be_reached_is_not_called_safe(ether: Ether, device: Device) -> None:
    ether.tap(config(device))
    pid = next(each["pid"] for each in ether.instances() if each["name"] == "heater")
    os.kill(pid, signal.SIGSTOP)
    try:
        answer = ether.make_safe("smoke", timeout_s=patience(1.0))["heater"]
        assert not answer["safe"]
        assert "did not answer" in answer["why"] or "cannot be reached" in answer["why"]
    finally:
        os.kill(pid, signal.SIGCONT)


def _safe(ether: Ether) -> bool:
    return any("safe" in each for each in ether.instances())
