"""Serial instruments over real ptys and URLs: answers, retries, typed errors, leases, unsolicited input."""

from __future__ import annotations

import errno
import os
import queue
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from patience import patience

from hardware_adapters import (
    AdapterError,
    BadAnswer,
    Checksum,
    Delimited,
    Disconnected,
    Identity,
    NoAnswer,
    PermissionDenied,
    PortBusy,
    PortNotFound,
    SerialPort,
    WrongDevice,
)
from hardware_adapters.identity import PortInfo
from hardware_adapters.port_access import opening_error
from hardware_adapters.simulate import SimulatedLab

pytestmark = pytest.mark.skipif(os.name != "posix", reason="ptys are there on POSIX only")

BENCH = {
    "seed": 3,
    "instruments": {
        "heater": {
            "idn": "ACME,Heater,0042,1.3",
            "properties": {"power": {"get": "POW?", "set": "POW {}", "min": 0, "max": 100}},
            "dialogues": {"HELLO?": "world", "BLOCK?": "#15ab\ncd"},
        },
        "scale": {
            "framing": {"start": "$", "end": "\r\n", "separator": "*", "checksum": "xor8"},
            "dialogues": {"W?": "12.5"},
        },
        "liar": {"framing": {"start": "$", "end": "\r\n"}, "dialogues": {"W?*68": "12.5*00"}},
        "remote": {"reached_by": "socket", "dialogues": {"HELLO?": "from afar"}},
    },
}
SCALE = Delimited(b"\r\n", start=b"$", separator=b"*", checksum=Checksum("xor8", hex=True))


@pytest.fixture
def lab() -> Iterator[SimulatedLab]:
    with SimulatedLab(BENCH) as lab:
        yield lab


def test_a_question_and_its_answer(lab: SimulatedLab) -> None:
    with SerialPort(lab.port("heater")) as heater:
        assert heater.query("HELLO?") == "world"
        heater.write("POW 12.5")
        assert heater.query_value("POW?", float) == 12.5
        assert lab.value("heater.power") == 12.5


@pytest.mark.parametrize(
    ("url", "answer"), [("loop://", "HELLO?"), ("spy://{pty}", "world"), ("{socket}", "from afar")]
)
def test_every_url_of_pyserial(lab: SimulatedLab, url: str, answer: str) -> None:
    with SerialPort(url.format(pty=lab.port("heater"), socket=lab.port("remote"))) as device:
        assert device.query("HELLO?") == answer


def test_a_missing_port_is_not_found() -> None:
    with pytest.raises(PortNotFound, match="there is no such port") as caught:
        SerialPort("/dev/ttyNOWHERE7")
    assert isinstance(caught.value, FileNotFoundError)
    with pytest.raises(PortNotFound, match="hwgrep"):
        SerialPort("hwgrep://no such thing")
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
    with pytest.raises(PortNotFound, match=f"127.0.0.1:{number}"):
        SerialPort(f"socket://127.0.0.1:{number}")


def test_an_unknown_url_is_one_clear_error() -> None:
    with pytest.raises(PortNotFound, match="nonsense"):
        SerialPort("nonsense://x")


def test_permission_denied_names_the_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import grp

    device = tmp_path / "ttyUSB0"
    device.touch()
    device.chmod(0o660)
    monkeypatch.setattr(os, "stat", lambda path: os.stat_result((0o20660, 0, 0, 1, 0, 20, 0, 0, 0, 0)))
    monkeypatch.setattr(grp, "getgrgid", lambda number: grp.struct_group(("dialout", "x", number, [])))
    monkeypatch.setenv("USER", "ada")
    error = opening_error(str(device), PermissionError(errno.EACCES, "Permission denied"))
    assert isinstance(error, PermissionDenied)
    assert isinstance(error, PermissionError)
    assert error.group == "dialout"
    assert "sudo usermod -aG dialout ada" in str(error)


@contextmanager
def as_an_ordinary_user() -> Iterator[None]:
    """Root may open everything; for a while this process is nobody."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(was)


def test_a_port_that_this_user_may_not_open(lab: SimulatedLab) -> None:
    import grp

    device = os.path.realpath(lab.port("heater"))
    if os.geteuid() == 0:
        os.chown(device, 0, grp.getgrnam("tty").gr_gid)
    os.chmod(device, 0o060)  # its owner, where that is not root, is refused too
    group = grp.getgrgid(os.stat(device).st_gid).gr_name
    with as_an_ordinary_user(), pytest.raises(PermissionDenied, match=f"usermod -aG {group}"):
        SerialPort(device)


def test_a_port_has_one_holder_who_is_named(lab: SimulatedLab) -> None:
    with SerialPort(lab.port("heater"), name="oven"), pytest.raises(PortBusy, match="'oven' of this program") as caught:
        SerialPort(lab.port("heater"))
    assert isinstance(caught.value, BlockingIOError)
    with SerialPort(lab.port("heater")) as again:
        assert again.query("HELLO?") == "world"


def test_a_holder_in_another_program_is_named(lab: SimulatedLab) -> None:
    import subprocess
    import sys

    opening = f"p = serial.Serial({lab.port('heater')!r}, exclusive=True)"
    program = f"import serial, sys; {opening}; print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"1\n"
        try:
            with pytest.raises(PortBusy, match=rf"held by python.* \(pid {other.pid}\)"):
                SerialPort(lab.port("heater"))
        finally:
            other.communicate(b"")


def test_no_answer_in_time(lab: SimulatedLab) -> None:
    with SerialPort(lab.port("heater"), timeout_s=0.1) as heater:
        with pytest.raises(NoAnswer, match=r"asked for b'NOTHING\?\\n': no answer within 0.1 s") as caught:
            heater.query("NOTHING?")
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.command == b"NOTHING?\n"
        assert heater.query("HELLO?", timeout_s=patience(2)) == "world"
        assert (heater.counts.unanswered, heater.counts.answered) == (1, 1)


def test_a_late_answer_is_never_taken_for_the_next_one(lab: SimulatedLab) -> None:
    with SerialPort(lab.port("heater"), timeout_s=0.1, settle_s=patience(1)) as heater:
        lab.fault("heater", "delay", amount=0.2)
        with pytest.raises(NoAnswer):
            heater.query("HELLO?")
        lab.mend("heater")
        heater.write("POW 7")
        assert heater.query_value("POW?", float, timeout_s=patience(2.0)) == 7
        assert heater.counts.late == 1


@pytest.mark.slow("waits for answers that do not come")
def test_retries_repeat_a_question(lab: SimulatedLab) -> None:
    with SerialPort(lab.port("scale"), framing=SCALE, timeout_s=0.2, retries=3) as scale:
        lab.fault("scale", "damage")
        with pytest.raises(AdapterError):
            scale.query("W?")
        assert scale.counts.sent == 4
        assert scale.counts.retried == 3
        lab.mend("scale")
        assert scale.query("W?") == "12.5"


def test_a_damaged_answer_says_what_came_back(lab: SimulatedLab) -> None:
    with SerialPort(lab.port("liar"), framing=SCALE, timeout_s=patience(5.0)) as scale:
        with pytest.raises(BadAnswer, match=r"a damaged message; what came back: b'12.5\*00'") as caught:
            scale.query("W?")  # at once, not at the time-out
        assert caught.value.answer == b"12.5*00"
        assert scale.counts.faults == {"checksum": 1}


def test_half_an_answer_is_bad(lab: SimulatedLab) -> None:
    with SerialPort(lab.port("heater"), timeout_s=0.5) as heater:
        lab.fault("heater", "partial")
        with pytest.raises(BadAnswer, match=r"only a part came within 0\.5 s; what came back: b'wo") as caught:
            heater.query("HELLO?")
        assert isinstance(caught.value, ValueError)


def test_an_answer_that_cannot_be_parsed_is_bad(lab: SimulatedLab) -> None:
    with (
        SerialPort(lab.port("heater"), retries=1) as heater,
        pytest.raises(BadAnswer, match=r"could not convert.*b'world'"),
    ):
        heater.query_value("HELLO?", float)


def test_a_wrong_device_is_refused(lab: SimulatedLab) -> None:
    with pytest.raises(WrongDevice, match=r"ACME,Heater,0043,1.3.*one that answers b'ACME,Heater,0042,1.3'"):
        SerialPort(lab.port("heater"), identity="ACME,Heater,0043,1.3")
    assert lab.instruments["heater"].received == ["*IDN?"]


def test_a_usb_serial_number_finds_a_port_without_opening_others(lab: SimulatedLab) -> None:
    ports = [
        PortInfo(lab.port("scale"), usb_serial="B"),
        PortInfo(lab.port("heater"), usb_serial="A"),
    ]
    with SerialPort(identity=Identity(usb_serial="A"), candidates=lambda: ports) as heater:
        assert heater.port == lab.port("heater")
        assert heater.query("HELLO?") == "world"
    with pytest.raises(WrongDevice, match="USB serial number B"):
        SerialPort(lab.port("scale"), identity=Identity(usb_serial="A"), candidates=lambda: ports[:1])


def test_two_that_fit_are_not_guessed_between() -> None:
    twin = {"properties": {}}
    bench = {"instruments": {"a": {**twin, "idn": "ACME,Pump,1,0"}, "b": {**twin, "idn": "ACME,Pump,2,0"}}}
    with SimulatedLab(bench) as lab:
        folder = str(Path(lab.port("a")).parent)
        anyone = Identity(re.compile(r"ACME,Pump,(\d),0"))
        with pytest.raises(WrongDevice, match=r"2 that fit .*'1'.*'2'.*; name one"):
            SerialPort(identity=anyone, candidates=[folder + "/*"])
        with SerialPort(lab.port("b"), identity=anyone, candidates=[folder + "/*"]) as pump:
            assert pump.fingerprint is not None
            assert pump.fingerprint.answer == ("2",)


def test_a_lease_keeps_others_out_and_names_its_holder(lab: SimulatedLab) -> None:
    with SerialPort(lab.port("heater")) as heater:
        refused: queue.Queue[BaseException | str] = queue.Queue()

        def other() -> None:
            try:
                heater.lease("somebody else", timeout_s=0.05)
            except PortBusy as error:
                refused.put(error)

        with heater.lease("calibration", reason="zero point") as lease:
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
            assert heater.query("HELLO?") == "world"  # the holder's own commands pass
            with heater.lease("calibration, inner part"):
                assert heater.lock.holding == lease.holding

            def joined() -> None:
                with lease.joined():
                    refused.put(heater.query("HELLO?"))

            helper = threading.Thread(target=joined)
            helper.start()
            helper.join()
        error = refused.get_nowait()
        assert isinstance(error, PortBusy)
        assert re.search(r"held by calibration \(since \d\d:\d\d:\d\d\): zero point", str(error))
        assert refused.get_nowait() == "world"
        assert heater.lock.holding is None
        with pytest.raises(PortBusy, match="the lease has ended"), lease.joined():
            pass


def test_commands_of_many_threads_never_mix(lab: SimulatedLab) -> None:
    lab.instruments["heater"]._dialogues |= {f"Q{n}?": f"answer {n}" for n in range(8)}  # type: ignore[attr-defined]
    wrong: list[str] = []
    with SerialPort(lab.port("heater")) as heater:

        def asking(number: int) -> None:
            wrong.extend(got for _ in range(50) if (got := heater.query(f"Q{number}?")) != f"answer {number}")

        threads = [threading.Thread(target=asking, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert heater.counts.answered == 400
    assert wrong == []


def test_what_nobody_asked_for_reaches_the_listener() -> None:
    got: queue.Queue[bytes] = queue.Queue()

    def listener(frame: bytes) -> None:
        got.put(frame)
        if frame == b"event 1":
            raise RuntimeError("a listener that fails")

    with SerialPort("loop://", on_input=listener, unsolicited=lambda frame: frame.startswith(b"event")) as device:
        device.write("event 1")
        device.write("event 2")
        assert device.query("answer") == "answer"
        assert [got.get(timeout=patience(5)), got.get(timeout=patience(5))] == [b"event 1", b"event 2"]
    assert (device.counts.inputs, device.counts.failed_callbacks) == (2, 1)


def test_a_closed_adapter_says_so(lab: SimulatedLab) -> None:
    heater = SerialPort(lab.port("heater"))
    heater.close()
    heater.close()
    with pytest.raises(Disconnected, match="the adapter was closed"):
        heater.query("HELLO?")


def test_closing_ends_a_question_that_waits(lab: SimulatedLab) -> None:
    outcome: queue.Queue[BaseException] = queue.Queue()
    heater = SerialPort(lab.port("heater"), timeout_s=patience(60.0))

    def asking() -> None:
        try:
            heater.query("NOTHING?")
        except AdapterError as error:
            outcome.put(error)

    thread = threading.Thread(target=asking)
    thread.start()
    received = lab.instruments["heater"].received
    while "NOTHING?" not in received:
        assert thread.is_alive()
        thread.join(0.01)
    heater.close()
    assert isinstance(outcome.get(timeout=patience(5)), Disconnected)
    thread.join()


def test_options_that_cannot_be_are_refused() -> None:
    with pytest.raises(TypeError, match=r"no option 'retires'\. Did you mean 'retries'\?"):
        SerialPort("loop://", retires=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"no option 'x'\. There are: name, identity"):
        SerialPort("loop://", x=3)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="more than 0"):
        SerialPort("loop://", timeout_s=0)
    with pytest.raises(ValueError, match="needs a port, or an identity"):
        SerialPort()
    with pytest.raises(ValueError, match="needs an answer"):
        Identity()


def test_importing_the_package_loads_no_engine() -> None:
    import subprocess
    import sys

    heavy = ["serial", "pyvisa", "pydantic", "yaml", "numpy"]
    code = f"""import sys, hardware_adapters
hardware_adapters.Identity("x"), hardware_adapters.Delimited, hardware_adapters.NoAnswer
print([name for name in {heavy} if name in sys.modules], hardware_adapters.__all__ == dir(hardware_adapters))
try: hardware_adapters.Serialport
except AttributeError as error: print(error)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(
        "[] True\nmodule 'hardware_adapters' has no attribute 'Serialport'; it has: Adapter, "
    )


def test_errors_cross_process_borders() -> None:
    import pickle

    for error in (NoAnswer("p", b"x", 0.5), PortBusy("p", holder="me"), BadAnswer("p", "why", answer=b"?")):
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error)
        assert str(copy) == str(error)
        assert vars(copy) == vars(error)


@pytest.mark.filterwarnings("ignore:set(Daemon|Name):DeprecationWarning")  # pyserial 3.5 calls them
def test_rfc2217_a_serial_port_on_the_network() -> None:
    """A server made of pyserial's own parts; the line behind it sends back what it gets."""
    import selectors

    import serial
    from serial import rfc2217

    stop = threading.Event()
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        reader, _ = server.accept()
        with reader, serial.serial_for_url("loop://", timeout=0) as line, selectors.DefaultSelector() as selector:
            manager = rfc2217.PortManager(line, type("Writer", (), {"write": staticmethod(reader.sendall)})())
            selector.register(reader, selectors.EVENT_READ)
            while not stop.is_set():
                if selector.select(0.1):
                    line.write(b"".join(manager.filter(reader.recv(1024))))
                    reader.sendall(b"".join(manager.escape(line.read(line.in_waiting))))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with SerialPort(f"rfc2217://127.0.0.1:{server.getsockname()[1]}", echo=False, timeout_s=patience(5)) as device:
            assert device.query("HELLO?") == "HELLO?"
    finally:
        stop.set()
        thread.join()
        server.close()
