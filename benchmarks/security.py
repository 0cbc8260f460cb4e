"""What TLS, rights and signatures cost: the same calls, messages and connects at the same broker, plain and encrypted.

python benchmarks/security.py [--engine amqtt|mosquitto] [--rounds N] [--calls N]

A broker listens on loopback in the plain, and at 127.0.0.2 for members of a lab made for this run. In each round every
figure is measured both ways, in turns; the ratio and the difference count. `rights`: the member is a device with the
rights of an agent beside nine others, and may do what is measured. Signatures: batches of 1 and of 500 entries, packed
as a source packs them, with and without a signature, and taken apart as a recorder does. Linux only: it has 127.0.0.2.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from figures import table

from ether.config.broker import EmbeddedBroker
from ether.launch.broker import BrokerProcess, private_folder
from ether.launch.process_group import make_group
from ether.recording.receipt_rules import RecorderAbout
from ether.recording.signatures import RecorderSignatures, SourceSignatures
from ether.security.rights import DeviceInstance, rights_of_host, rules_of
from ether.session.trust.lab import LabAuthority
from ether.transport import open_transport
from ether.transport.base import Delivery, Transport
from ether.transport.endpoint import Endpoint
from ether.wire.entries import Entry, pack_batch, pack_entries, unpack_batch

BESIDE = "127.0.0.2"
SESSION = "bench"
ROOT = f"ether/1/{SESSION}"
CONNECT_S, ANSWER_S = 10.0, 10.0
SMALL, LARGE = b"x" * 64, b"x" * 1_000_000
LARGE_COUNT = 60

Open = Callable[[str], Transport]


class Echo:
    """Answers each request on a topic, from a connection and a thread of its own: a call without anything of Ether's
    above the transport."""

    def __init__(self, open_one: Open) -> None:
        self._server, self._client = open_one("server"), open_one("client")
        self._server.subscribe([f"{ROOT}/call/cam/read"])
        self._client.subscribe([f"{ROOT}/reply/main/cam"])
        self._ended = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._ended:
            with suppress(TimeoutError):
                item = self._server.receive(0.2)
                if isinstance(item, Delivery):
                    body = item.payload if len(item.payload) < 100 else b"1"
                    self._server.publish(f"{ROOT}/reply/main/cam", body)
                    self._server.consumed(item)

    def call_us(self, count: int) -> float:
        """The median round trip of 64 bytes."""
        taken = []
        for _ in range(count):
            began = time.perf_counter()
            self._send(SMALL, 1)
            taken.append(time.perf_counter() - began)
        return statistics.median(taken) * 1e6

    def megabytes_per_s(self) -> float:
        """How much passes in messages of 1 MB."""
        began = time.perf_counter()
        self._send(LARGE, LARGE_COUNT)
        return LARGE_COUNT * len(LARGE) / 1e6 / (time.perf_counter() - began)

    def _send(self, payload: bytes, count: int) -> None:
        for _ in range(count):
            self._client.publish(f"{ROOT}/call/cam/read", payload)
        while count:
            item = self._client.receive(ANSWER_S)
            if isinstance(item, Delivery):
                self._client.consumed(item)
                count -= 1

    def close(self) -> None:
        """End both connections."""
        self._ended = True
        self._thread.join()
        self._server.close()
        self._client.close()


@contextmanager
def broker(engine: str, *, rights: bool) -> Iterator[BrokerProcess]:
    """A broker in the plain on loopback, and for members at 127.0.0.2."""
    own = next(iter(LabAuthority.load_or_make(dict(os.environ), time.time()).members()))
    cam = DeviceInstance("cam", "here", ("picture",), ("wanted",), ("cam.read",))
    table_of = {name: rights_of_host(SESSION, name, [cam]) for name in (own, *(f"pi{n}" for n in range(9)))}
    rules = rules_of(table_of)
    for each in rules.values():  # what is measured: both sides of a call by one device
        each["publish"] = [*each["publish"], f"{ROOT}/call/cam/+", f"{ROOT}/reply/main/cam"]
    folder = private_folder()
    group = make_group(folder)
    started = BrokerProcess(EmbeddedBroker(engine=engine, listen=BESIDE), group, folder)
    try:
        started.wait_ready(20)
        if rights:
            started.set_rights({}, rules)
        yield started
    finally:
        started.stop(5)
        shutil.rmtree(folder, ignore_errors=True)
        group.close()


def opener(endpoint: Endpoint) -> Open:
    """Connects to that endpoint."""

    def open_one(client_id: str) -> Transport:
        transport = open_transport(endpoint, client_id=f"{client_id}-{os.urandom(4).hex()}")
        transport.connect(CONNECT_S)
        return transport

    return open_one


def connect_ms(open_one: Open, count: int = 10) -> float:
    """The median time from nothing to a connection."""
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        transport = open_one("connects")
        taken.append(time.perf_counter() - began)
        transport.close()
    return statistics.median(taken) * 1e3


def signature_rows() -> Iterator[tuple[str, ...]]:
    """Packing and taking apart a batch, unsigned and signed."""
    recorder, unsigned, source = RecorderSignatures({}), RecorderSignatures({}), SourceSignatures()
    about = RecorderAbout("recorder", "1", None, devices=recorder.devices)
    for count in (1, 500):
        entries = [
            Entry(n, "data", "t", f"id{n:032}", n, 1.0, (), "", "application/json", SMALL) for n in range(1, count + 1)
        ]
        blocks = [pack_entries(entries)]
        figures = []
        for sign in (None, source.sign(about)):
            packed = pack_batch("0" * 16, "cam", count, blocks, sign=sign)
            packing = _median_us(lambda: pack_batch("0" * 16, "cam", count, blocks, sign=sign))  # noqa: B023
            taking = _median_us(lambda: _taken(unsigned if sign is None else recorder, packed))  # noqa: B023
            figures.append((packing, taking, len(packed)))
        for what, at in (("pack", 0), ("take apart", 1)):
            plain, signed = figures[0][at], figures[1][at]
            yield f"{what} {count}", f"{plain:.0f} µs", f"{signed:.0f} µs", f"{signed - plain:+.0f} µs"
        yield f"bytes of {count}", str(figures[0][2]), str(figures[1][2]), f"+{figures[1][2] - figures[0][2]}"


def _taken(recorder: RecorderSignatures, packed: bytes) -> None:
    recorder.checked(unpack_batch(packed))


def _median_us(do: Callable[[], object], count: int = 300) -> float:
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        do()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1e6


def measure(engine: str, rounds: int, calls: int, *, rights: bool) -> list[tuple[str, ...]]:
    """Rows of what, plain, encrypted, difference or ratio."""
    found: dict[str, dict[str, list[float]]] = {"plain": {}, "TLS": {}}
    with broker(engine, rights=rights) as started:
        ways = {
            "plain": opener(started.endpoint),
            "TLS": opener(Endpoint.from_url(f"mqtts://{BESIDE}:{started.lan_port}")),
        }
        if started.endpoint.kind == "unix":
            ways["plain"] = opener(Endpoint.from_url(started.url))
        for _ in range(rounds):
            for way, open_one in ways.items():
                echo = Echo(open_one)
                try:
                    echo.call_us(50)
                    figures = {"call": echo.call_us(calls), "throughput": echo.megabytes_per_s()}
                finally:
                    echo.close()
                figures["connect"] = connect_ms(open_one)
                for name, value in figures.items():
                    found[way].setdefault(name, []).append(value)
    plain, tls = ({name: statistics.median(values) for name, values in found[way].items()} for way in ("plain", "TLS"))
    more_ms, ratio = (tls["call"] - plain["call"]) / 1e3, tls["throughput"] / plain["throughput"]
    return [
        ("call of 64 B, p50", f"{plain['call']:.0f} µs", f"{tls['call']:.0f} µs", f"{more_ms:+.3f} ms"),
        ("1 MB messages", f"{plain['throughput']:.0f} MB/s", f"{tls['throughput']:.0f} MB/s", f"{ratio:.2f} ×"),
        (
            "connect",
            f"{plain['connect']:.1f} ms",
            f"{tls['connect']:.1f} ms",
            f"{tls['connect'] - plain['connect']:+.1f} ms",
        ),
    ]


def main() -> None:
    """Measure, and print tables."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--engine", choices=("amqtt", "mosquitto"), action="append")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--calls", type=int, default=1000)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as home:
        for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
            os.environ.pop(name, None)
        os.environ |= {"HOME": home, "ETHER_MDNS": "0"}
        LabAuthority.load_or_make(dict(os.environ), time.time())
        header = ("what", "plain", "TLS", "costs")
        for engine in given.engine or ("amqtt", "mosquitto"):
            for rights in (False, True):
                with suppress(FileNotFoundError):
                    rows = measure(engine, given.rounds, given.calls, rights=rights)
                    table(f"{engine}, {'rights of ten devices' if rights else 'no rights'}", header, rows)
        table("batches", ("what", "unsigned", "signed", "costs"), list(signature_rows()))
    assert not Path(home).exists()


if __name__ == "__main__":
    main()
