"""What the embedded engine's memory does over ten million messages: PSS idle, and after each tenth of them.

    python -m benchmarks.endurance [--messages 10000000] [--qos 0 1] [--engine amqtt]

A publisher and a subscriber on bare sockets, at full rate; the subscriber acknowledges at QoS 1. Flat is what does not
grow between the second tenth and the last: the first fills what every process keeps for reuse. Run it from the root of
the checkout.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from pathlib import Path
from socket import socket

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "parts"), str(HERE.parent / "tests" / "brokers")]

from brokers import plugs, pss_mb  # noqa: E402
from figures import table  # noqa: E402
from raw_client import Target as Address  # noqa: E402
from raw_client import publish_packet, text  # noqa: E402
from running_brokers import RunningBroker, running_broker  # noqa: E402

AT_ONCE = 50


def send(plug: socket, qos: int, count: int) -> None:
    """The messages, and of what is answered nothing is kept."""
    frame = (
        publish_packet("long", b"x" * 64)
        if not qos
        else b"\x32" + bytes((72,)) + text("long") + b"\x00\x01" + b"x" * 64
    )
    answers = 4 * AT_ONCE if qos else 0
    for _ in range(count // AT_ONCE):
        plug.sendall(frame * AT_ONCE)
        left = answers
        while left:
            left -= len(plug.recv(left))


def receive(plug: socket, qos: int, count: int) -> None:
    """Take all messages, and acknowledge each at QoS 1."""
    size = 74 if qos else len(publish_packet("long", b"x" * 64))
    left, kept = count * size, b""
    while left:
        data = plug.recv(262_144)
        assert data, f"{left} bytes are missing"
        left -= len(data)
        if qos:
            kept += data
            whole = len(kept) // size
            plug.sendall(b"".join(b"\x40\x02" + kept[at * size + 8 : at * size + 10] for at in range(whole)))
            kept = kept[whole * size :]


def measure(broker: RunningBroker, qos: int, messages: int) -> list[list[str]]:
    """A row for each tenth: messages so far, messages per second, PSS."""
    address = Address(broker.host, broker.port, broker.username, broker.password, broker.max_packet_bytes)
    subscriber, publisher = plugs(address, 1, "long", qos)[0], plugs(address, 1, "none")[0]
    tenth = messages // 10 // AT_ONCE * AT_ONCE
    rows = [[f"{qos}", "0", "", f"{pss_mb(broker):.1f}"]]
    for part in range(1, 11):
        began = time.perf_counter()
        sending = threading.Thread(target=send, args=(publisher, qos, tenth))
        sending.start()
        receive(subscriber, qos, tenth)
        sending.join()
        rate = tenth / (time.perf_counter() - began)
        rows.append([f"{qos}", f"{part * tenth:,}", f"{rate:,.0f}", f"{pss_mb(broker):.1f}"])
    for plug in (subscriber, publisher):
        plug.close()
    return rows


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--messages", type=int, default=10_000_000, help="for each QoS")
    options.add_argument("--qos", type=int, nargs="+", default=[0, 1], choices=[0, 1])
    options.add_argument("--engine", default="amqtt", choices=["amqtt", "mosquitto"])
    given = options.parse_args()
    with running_broker(given.engine) as broker:
        rows = [row for qos in given.qos for row in measure(broker, qos, given.messages)]
    table(f"{given.engine}, 64-byte messages", ["QoS", "messages", "msg/s", "PSS, MB"], rows)


if __name__ == "__main__":
    main()
