"""The embedded engine amqtt beside mosquitto, through Ether's public API and by bare sockets, in turns.

    python -m benchmarks.brokers [--unix] [--rounds 3] [--scale 1.0] [--pin]

Each round starts both brokers anew, one after the other. The caller, who also publishes, is this process; the instance
that answers and receives is a child. With `--pin` the caller runs on core 0, instance and broker on core 1. `connects`
are bare sockets: CONNECT to SUBACK of 500 clients that arrive together. `fan-out` is one publisher and 1 to 64 bare
subscribers at QoS 0. Memory is what the broker's own processes take for themselves (PSS), idle and after everything.
Ratios count; absolute figures vary with the machine. Run it from the root of the checkout.
"""

from __future__ import annotations

import argparse
import os
import selectors
import socket
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "parts"), str(HERE.parent / "tests" / "brokers")]

from figures import table  # noqa: E402
from raw_client import Target as Address  # noqa: E402
from raw_client import connect_packet, packet, publish_packet, text  # noqa: E402
from running_brokers import RunningBroker, running_broker  # noqa: E402

from ether import Ether, ether_get, ether_sub  # noqa: E402

ENGINES = ("mosquitto", "amqtt")
PAD = "x" * 60
CONNECTS, SUBSCRIBERS = 500, (1, 4, 16, 64)


class Far:
    """What calls and messages go to."""

    def __init__(self) -> None:
        self.arrived = 0

    @ether_get
    def echo(self, text: str) -> str:
        return text

    @ether_get
    def count(self) -> int:
        return self.arrived

    @ether_sub(topic="bench/qos0", qos=0)
    @ether_sub(topic="bench/qos1")
    def take(self, root: object) -> None:
        self.arrived += 1


def calls(ether: Ether, broker: RunningBroker, count: int) -> dict[str, float]:
    """Round trips one by one, and by 16 callers."""
    for _ in range(50):
        ether.get("far", "echo", {"text": PAD})
    took, spent = [], cpu_s(broker)
    for _ in range(count):
        began = time.perf_counter()
        ether.get("far", "echo", {"text": PAD})
        took.append(time.perf_counter() - began)
    spent = cpu_s(broker) - spent
    with ThreadPoolExecutor(16) as pool:
        began = time.perf_counter()
        list(pool.map(lambda _: ether.get("far", "echo", {"text": PAD}), range(count)))
        together = count / (time.perf_counter() - began)
    return {
        "call p50, µs": sorted(took)[count // 2] * 1e6,
        "… broker's CPU µs": spent / count * 1e6,
        "16 callers, calls/s": together,
    }


def messages(ether: Ether, broker: RunningBroker, name: str, body: Any, qos: int, count: int) -> dict[str, float]:
    """From the first `pub` until the instance has counted the last one."""
    before, spent = ether.get("far", "count"), cpu_s(broker)
    began = time.perf_counter()
    for _ in range(count):
        ether.pub(body, topic=f"bench/qos{qos}", qos=qos)
    deadline = time.perf_counter() + 60
    while ether.get("far", "count") - before < count and time.perf_counter() < deadline:
        time.sleep(0.005)
    seconds = time.perf_counter() - began
    arrived = ether.get("far", "count") - before
    assert arrived == count, f"{arrived} of {count} arrived"
    spent = cpu_s(broker) - spent
    return {f"{name}, QoS {qos}, msg/s": count / seconds, f"{name}, QoS {qos}, broker's CPU µs": spent / count * 1e6}


def plugs(address: Address, count: int, topic: str, qos: int = 0) -> list[socket.socket]:
    """Bare clients that arrive together, each subscribed to `topic`."""
    made = []
    hello = packet(0x82, b"\x00\x01" + text(topic) + bytes((qos,)))
    for number in range(count):
        plug = socket.create_connection((address.host, address.port))
        plug.sendall(connect_packet(address, f"{topic}-{number}") + hello)
        made.append(plug)
    for plug in made:
        received = b""
        while len(received) < 9:  # CONNACK and SUBACK
            received += plug.recv(16)
    return made


def bare(address: Address, count: int) -> dict[str, float]:
    """What needs no Ether: a storm of connections, and fan-out."""
    began = time.perf_counter()
    storm = plugs(address, CONNECTS, "storm")
    figures = {f"{CONNECTS} connects, s": time.perf_counter() - began}
    for plug in storm:
        plug.close()
    for receivers in SUBSCRIBERS:
        deliveries = fan_out(address, receivers, max(1_000, count * 8 // receivers))
        figures[f"fan-out to {receivers}, deliveries/s"] = deliveries
    return figures


def fan_out(address: Address, subscribers: int, count: int) -> float:
    """Deliveries per second of one publisher's messages to so many subscribers."""
    topic = f"fan-{subscribers}"
    receivers, sender = plugs(address, subscribers, topic), plugs(address, 1, "none")[0]
    frame = publish_packet(topic, b"x" * 64)
    sending = threading.Thread(target=sender.sendall, args=(frame * count,))
    with selectors.DefaultSelector() as selector:
        for plug in receivers:
            plug.setblocking(False)
            selector.register(plug, selectors.EVENT_READ)
        began, left = time.perf_counter(), count * subscribers * len(frame)
        sending.start()
        while left:
            ready = selector.select(10)
            assert ready, f"{left} bytes have not arrived"
            for key, _ in ready:
                left -= len(key.fileobj.recv(262_144))  # type: ignore[union-attr]
        seconds = time.perf_counter() - began
    sending.join()
    for plug in (*receivers, sender):
        plug.close()
    return count * subscribers / seconds


def pss_mb(broker: RunningBroker) -> float:
    """What the broker's processes take for themselves."""
    total = 0
    for pid in {broker.process.pid, broker.engine_pid}:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += int(rollup.split("Pss:")[1].split()[0])
    return total / 1024


def cpu_s(broker: RunningBroker) -> float:
    """The processor time that the engine's process has taken."""
    fields = Path(f"/proc/{broker.engine_pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pin(pid: int, core: int) -> None:
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})


def measure(engine: str, unix: bool, scale: float, pinned: bool) -> dict[str, float]:
    """One round over one broker."""
    with ExitStack() as stack:
        broker = stack.enter_context(running_broker(engine, max_packet_bytes=64 << 20))
        figures = {"PSS idle, MB": pss_mb(broker)}
        url = broker.url_unix if unix and broker.url_unix else broker.url_tcp
        ether = Ether()
        stack.enter_context(ether.tap({"instances": {"far": {"class_path": "brokers.Far"}}}, broker=url))
        if pinned:
            children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
            pin(os.getpid(), 0)
            for pid in {*map(int, children), broker.process.pid, broker.engine_pid}:
                pin(pid, 1)
        figures |= calls(ether, broker, int(1_500 * scale))
        for name, body, count in [
            ("64 B", PAD, 20_000), ("1 kB", "x" * 1_000, 15_000), ("100 kB", bytes(100_000), 1_500),
            ("1 MB", bytes(1_000_000), 300),
        ]:  # fmt: skip
            for qos in (0, 1):
                figures |= messages(ether, broker, name, body, qos, int(count * scale))
        address = Address(broker.host, broker.port, broker.username, broker.password, broker.max_packet_bytes)
        figures |= bare(address, int(5_000 * scale))
        figures["PSS afterwards, MB"] = pss_mb(broker)
        return figures


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--unix", action="store_true", help="through the Unix socket")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--scale", type=float, default=1.0, help="of all counts")
    options.add_argument("--pin", action="store_true", help="caller on core 0, everything else on core 1")
    given = options.parse_args()
    found: dict[str, list[dict[str, float]]] = {engine: [] for engine in ENGINES}
    for _ in range(given.rounds):
        for engine in ENGINES:
            found[engine].append(measure(engine, given.unix, given.scale, given.pin))
    rows = []
    for key in found[ENGINES[0]][0]:
        theirs, ours = (statistics.median(row[key] for row in found[engine]) for engine in ENGINES)
        digits = 1 if theirs < 100 else 0
        rows.append([key, f"{theirs:,.{digits}f}", f"{ours:,.{digits}f}", f"{ours / theirs:.2f}"])
    way = "Unix socket" if given.unix else "TCP"
    table(f"{way}, medians of {given.rounds} rounds", ["figure", *ENGINES, "ratio"], rows)


if __name__ == "__main__":
    main()
