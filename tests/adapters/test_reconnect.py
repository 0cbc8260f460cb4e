"""Unplugged, plugged in, exchanged, full of garbage: typed errors in time, the same device again, settings restored."""

from __future__ import annotations

import os
import queue
import random
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from patience import patience

from hardware_adapters import (
    AdapterError,
    BadAnswer,
    Checksum,
    Delimited,
    Disconnected,
    NoAnswer,
    PortInfo,
    Presence,
    SerialPort,
    WrongDevice,
)
from hardware_adapters.simulate import SimulatedLab

pytestmark = pytest.mark.skipif(os.name != "posix", reason="ptys are there on POSIX only")

LONG = os.environ.get("ETHER_LONG") == "1"
ERROR_WITHIN_S, SERVING_WITHIN_S = patience(0.5), patience(2.0)
"""The usual; the one slowest of many may take longer, as on a machine that does something else meanwhile."""
SLOWEST_S = patience(5.0)
HEATER_ID, COOLER_ID = "ACME,Unit,0001,1.0", "ACME,Unit,0002,1.0"
LEVEL = {"properties": {"level": {"get": "LEV?", "set": "LEV {}", "min": 0, "max": 100}}}
BENCH = {"instruments": {"heater": {"idn": HEATER_ID, **LEVEL}, "cooler": {"idn": COOLER_ID, **LEVEL}}}


class Unit:
    """A user's class: it keeps its setting, and brings it back each time the device is there again."""

    def __init__(self, lab: SimulatedLab, name: str, identity: str, level: float) -> None:
        self.level = level
        self.heard: queue.Queue[Presence] = queue.Queue()
        folder = Path(lab.port(name)).parent
        self.port = SerialPort(
            lab.port(name), name=name, identity=identity, candidates=[f"{folder}/*"], timeout_s=patience(0.3),
            on_connect=self.restore, on_presence=self.heard.put,
        )  # fmt: skip

    def restore(self, port: SerialPort) -> None:
        port.write(f"LEV {self.level}")
        assert port.query_value("LEV?", float) == self.level

    def read(self) -> float:
        return self.port.query_value("LEV?", float)


@pytest.fixture
def lab() -> Iterator[SimulatedLab]:
    with SimulatedLab(BENCH) as lab:
        yield lab


@pytest.fixture
def unit(lab: SimulatedLab) -> Iterator[Unit]:
    unit = Unit(lab, "heater", HEATER_ID, 42.0)
    with unit.port:
        yield unit


def back_again(port: SerialPort, connections: int) -> bool:
    """Whether the device was connected so many times within 5 s: a pulled plug may not have been noticed yet."""
    deadline, pause = time.monotonic() + patience(5), threading.Event()
    while port.counts.connections < connections and time.monotonic() < deadline:
        pause.wait(0.02)
    return port.counts.connections >= connections and port.wait_online(5)


def use_until(unit: Unit, stop: threading.Event, crashes: list[BaseException], errors: list[float]) -> None:
    """Use the device without a pause; only typed errors may come, each within its time."""
    while not stop.is_set():
        began = time.monotonic()
        try:
            if unit.read() != unit.level:
                raise AssertionError("a reading without the setting")
        except AdapterError:
            errors.append(time.monotonic() - began)
            unit.port.wait_online(0.05)
        except BaseException as error:
            crashes.append(error)
            return


@pytest.mark.slow("pulls a cable, time after time")
def test_unplugged_and_plugged_in_at_random_moments(lab: SimulatedLab, unit: Unit) -> None:
    rounds, chance = 50 if LONG else 12, random.Random(11)
    stop, crashes, errors = threading.Event(), [], []  # type: ignore[var-annotated]
    pause = threading.Event()
    user = threading.Thread(target=use_until, args=(unit, stop, crashes, errors))
    user.start()
    recovered, errors_here = [], []
    try:
        for number in range(rounds):
            pause.wait(chance.uniform(0.0, 0.05))  # the random moment
            lab.unplug("heater")
            began = time.monotonic()
            with pytest.raises(AdapterError) as caught:
                unit.read()
            assert isinstance(caught.value, (Disconnected, NoAnswer, BadAnswer, WrongDevice))
            errors_here.append(time.monotonic() - began)
            pause.wait(chance.uniform(0.0, 0.05))
            lab.plug("heater")
            began = time.monotonic()
            assert back_again(unit.port, number + 2)
            assert unit.read() == 42.0
            recovered.append(time.monotonic() - began)
    finally:
        stop.set()
        user.join()
    assert crashes == []
    for took, usual_s in ((recovered, SERVING_WITHIN_S), (errors_here, ERROR_WITHIN_S), (errors, ERROR_WITHIN_S)):
        assert statistics.median(took or [0.0]) < usual_s
        assert max(took, default=0.0) < SLOWEST_S
    assert unit.port.counts.connections == rounds + 1


def test_everybody_hears_of_offline_and_online(lab: SimulatedLab, unit: Unit) -> None:
    assert unit.heard.get(timeout=patience(5)).online
    lab.unplug("heater")
    gone = unit.heard.get(timeout=patience(5))  # nobody had to use the device for that
    assert (gone.online, gone.port) == (False, lab.port("heater"))
    assert "unplugged" in gone.reason
    with pytest.raises(Disconnected, match="the device is not there") as caught:
        unit.read()
    assert isinstance(caught.value, ConnectionError)
    lab.plug("heater")
    assert unit.heard.get(timeout=patience(5)).online


def test_found_again_on_another_port(lab: SimulatedLab, unit: Unit) -> None:
    lab.unplug("cooler")
    lab.unplug("heater")
    lab.plug("heater", "cooler")
    assert back_again(unit.port, 2)
    assert unit.port.port == lab.port("cooler")
    assert unit.read() == 42.0


def test_two_that_exchange_ports_never_answer_for_each_other(lab: SimulatedLab) -> None:
    heater, cooler = Unit(lab, "heater", HEATER_ID, 11.0), Unit(lab, "cooler", COOLER_ID, 22.0)
    with heater.port, cooler.port:
        for _ in range(20 if LONG else 4):
            lab.swap("heater", "cooler")
            for unit in (heater, cooler):
                deadline = time.monotonic() + patience(5)
                while time.monotonic() < deadline:
                    try:
                        assert unit.read() == unit.level
                        break
                    except AdapterError:
                        unit.port.wait_online(0.1)
                else:
                    pytest.fail(f"{unit.port.name} was not found again: {unit.port.presence}")
        assert {"LEV 22.0"} & set(lab.instruments["heater"].received) == set()
        assert {"LEV 11.0"} & set(lab.instruments["cooler"].received) == set()


def test_a_twin_without_a_given_identity_is_known_by_its_usb_number(lab: SimulatedLab) -> None:
    numbers = {"heater": "A", "cooler": "B"}

    def ports() -> list[PortInfo]:
        return [PortInfo(lab.port(place), usb_serial=numbers[place]) for place in numbers]

    with SerialPort(lab.port("heater"), candidates=ports) as port:
        lab.unplug("cooler")
        numbers.update(heater="B", cooler="A")
        lab.unplug("heater")
        lab.plug("heater", "cooler")
        lab.plug("cooler", "heater")
        assert back_again(port, 2)
        assert port.port == lab.port("cooler")
        assert port.query("*IDN?") == HEATER_ID


def test_cables_that_are_swapped_without_a_trace_are_noticed(lab: SimulatedLab) -> None:
    """An RS-232 plug that moves ends no connection: a line that was idle is asked who it is before it is used."""
    with SerialPort(lab.port("heater"), identity=HEATER_ID, verify_after_s=0.0, timeout_s=patience(1)) as port:
        lab.instruments["heater"].identity = COOLER_ID
        with pytest.raises(WrongDevice):
            port.write("LEV 99")
        assert "LEV 99" not in lab.instruments["heater"].received
        with pytest.raises(AdapterError):
            port.query("LEV?")
        lab.instruments["heater"].identity = HEATER_ID
        assert port.wait_online(5)
        assert port.query("LEV?") == "0"


def test_a_hook_that_fails_is_tried_again_until_it_works(lab: SimulatedLab, caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []
    failed = threading.Event()

    def hook(port: SerialPort) -> None:
        calls.append(len(calls))
        if 1 <= len(calls) - 1 <= 2:
            failed.set()
            raise RuntimeError("a mistake in the user's hook")

    with SerialPort(lab.port("heater"), identity=HEATER_ID, on_connect=hook) as port:
        lab.unplug("heater")
        lab.plug("heater")
        assert failed.wait(patience(5))
        assert back_again(port, 2)
        assert port.query("LEV?") == "0"
    assert len(calls) == 4
    assert "a mistake in the user's hook" in caplog.text


def test_a_hook_that_fails_at_first_is_the_callers_error(lab: SimulatedLab) -> None:
    def hook(port: SerialPort) -> None:
        raise RuntimeError("a mistake")

    with pytest.raises(RuntimeError, match="a mistake"):
        SerialPort(lab.port("heater"), on_connect=hook)
    with SerialPort(lab.port("heater")) as port:  # the port is free again
        assert port.query("LEV?") == "0"


def test_a_lost_device_can_stay_lost(lab: SimulatedLab) -> None:
    heard: queue.Queue[Presence] = queue.Queue()
    with SerialPort(lab.port("heater"), reconnect=False, on_presence=heard.put) as port:
        assert heard.get(timeout=patience(5)).online
        lab.unplug("heater")
        assert not heard.get(timeout=patience(5)).online
        lab.plug("heater")
        assert not port.wait_online(0.3)
        with pytest.raises(Disconnected):
            port.query("LEV?")


def test_closing_while_it_searches(lab: SimulatedLab) -> None:
    unit = Unit(lab, "heater", HEATER_ID, 1.0)
    lab.unplug("heater")
    unit.port.close()
    assert not unit.port.wait_online(0.0)


def test_a_socket_that_breaks_comes_back() -> None:
    bench = {"instruments": {"far": {"idn": "FAR", "reached_by": "socket", **LEVEL}}}
    with SimulatedLab(bench) as lab, SerialPort(lab.port("far"), identity="FAR", timeout_s=0.5) as port:
        lab.unplug("far")
        with pytest.raises(AdapterError):
            port.query("LEV?")
        lab.plug("far")
        assert back_again(port, 2)
        assert port.query("LEV?") == "0"


NOISY = Delimited(b"\r\n", start=b"$", separator=b"*", checksum=Checksum("crc16-modbus", hex=True), max_bytes=200)


def dirt(chance: random.Random, number: int) -> bytes:
    """One line of garbage, a partial line, or one with a wrong checksum; each of a known kind by its number."""
    match number % 3:
        case 0:
            return chance.randbytes(chance.randint(1, 30)).translate(None, b"$\r\n") + b"~"
        case 1:
            return b"$half a li"
        case _:
            return b"$value=%d*0000\r\n" % chance.randint(1000, 9999)


def test_garbage_partial_lines_and_wrong_checksums_are_counted() -> None:
    """Written into a real pty between good frames: each good frame arrives, each bad one is counted."""
    import pty
    import tty

    count, chance = 10_000 if LONG else 3_000, random.Random(5)
    master, slave = pty.openpty()
    tty.setraw(slave)
    got: queue.Queue[bytes] = queue.Queue()
    with SerialPort(os.ttyname(slave), framing=NOISY, on_input=got.put, unsolicited=lambda _: True) as port:
        garbage_bytes = 0
        for number in range(count):
            rubbish = dirt(chance, number)
            garbage_bytes += len(rubbish)
            _written(master, rubbish)
            if number % 3 == 1 or number % 100 == 0:  # a partial line is one because the next begins before its end
                _written(master, NOISY.encode(b"good %d" % number))
        _written(master, NOISY.encode(b"last"))
        received = [got.get(timeout=patience(20))]
        while received[-1] != b"last":
            received.append(got.get(timeout=patience(20)))
        counts = port.counts
    os.close(master)
    os.close(slave)
    expected = [b"good %d" % n for n in range(count) if n % 3 == 1 or n % 100 == 0]
    assert received == [*expected, b"last"]
    assert counts.skipped_bytes == garbage_bytes
    assert counts.faults["garbage"] == len(range(0, count, 3))
    assert counts.faults["partial"] == len(range(1, count, 3))
    assert counts.faults["checksum"] == len(range(2, count, 3))
    assert counts.failed_callbacks == counts.dropped == 0


def _written(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


@pytest.mark.slow("waits for answers that garbage has eaten")
def test_questions_on_a_line_full_of_garbage(lab: SimulatedLab) -> None:
    """Each question has an answer or one typed error; afterwards the line is as good as new."""
    outcomes = {"answers": 0, "errors": 0}
    # An answer that comes later than both would be taken for that to the next question: a busy machine is late, too.
    waits = {"timeout_s": patience(0.1), "settle_s": patience(0.2)}
    with SerialPort(lab.port("heater"), identity=HEATER_ID, **waits, verify_after_s=None) as port:  # type: ignore[arg-type]
        for fault in ("garbage", "partial", "damage", "silence"):
            lab.fault("heater", fault)  # type: ignore[arg-type]
            for _ in range(40 if LONG else 3):
                try:
                    port.query_value("LEV?", float)
                    outcomes["answers"] += 1
                except AdapterError:
                    outcomes["errors"] += 1
            lab.mend("heater")
            assert port.query("*IDN?", timeout_s=patience(2.0)) == HEATER_ID
        assert port.counts.unanswered + port.counts.bad == outcomes["errors"]
    assert sum(outcomes.values()) == 4 * (40 if LONG else 3)
    assert outcomes["errors"] > 0


def test_a_lease_does_not_outlive_its_device(lab: SimulatedLab, unit: Unit) -> None:
    """A sequence that was interrupted must begin again: the device has forgotten what came before."""
    with unit.port.lease("calibration"):
        assert unit.read() == 42.0
        lab.unplug("heater")
        lab.plug("heater")
        assert back_again(unit.port, 2)
        with pytest.raises(Disconnected, match=r"lost during the lease of calibration .*must begin again"):
            unit.read()
    assert unit.read() == 42.0


def test_on_connect_may_lease_while_another_holds_the_port(lab: SimulatedLab) -> None:
    """Else the settings could not come back before a lease of somebody who waits for the device has ended."""

    def hook(port: SerialPort) -> None:
        with port.lease("settings"):
            port.write("LEV 5")

    with SerialPort(lab.port("heater"), identity=HEATER_ID, on_connect=hook) as port:
        with port.lease("somebody"):
            lab.unplug("heater")
            lab.plug("heater")
            assert back_again(port, 2)
        assert port.query("LEV?") == "5"
