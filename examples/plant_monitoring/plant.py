"""A plant that was there before: a boiler, its heater and its MQTT devices. Nothing in here knows of Ether.

The heater is set over TCP, in lines (`POWER 1200`, `POWER?`); it warms the boiler. The boiler's transmitters publish
plain numbers on `plant/boiler1/temperature` (°C), `plant/boiler1/pressure` (bar) and `plant/boiler1/power` (W, as a
meter on the heater's cable measures it), twenty times a second. The boiler is small: it is warm within seconds.

It says on which port its heater listens, and is then told what happens, a line each: `broker URL`, `valve stuck`,
`valve mended`, `pressure dead`, `pressure alive`. It ends with its input, and says what the heater was left at.
"""

from __future__ import annotations

import random
import socketserver
import sys
import threading
import time
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as mqtt

PERIOD_S = 0.05
ROOM_C = 20.0
HEAT_CAPACITY = 100.0
"""J/K."""
LOSS_W_PER_K = 25.0
STEAM_W = 2000.0
"""What comes in through a valve that is stuck."""


class Boiler:
    """Warmed by its heater, cooled by the room."""

    def __init__(self) -> None:
        self.temperature = ROOM_C
        self.power = 0.0
        self.steam = False
        self.pressure_alive = True

    def advance(self, seconds: float) -> None:
        heat = self.power + (STEAM_W if self.steam else 0.0) - LOSS_W_PER_K * (self.temperature - ROOM_C)
        self.temperature += heat / HEAT_CAPACITY * seconds

    @property
    def pressure(self) -> float:
        return 1.0 + 0.02 * (self.temperature - ROOM_C)


class HeaterLine(socketserver.StreamRequestHandler):
    """One connection to the heater."""

    server: HeaterServer

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(self._answer(line.decode().split()) + b"\n")

    def _answer(self, words: list[str]) -> bytes:
        boiler = self.server.boiler
        if words == ["POWER?"]:
            return f"{boiler.power:g}".encode()
        if len(words) == 2 and words[0] == "POWER":
            boiler.power = float(words[1])  # it obeys, whatever it is told: limits are not its business
            return b"OK"
        return b"ERROR"


class HeaterServer(socketserver.ThreadingTCPServer):
    """The heater's own controller."""

    daemon_threads = True

    def __init__(self, boiler: Boiler) -> None:
        super().__init__(("127.0.0.1", 0), HeaterLine)
        self.boiler = boiler


class Transmitters:
    """Publish what they measure, as bare numbers."""

    def __init__(self, boiler: Boiler) -> None:
        self._boiler = boiler
        self._noise = random.Random(1)
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()
        self._client.disconnect()
        self._client.loop_stop()

    def connect(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.username is not None:
            self._client.username_pw_set(unquote(parts.username), unquote(parts.password or ""))
        self._client.connect(parts.hostname or "127.0.0.1", parts.port or 1883)
        self._client.loop_start()

    def _run(self) -> None:
        now = time.monotonic()
        while not self._ended.wait(PERIOD_S):
            before, now = now, time.monotonic()
            self._boiler.advance(min(now - before, 0.2))
            if self._client.is_connected():
                self._publish()

    def _publish(self) -> None:
        boiler = self._boiler
        self._client.publish("plant/boiler1/temperature", f"{boiler.temperature + self._noise.gauss(0, 0.1):.2f}")
        self._client.publish("plant/boiler1/power", f"{boiler.power:g}")
        if boiler.pressure_alive:
            self._client.publish("plant/boiler1/pressure", f"{boiler.pressure:.3f}")


def main() -> None:
    """Run until the input ends."""
    boiler = Boiler()
    transmitters = Transmitters(boiler)
    with HeaterServer(boiler) as heater:
        serving = threading.Thread(target=heater.serve_forever, args=(PERIOD_S,))
        serving.start()
        transmitters.start()
        print(heater.server_address[1], flush=True)
        for line in sys.stdin:
            match line.split():
                case ["broker", url]:
                    transmitters.connect(url)
                case ["valve", state]:
                    boiler.steam = state == "stuck"
                case ["pressure", state]:
                    boiler.pressure_alive = state == "alive"
        heater.shutdown()
        serving.join()
    transmitters.stop()
    print(f"{boiler.power:g}")


if __name__ == "__main__":
    main()
