"""The baseline: a publisher and a subscriber written by hand with paho-mqtt, each in a process of its own.

`python benchmarks/plain_paho.py subscribe|publish HOST PORT USER PASSWORD PROTOCOL QOS COUNT INTERVAL_S`. paho's
defaults, with TCP_NODELAY on (without it a QoS 1 exchange takes 40 ms, and the comparison would be unfair to paho).
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time

from figures import PAD, TOPIC, summarise
from paho.mqtt.client import Client, MQTTMessage, MQTTv5, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion


def client(host: str, port: int, user: str, password: str, protocol: str) -> Client:
    """A connected client with its network thread."""
    made = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5 if protocol == "5" else MQTTv311)
    made.username_pw_set(user, password)
    made.on_socket_open = lambda _c, _u, sock: sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected = threading.Event()
    made.on_connect = lambda *_: connected.set()
    made.connect(host, port)
    made.loop_start()
    assert connected.wait(10)
    return made


def subscribe(made: Client, qos: int, count: int) -> None:
    """Count messages; print the times of the last one and the delays, when all have come."""
    arrived: list[tuple[int, int]] = []
    done = threading.Event()

    def on_message(_client: Client, _data: object, message: MQTTMessage) -> None:
        body = json.loads(message.payload)
        arrived.append((time.monotonic_ns(), body["t"]))
        if len(arrived) == count:
            done.set()

    made.on_message = on_message
    subscribed = threading.Event()
    made.on_subscribe = lambda *_: subscribed.set()
    made.subscribe(TOPIC, qos)
    assert subscribed.wait(10)
    print("ready", flush=True)
    done.wait(120)
    print(json.dumps(summarise(arrived)), flush=True)


def publish(made: Client, qos: int, count: int, interval_s: float) -> None:
    """Publish `count` messages, as fast as paho takes them or one each `interval_s` seconds."""
    pause = threading.Event()
    info = None
    for number in range(count):
        body = json.dumps({"n": number, "t": time.monotonic_ns(), "pad": PAD}).encode()
        info = made.publish(TOPIC, body, qos)
        if interval_s:
            pause.wait(interval_s)
    assert info is not None
    info.wait_for_publish(120)


def main() -> None:
    role, host, port, user, password, protocol, qos, count, interval_s = sys.argv[1:]
    made = client(host, int(port), user, password, protocol)
    if role == "subscribe":
        subscribe(made, int(qos), int(count))
    else:
        publish(made, int(qos), int(count), float(interval_s))
    made.disconnect()
    made.loop_stop()


if __name__ == "__main__":
    main()
