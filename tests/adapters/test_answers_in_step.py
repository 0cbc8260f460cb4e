"""An answer belongs to its question: late, doubled, dropped, echoed and unasked messages, on ptys, sockets and VISA."""

from __future__ import annotations

import itertools
import logging
import os
import queue
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from faulty_device import IDENTITY, Device, Habits, Verdict, campaign
from patience import patience
from running_brokers import soon

from hardware_adapters import (
    Adapter,
    AdapterError,
    BadAnswer,
    Checksum,
    Disconnected,
    Fixed,
    Framer,
    LengthPrefixed,
    NoAnswer,
    PortNotFound,
    Presence,
    SerialPort,
)
from hardware_adapters.simulate import SimulatedLab

pytestmark = pytest.mark.skipif(os.name != "posix", reason="ptys are there on POSIX only")
LONG = os.environ.get("ETHER_LONG") == "1"

try:
    import pyvisa  # noqa: F401

    from hardware_adapters import VisaInstrument
except ImportError:
    VISA = False
else:
    VISA = True
needs_visa = pytest.mark.skipif(not VISA, reason="pyvisa is not installed: pip install 'ether-medium[visa]'")
MEDIA: list[Any] = [
    "pty",
    "socket",
    pytest.param("visa socket", marks=needs_visa),
    pytest.param("visa serial", marks=needs_visa),
]
EACH = MEDIA if LONG else [MEDIA[0], MEDIA[2]]


@contextmanager
def opened(medium: str, device: Device, **options: Any) -> Iterator[Adapter]:
    """An adapter for this device, over one of the media."""
    if medium in ("pty", "visa serial"):
        with device.on_a_pty() as name:
            port = (
                SerialPort(name, **options) if medium == "pty" else VisaInstrument(f"ASRL{name}::INSTR@py", **options)
            )
            with port:
                yield port
    else:
        with device.on_a_socket() as number:
            if medium == "socket":
                port = SerialPort(f"socket://127.0.0.1:{number}", **options)
            else:
                port = VisaInstrument(f"TCPIP::127.0.0.1::{number}::SOCKET@py", **options)
            with port:
                yield port


@contextmanager
def serving(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server's port: `talk` is given its first client. Its thread ends with the block, also where no client came."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            try:
                client, _ = server.accept()
            except OSError:  # the block ended before a client came
                return
            with client:
                talk(client)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)  # closing alone leaves accept() waiting
            thread.join()


class Slow(Device):
    """Answers in time, but for the questions that are named: seconds until their answers are sent."""

    def __init__(self, late: dict[str, float], copies: int = 1) -> None:
        super().__init__(Habits(in_time_s=0.0))
        self.late, self.copies = late, copies

    def hear(self, text: str) -> tuple[bytes, float, bytes]:
        self.asked.append(text)
        answer = self.answer(text)
        pause_s = self.late.pop(text, 0.0)
        return b"", pause_s, (answer + b"\n") * self.copies if answer is not None else b""


def asked(port: Adapter, numbers: range) -> tuple[int, int]:
    """How many of these questions had their own answer, and how many another one."""
    right = wrong = 0
    for number in numbers:
        try:
            answer = port.query(f"Q{number}?")
        except AdapterError:
            continue
        right += answer == f"A{number}"
        wrong += answer != f"A{number}"
    return right, wrong


@pytest.mark.parametrize(
    ("medium", "proof"),
    [(medium, "count") for medium in ("pty", "socket", "visa socket", "visa serial")]
    + [(medium, proof) for medium in ("pty", "visa socket") for proof in ("idn", "opc")],
)
def test_v2_one_late_answer_does_not_shift_those_that_follow(
    medium: str, proof: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "visa" in medium:
        pytest.importorskip("pyvisa")
    # Where the identity is asked twice, its first answer is a second late one.
    monkeypatch.setattr("hardware_adapters.search.ASK_S", patience(0.5))
    with opened(medium, Slow({"Q3?": patience(0.9)}), timeout_s=patience(0.6), **PROOFS[proof]) as port:
        assert asked(port, range(14)) == (13, 0)
        counts = port.counts
    assert (counts.unanswered, counts.late, counts.resynchronised) == (1, 1, 1)


@needs_visa
def test_v2_a_late_answer_of_an_instrument_that_goes_on_with_others() -> None:
    """It answers other questions meanwhile; the late answer comes one time-out after its own."""
    timeout_s = patience(0.4)
    timers: list[threading.Timer] = []

    def instrument(client: socket.socket) -> None:
        with client.makefile("rb") as lines:
            for text in lines:
                if b"OPC?" in text:
                    timers.append(threading.Timer(2 * timeout_s, client.sendall, [b"LATE\n"]))
                    timers[0].start()
                elif b"V?" in text:
                    client.sendall(b"3.25\n")

    with (
        serving(instrument) as number,
        VisaInstrument(f"TCPIP0::127.0.0.1::{number}::SOCKET@py", timeout_s=timeout_s) as device,
    ):
        with pytest.raises(NoAnswer, match=r"'\*OPC\?.*no answer within .* if it comes in the next .* it is dropped"):
            device.query("*OPC?")
        assert [device.query("V?") for _ in range(10)] == ["3.25"] * 10
        assert device.counts.late == 1
    timers[0].join()


@pytest.mark.parametrize("medium", EACH)
@pytest.mark.parametrize("proof", [{}, {"identity": IDENTITY}], ids=["count", "idn"])
def test_back_in_step_within_two_time_outs_after_one_late_answer(medium: str, proof: dict[str, Any]) -> None:
    timeout_s = patience(0.6)
    with opened(medium, Slow({"Q1?": 1.5 * timeout_s}), timeout_s=timeout_s, **proof) as port:
        assert port.query("Q0?") == "A0"
        with pytest.raises(NoAnswer):
            port.query("Q1?")
        began = time.monotonic()
        assert port.query("Q2?") == "A2"
        assert time.monotonic() - began < 2 * timeout_s


def test_retries_do_not_take_a_late_answer_for_that_of_the_retry() -> None:
    """Both attempts of a question have an answer: the first one's, which is late, is counted and not given out."""
    timeout_s = patience(0.2)
    with opened("pty", Slow({"Q1?": 1.5 * timeout_s}), timeout_s=timeout_s, retries=2) as port:
        assert asked(port, range(20)) == (20, 0)
        assert port.counts.answered == 20


def test_late_beyond_all_bounds_is_an_error_and_no_wrong_value() -> None:
    """The answer comes after the time of the owed one: two messages for one question. (On a busy machine that time may
    end later than the answer comes, and the answer is just late.)"""
    timeout_s = patience(0.2)
    with opened("pty", Slow({"Q1?": 3.5 * timeout_s}), timeout_s=timeout_s) as port:
        assert port.query("Q0?") == "A0"
        with pytest.raises(NoAnswer):
            port.query("Q1?")
        outcome = ""
        try:
            outcome = port.query("Q2?")
        except BadAnswer as error:
            outcome = str(error)
        assert port.counts.late == 1 or "two messages came for one question, b'A1' and b'A2'" in outcome
        assert port.counts.late == 0 or outcome == "A2"
        assert asked(port, range(3, 9)) == (6, 0)


def test_without_an_answer_to_the_sync_question_nothing_is_sent() -> None:
    timeout_s = patience(0.2)
    with opened("pty", Slow({"Q1?": 5 * timeout_s}), timeout_s=timeout_s, sync=("*OPC?", "1")) as port:
        device_asked = port.query("Q0?")
        assert device_asked == "A0"
        with pytest.raises(NoAnswer):
            port.query("Q1?")
        with pytest.raises(BadAnswer, match="it was not sent: an earlier question was not answered"):
            port.query("Q2?")
        answers: list[str] = []
        deadline = time.monotonic() + patience(5)
        while not answers and time.monotonic() < deadline:
            try:
                answers.append(port.query("Q2?"))
            except BadAnswer:
                continue
        assert answers == ["A2"]


def test_it_is_said_once_and_counted_each_time(caplog: pytest.LogCaptureFixture) -> None:
    timeout_s = patience(0.4)
    with (
        caplog.at_level(logging.WARNING, "Ether.hardware"),
        opened("pty", Slow({"Q1?": 1.2 * timeout_s, "Q3?": 1.2 * timeout_s}), timeout_s=timeout_s) as port,
    ):
        assert asked(port, range(6)) == (4, 0)
        assert (port.counts.late, port.counts.resynchronised) == (2, 2)
    said = [record for record in caplog.records if "nothing else is asked" in record.getMessage()]
    assert len(said) == 1
    assert "Q1?" in said[0].getMessage()


@pytest.mark.parametrize("medium", EACH)
def test_a_doubled_answer_is_no_answer_to_the_next_question(medium: str) -> None:
    with opened(medium, Slow({}, copies=2), settle_s=0.01) as port:
        assert asked(port, range(20)) == (20, 0)
        assert port.counts.surplus + port.counts.inputs >= 19


@pytest.mark.parametrize("medium", MEDIA)
def test_an_echo_is_never_an_answer(medium: str) -> None:
    """Also that of a command without an answer, which comes after the next question was sent."""
    device = Device(Habits(in_time_s=0.0, echo=True))
    with opened(medium, device, settle_s=0.01) as port:
        port.write("SET 1")
        right = wrong = 0
        for number in range(20):
            answer = port.query(f"Q{number}?")
            right += answer == f"A{number}"
            wrong += answer != f"A{number}"
            port.write("SET 2")
        assert (right, wrong) == (20, 0)
        assert port.counts.echoes >= 20


def test_an_echo_alone_is_an_error_that_says_so() -> None:
    silent = Device(Habits(in_time_s=0.0, drop=1.0, echo=True))
    only_the_echo = pytest.raises(BadAnswer, match=r"only the question itself came back .* an echo .*b'Q1\?'")
    with opened("pty", silent, timeout_s=patience(0.4)) as port, only_the_echo:
        port.query("Q1?")
    with SerialPort("loop://") as loop:
        assert loop.query("Q1?") == "Q1?"


@pytest.mark.parametrize("medium", EACH)
def test_a_command_that_is_acknowledged_does_not_answer_the_next_question(medium: str) -> None:
    device = Device(Habits(in_time_s=0.0, acknowledge=True))
    with opened(medium, device, settle_s=0.01) as port:
        wrong, refused = 0, []
        for number in range(20):
            port.write(f"SET {number}")
            try:
                wrong += port.query(f"Q{number}?") != f"A{number}"
            except BadAnswer as error:
                refused.append(str(error))
        assert wrong == 0
        assert len(refused) <= 3  # then it is known that it acknowledges
        assert all("two messages came for one question, b'OK'" in said for said in refused)


@pytest.mark.parametrize("medium", EACH)
def test_a_device_that_chats(medium: str) -> None:
    """With `unsolicited` each answer is right; without it, what cannot be told apart is an error."""
    got: queue.Queue[bytes] = queue.Queue()
    habits = Habits(in_time_s=0.0, chat=0.3)
    told = {"unsolicited": lambda frame: frame.startswith(b"!"), "on_input": got.put}
    with opened(medium, Device(habits, seed=3), settle_s=0.01, **told) as port:
        assert asked(port, range(25)) == (25, 0)
        assert port.counts.inputs >= 5
    assert got.get(timeout=patience(5)) == b"!CHAT"
    with opened(medium, Device(habits, seed=3), settle_s=0.01) as port:
        right, wrong = asked(port, range(25))
        assert (wrong, right >= 12) == (0, True)
    with opened(medium, Device(habits, seed=3), settle_s=0.01, retries=4) as port:
        assert asked(port, range(25)) == (25, 0)


def test_an_unasked_message_without_unsolicited_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "Ether.hardware"), SerialPort("loop://") as loop:
        for _ in range(3):
            loop.write("hello")
            assert loop.query("Q?") in ("Q?", "hello")
    assert sum("which nobody asked for" in record.getMessage() for record in caplog.records) <= 1


@pytest.mark.parametrize(
    "framing",
    [
        Fixed(4),
        Fixed(4, start=b"\xaa\x55", checksum=Checksum("crc8-maxim")),
        LengthPrefixed(1, checksum=Checksum("crc16-modbus", "little")),
    ],
    ids=["fixed", "fixed, checksum", "length, checksum"],
)
@pytest.mark.parametrize("cut", [1, 3])
def test_half_a_late_telegram_shifts_nothing(framing: Any, cut: int) -> None:
    """The answer to question 2 comes in two parts, the second one after the time-out; that to 5 never ends."""
    import pty
    import tty

    master, slave = pty.openpty()
    tty.setraw(slave)
    timeout_s, stop = patience(0.5), threading.Event()
    size = len(framing.encode(b"0000"))

    def device() -> None:
        heard = b""
        while not stop.is_set():
            try:
                heard += os.read(master, 100)
            except OSError:
                return
            while len(heard) >= size:
                telegram, heard = heard[:size], heard[size:]
                [payload] = Framer(framing).feed(telegram)
                number = int(payload)
                answer = framing.encode(b"%04d" % (number + 1000))
                os.write(master, answer[: cut if number in (2, 5) else size])
                if number == 2:
                    stop.wait(1.5 * timeout_s)
                    os.write(master, answer[cut:])

    thread = threading.Thread(target=device)
    thread.start()
    try:
        with SerialPort(os.ttyname(slave), framing=framing, timeout_s=timeout_s) as port:
            outcomes = []
            for number in range(9):
                try:
                    outcomes.append(int(port.query_bytes(b"%04d" % number)) - 1000)
                except BadAnswer:
                    outcomes.append(-1)
            assert outcomes == [0, 1, -1, 3, 4, -1, 6, 7, 8]
    finally:
        stop.set()
        os.write(slave, b"")
        os.close(slave)
        os.close(master)
        thread.join()


def test_threads_on_one_port_each_get_their_own_answers() -> None:
    timeout_s = patience(0.25)
    late = {f"Q{n}?": 1.3 * timeout_s for n in (105, 211, 302)}
    totals: list[tuple[int, int]] = []
    with opened("pty", Slow(late), timeout_s=timeout_s) as port:

        def work_from(first: int) -> None:
            totals.append(asked(port, range(first, first + 30)))

        work = [threading.Thread(target=work_from, args=(first,)) for first in (100, 200, 300)]
        for thread in work:
            thread.start()
        for thread in work:
            thread.join()
    assert sum(wrong for _, wrong in totals) == 0
    assert sum(right for right, _ in totals) >= 80  # of 90, of which 3 are late


def test_what_is_refused_by_the_user_may_not_have_been_the_answer() -> None:
    """An unasked line comes in its place; the true answer follows, and is not that of the next question."""
    device = Slow({})
    device.hear = lambda text: (b"hello\n", 0.03, text.replace("Q", "").replace("?", "").encode() + b"\n")  # type: ignore[method-assign]
    with opened("pty", device, timeout_s=patience(0.4)) as port:
        for number in range(5):
            with pytest.raises(BadAnswer, match=r"not what was expected|two messages"):
                port.query_value(f"Q{number}?", float)
    device = Slow({})
    heard: list[str] = []

    def once(text: str) -> tuple[bytes, float, bytes]:
        heard.append(text)
        return (b"hello\n" if len(heard) == 1 else b""), 0.03, text[1:-1].encode() + b"\n"

    device.hear = once  # type: ignore[method-assign]
    with opened("pty", device, timeout_s=patience(0.4)) as port:
        with pytest.raises(BadAnswer):
            port.query_value("Q1?", float)
        assert [port.query_value(f"Q{number}?", float) for number in range(2, 9)] == list(range(2, 9))


def test_a_new_connection_does_not_stop_an_old_answer() -> None:
    """The cable is out while a slow instrument works; its answer comes over the new connection."""
    bench = {"instruments": {"slow": {"reached_by": "socket", "dialogues": {"A?": "old", "B?": "new"}}}}
    with SimulatedLab(bench) as lab, SerialPort(lab.port("slow"), timeout_s=patience(0.1)) as port:
        lab.fault("slow", "silence")
        with pytest.raises(NoAnswer):
            port.query("A?")
        lab.unplug("slow")
        lab.mend("slow")
        lab.plug("slow")
        assert soon(lambda: port.counts.connections == 2, 5)  # until the cut is noticed the old one counts as online
        assert port.wait_online(5)
        connection = port._connection
        assert connection is not None
        assert [each.message for each in connection.owed()] in ([], [b"A?\n"])
        assert port.query("B?") == "new"


@pytest.mark.parametrize("fault", ["late", "drop", "double", "chat", "echo"])
def test_the_faults_of_a_simulated_lab(fault: Any) -> None:
    dialogues = {f"Q{n}?": f"A{n}" for n in range(30)}
    bench = {"seed": 5, "instruments": {"slow": {"dialogues": dialogues}}}
    options: dict[str, Any] = {"unsolicited": lambda frame: frame.startswith(b"!"), "settle_s": 0.01}
    timeout_s = patience(0.5)
    with SimulatedLab(bench) as lab, SerialPort(lab.port("slow"), timeout_s=timeout_s, **options) as port:
        lab.fault("slow", fault, amount=2 * timeout_s, chance=0.1 if fault != "echo" else None)
        right, wrong = asked(port, range(30))
        counts = port.counts
    assert wrong == 0
    assert {
        "late": counts.late > 0,
        "drop": right < 30 and counts.late == 0,
        "double": right == 30 and counts.surplus > 0,
        "chat": right == 30 and counts.inputs > 0,
        "echo": right == 30 and counts.echoes == 30,
    }[fault]


@needs_visa
def test_an_instrument_of_pyvisa_sim_that_is_late() -> None:
    bench = {"seed": 2, "instruments": {"slow": {"dialogues": {f"Q{n}?": f"A{n}" for n in range(30)}}}}
    timeout_s = patience(0.06)
    with (
        SimulatedLab(bench) as lab,
        VisaInstrument(lab.visa_resource("slow", "GPIB0::9::INSTR"), timeout_s=timeout_s) as port,
    ):
        lab.fault("slow", "late", amount=2 * timeout_s, chance=0.4)
        lab.fault("slow", "double", chance=0.2)
        right, wrong = asked(port, range(30))
        assert (wrong, right >= 15) == (0, True)
        assert port.counts.late > 0


# V7


@needs_visa
def test_v7_a_visa_socket_to_nobody_is_an_error_when_it_is_made() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
    with pytest.raises(PortNotFound, match="nobody answers there: Connection refused"):
        VisaInstrument(f"TCPIP::127.0.0.1::{number}::SOCKET@py")
    with pytest.raises(PortNotFound, match="ttyNOWHERE"):
        VisaInstrument("ASRL/dev/ttyNOWHERE7::INSTR@py")


@needs_visa
def test_v7_an_instrument_over_vxi11_or_hislip_that_nobody_is() -> None:
    """In a process of its own: pyvisa-py leaves the sockets of a refused connection to the collector."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
    names = [f"TCPIP::127.0.0.1::{device},{number}::INSTR@py" for device in ("hislip0", "inst0")]
    code = f"""import logging; from hardware_adapters import VisaInstrument
logging.disable(50)
for name in {names}:
    try: print(VisaInstrument(name).presence)
    except Exception as error: print(type(error).__name__, error.port == name)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "PortNotFound True\n" * 2


@contextmanager
def hanging_up() -> Iterator[int]:
    """A server that is taken: it accepts each client, and hangs up."""
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.05)
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            try:
                client, _ = server.accept()
            except TimeoutError:
                continue
            client.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        stop.set()
        thread.join()
        server.close()


@pytest.mark.parametrize("medium", ["socket", pytest.param("visa socket", marks=needs_visa)])
def test_v7_a_peer_that_hangs_up_at_once_is_an_error_when_it_is_made(medium: str) -> None:
    maker = SerialPort if medium == "socket" else VisaInstrument
    form = "socket://127.0.0.1:{}" if medium == "socket" else "TCPIP::127.0.0.1::{}::SOCKET@py"
    with hanging_up() as number, pytest.raises(PortNotFound, match=r"hung up|reset"):
        maker(form.format(number))


@pytest.mark.parametrize("medium", ["socket", pytest.param("visa socket", marks=needs_visa)])
def test_v7_online_only_while_a_connection_stands(medium: str) -> None:
    """A cut is noticed though nobody asks anything, and the first command says so."""
    heard: queue.Queue[Presence] = queue.Queue()
    bench = {"instruments": {"far": {"reached_by": "socket", "dialogues": {"Q?": "A"}}}}
    with SimulatedLab(bench) as lab:
        name = lab.port("far") if medium == "socket" else lab.resource("far")
        maker = SerialPort if medium == "socket" else VisaInstrument
        with maker(name, timeout_s=patience(0.5), on_presence=heard.put) as port:
            assert heard.get(timeout=patience(5)).online
            assert port.query("Q?") == "A"
            lab.unplug("far")
            assert not heard.get(timeout=patience(5)).online
            with pytest.raises(Disconnected):
                port.query("Q?")
            assert not port.presence.online
            assert not port.wait_online(0.3)
            lab.plug("far")
            assert port.wait_online(5)
            assert port.query("Q?") == "A"


@pytest.mark.parametrize("medium", ["socket", pytest.param("visa socket", marks=needs_visa)])
def test_an_answer_before_a_hang_up_is_given_out(medium: str) -> None:
    hung_up = threading.Event()

    def serve(client: socket.socket) -> None:
        client.recv(100)
        client.sendall(b"last words\n")
        client.close()
        hung_up.set()

    maker = SerialPort if medium == "socket" else VisaInstrument
    form = "socket://127.0.0.1:{}" if medium == "socket" else "TCPIP::127.0.0.1::{}::SOCKET@py"
    with serving(serve) as number, maker(form.format(number), reconnect=False) as port:
        assert port.query("Q?") == "last words"
        assert hung_up.wait(patience(5))
        with pytest.raises(Disconnected):
            port.query("Q?")


# The campaign

PROOFS: dict[str, dict[str, Any]] = {"count": {}, "idn": {"identity": IDENTITY}, "opc": {"sync": ("*OPC?", "1")}}
QUESTIONS = 100_000 if LONG else 2_000
TIMEOUT_S = patience(0.03)
MIXES = {
    "late": Habits(TIMEOUT_S / 3, 3 * TIMEOUT_S, late=0.02, drop=0.01),
    "all": Habits(TIMEOUT_S / 3, 3 * TIMEOUT_S, late=0.02, drop=0.01, double=0.02, chat=0.02),
    "echo": Habits(TIMEOUT_S / 3, 3 * TIMEOUT_S, late=0.02, drop=0.01, double=0.02, chat=0.02, echo=True),
}
RUNS = [  # the short form has each mix and each proof, with retries or without
    (medium, mix, proof, retries)
    for medium in ("pty", "socket", "visa socket", "visa serial")
    for place, (mix, proof) in enumerate(itertools.product(MIXES, PROOFS))
    for retries in ((0, 2) if LONG else (place // 2 % 2 * 2,))
    if LONG or place % 2  # four of nine
]


def run_campaign(medium: str, mix: str, proof: str, retries: int, questions: int) -> Verdict:
    """One run. A device whose identity's answer is dropped at the start is opened again."""
    options = {"timeout_s": TIMEOUT_S, "settle_s": 0.003, "retries": retries, **PROOFS[proof]}
    options["unsolicited"] = lambda frame: frame.startswith(b"!")
    for seed in range(5):
        device = Device(MIXES[mix], seed=1000 * len(proof) + 10 * retries + seed)
        try:
            with opened(medium, device, **options) as port:
                return campaign(port, device, questions)
        except AdapterError:
            continue
    raise AssertionError("the device could not be opened five times")


@pytest.mark.slow("asks thousands of questions")
@pytest.mark.timeout(3600 if LONG else 120)
@pytest.mark.parametrize("medium", MEDIA)
def test_the_campaign_no_wrong_value_and_what_came_in_time_is_given_out(medium: str) -> None:
    runs = [run for run in RUNS if run[0] == medium]
    verdicts = [run_campaign(*run, questions=QUESTIONS // len(RUNS)) for run in runs]
    assert [wrong for verdict in verdicts for wrong in verdict.wrong] == []
    in_time, given_out = sum(v.in_time for v in verdicts), sum(v.given_out for v in verdicts)
    assert given_out >= 0.99 * in_time
    assert sum(v.asked for v in verdicts) >= QUESTIONS // len(RUNS) * len(runs)


@pytest.mark.slow("asks thousands of questions")
def test_the_campaign_with_random_moments_of_asking() -> None:
    """With pauses between the questions, in which late answers, chats and doubles arrive."""
    pause, chance = threading.Event(), random.Random(7)
    timeout_s = 4 * TIMEOUT_S  # each answer that a busy machine delays beyond it counts against the 135
    habits = replace(MIXES["all"], in_time_s=timeout_s / 3, latest_s=3 * timeout_s)
    device = Device(habits, seed=11)
    options: dict[str, Any] = {"unsolicited": lambda frame: frame.startswith(b"!")}
    with opened("pty", device, timeout_s=timeout_s, settle_s=0.003, **options) as port:
        right = wrong = 0
        for number in range(150):
            if chance.random() < 0.2:
                pause.wait(chance.uniform(0.0, 2 * timeout_s))
            one_right, one_wrong = asked(port, range(number, number + 1))
            right, wrong = right + one_right, wrong + one_wrong
    assert wrong == 0
    assert right >= 135
