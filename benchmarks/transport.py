"""Ether's transport against plain paho, on the same broker in the same run.

    python -m benchmarks.transport --engine mosquitto --count 20000 --rounds 5

Publisher and subscriber are processes of their own. Rounds are interleaved (each round measures every client
once), and the medians are printed, so that what the machine does besides hits all alike. Throughput: from the
first `publish()` to the last message received. Latency: one way, at a steady rate. `paho` is paho with
TCP_NODELAY and otherwise its defaults, `paho plain` its defaults alone, `ether ws` ours through mosquitto's WebSocket.
Run it from the root of the checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

TOPIC = "benchmark/data"
CLIENTS = ("paho", "paho plain", "ether", "ether ws")
GIVE_UP_S = 60.0


def now_us() -> float:
    """A clock that the processes of one machine share, in µs."""
    return time.monotonic_ns() / 1000


# the children: one client each, told by a line of JSON what to do


@contextmanager
def paho_client(setup: dict[str, Any], on_message: Callable[[bytes], None] | None) -> Iterator[Any]:
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

    protocol = MQTTProtocolVersion.MQTTv5 if setup["v5"] else MQTTProtocolVersion.MQTTv311
    name = f"benchmark-{os.getpid()}"
    client = Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=protocol)
    client.username_pw_set(setup["username"], setup["password"])
    ready = threading.Event()
    if setup["client"] == "paho":
        client.on_socket_open = lambda _c, _u, sock: sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if on_message is None:
        client.on_connect = lambda *_: ready.set()
    else:
        client.on_connect = lambda *_: client.subscribe(TOPIC, qos=setup["qos"])
        client.on_subscribe = lambda *_: ready.set()
        client.on_message = lambda _c, _u, message: on_message(message.payload)
    client.connect(setup["host"], setup["port"])
    client.loop_start()
    assert ready.wait(GIVE_UP_S)
    yield client
    client.disconnect()
    client.loop_stop()


@contextmanager
def ether_transport(setup: dict[str, Any]) -> Iterator[Any]:
    from ether.transport import Endpoint, ProtocolVersion, open_transport

    who = setup["username"], setup["password"]
    tcp = Endpoint("tcp", setup["host"], setup["port"], "", *who)
    endpoint = Endpoint("ws", setup["host"], setup["ws_port"], "/mqtt", *who) if setup["client"] == "ether ws" else tcp
    protocol = ProtocolVersion.V5 if setup["v5"] else ProtocolVersion.V311
    transport = open_transport(endpoint, client_id="benchmark", protocol=protocol)
    transport.connect(GIVE_UP_S)
    yield transport
    transport.close(GIVE_UP_S)


def subscribe(setup: dict[str, Any]) -> None:
    """Receive `count` messages; say how long each took, and when the last came."""
    latencies: list[float] = []
    complete = threading.Event()

    def on_message(payload: bytes) -> None:
        latencies.append(now_us() - float(payload[:24]))
        if len(latencies) == setup["count"]:
            complete.set()

    def receive_all(transport: Any) -> None:
        while len(latencies) < setup["count"]:
            delivery = transport.receive(GIVE_UP_S)
            on_message(delivery.payload)
            transport.consumed(delivery)

    if setup["client"] in ("ether", "ether ws"):
        with ether_transport(setup) as transport:
            transport.subscribe([TOPIC], qos=setup["qos"])
            print("ready", flush=True)
            receive_all(transport)
            finished_us = now_us()
    else:
        with paho_client(setup, on_message):
            print("ready", flush=True)
            assert complete.wait(GIVE_UP_S)
            finished_us = now_us()
    print(json.dumps({"finished_us": finished_us, "latencies_us": latencies}), flush=True)


def publish(setup: dict[str, Any]) -> None:
    """Send `count` messages, as fast as possible or at a steady rate, and say when the first went."""
    wait = threading.Event().wait
    filling = b"x" * max(setup["size"] - 24, 0)

    def run(send: Callable[[bytes], object]) -> None:
        print("ready", flush=True)
        sys.stdin.readline()
        print(json.dumps({"began_us": now_us()}), flush=True)
        next_us = now_us()
        for _ in range(setup["count"]):
            if setup["rate"]:
                next_us += 1e6 / setup["rate"]
                wait(max(next_us - now_us(), 0) / 1e6)
            send(b"%-24.1f" % now_us() + filling)

    if setup["client"] in ("ether", "ether ws"):
        with ether_transport(setup) as transport:
            run(lambda payload: transport.publish(TOPIC, payload, qos=setup["qos"], timeout_s=GIVE_UP_S))
            sys.stdin.readline()
    else:
        with paho_client(setup, None) as client:
            run(lambda payload: client.publish(TOPIC, payload, qos=setup["qos"]))
            sys.stdin.readline()


# the parent


@contextmanager
def child(role: str, setup: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.transport", "--role", role]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            say(process.stdin, json.dumps(setup))
            assert hear(process.stdout) == "ready"
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def say(stream: IO[str] | None, line: str) -> None:
    assert stream is not None
    stream.write(line + "\n")
    stream.flush()


def hear(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline().strip()


def measure(setup: dict[str, Any]) -> tuple[float, list[float]]:
    """Messages per second, and each message's latency in µs."""
    with child("subscriber", setup) as subscriber, child("publisher", setup) as publisher:
        say(publisher.stdin, "go")
        began = json.loads(hear(publisher.stdout))
        result = json.loads(hear(subscriber.stdout))
    return setup["count"] / (result["finished_us"] - began["began_us"]) * 1e6, result["latencies_us"]


def percentile(values: list[float], percent: int) -> float:
    return sorted(values)[min(len(values) * percent // 100, len(values) - 1)]


def compare(engine: str, options: argparse.Namespace) -> None:
    """Print one engine's table."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "parts"))
    from running_brokers import running_broker

    # the largest limit that can be announced is one that paho's own MQTT 5 client cannot read
    web = {"lan_host": "127.0.0.1", "websocket_port": 0} if engine == "mosquitto" else {}
    with running_broker(engine, max_packet_bytes=64 << 20, **web) as broker:
        versions = ("5", "3.1.1") if engine == "mosquitto" else ("3.1.1",)
        print(f"\n{engine} {broker.version}, {options.size} B, medians of {options.rounds} rounds")
        print(f"{'MQTT':5} {'QoS':3} {'client':11} {'msg/s':>9} {'ratio':>6}   {'p50 µs':>7} {'p99 µs':>7}  ratios")
        for version in versions:
            for qos in (0, 1):
                setup = {"host": broker.host, "port": broker.port, "username": broker.username}
                setup |= {"password": broker.password, "v5": version == "5", "qos": qos, "size": options.size}
                setup["ws_port"] = broker.websocket_port
                print_rows(version, qos, rounds(setup, options))


def rounds(setup: dict[str, Any], options: argparse.Namespace) -> dict[str, tuple[float, float, float]]:
    """For each client the medians of msg/s, p50 and p99."""
    taken: dict[str, list[tuple[float, float, float]]] = {
        client: [] for client in CLIENTS if setup["ws_port"] or client != "ether ws"
    }
    for _ in range(options.rounds):
        for client, results in taken.items():
            full = measure({**setup, "client": client, "count": options.count, "rate": 0})
            paced = measure({**setup, "client": client, "count": options.paced, "rate": options.rate})
            results.append((full[0], percentile(paced[1], 50), percentile(paced[1], 99)))
    columns = {client: list(zip(*results, strict=True)) for client, results in taken.items()}
    return {client: tuple(statistics.median(c) for c in column) for client, column in columns.items()}  # type: ignore[misc]


def print_rows(version: str, qos: int, medians: dict[str, tuple[float, float, float]]) -> None:
    base = medians[CLIENTS[0]]
    for client, (rate, p50, p99) in medians.items():
        ratios = f"{p50 / base[1]:.2f} {p99 / base[2]:.2f}"
        print(f"{version:5} {qos:3} {client:11} {rate:9,.0f} {rate / base[0]:6.2f}   {p50:7.0f} {p99:7.0f}  {ratios}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--engine", choices=["mosquitto", "amqtt", "both"], default="both")
    parser.add_argument("--count", type=int, default=20_000, help="messages in a throughput run")
    parser.add_argument("--paced", type=int, default=600, help="messages in a latency run")
    parser.add_argument("--rate", type=float, default=200.0, help="messages per second in a latency run")
    parser.add_argument("--size", type=int, default=64, help="payload in bytes, at least 24")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--role", choices=["publisher", "subscriber"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        (publish if options.role == "publisher" else subscribe)(json.loads(sys.stdin.readline()))
        return
    for engine in ["mosquitto", "amqtt"] if options.engine == "both" else [options.engine]:
        compare(engine, options)


if __name__ == "__main__":
    main()
