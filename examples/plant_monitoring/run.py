"""Watch a plant that was built without Ether: values, alarms, and a heater that switches off when its regulator dies.

python run.py [amqtt | mosquitto]
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from ether import ether
from ether.errors import RemoteError, ValidationFailed

HERE = Path(__file__).parent
TEMPERATURE, POWER = "mqtt:plant/boiler1/temperature", "mqtt:plant/boiler1/power"
SAFE_S = 1.5
"""`after: 1s` in plant.yaml, and half a second for the call itself."""


class Plant:
    """The process of the plant."""

    def __init__(self) -> None:
        command = [sys.executable, str(HERE / "plant.py")]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.heater_port = int(self._process.stdout.readline())

    def tell(self, line: str) -> None:
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def end(self) -> str:
        """End the process; returns the heater's last power in watts."""
        return self._process.communicate(timeout=10)[0].strip()

    def __enter__(self) -> Plant:
        return self

    def __exit__(self, *error: object) -> None:
        with self._process:
            self._process.kill()


class Screen:
    """Prints the boiler twice a second, and the events in between."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._values = ether.subscribe("mqtt:plant/boiler1/#")
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def say(self, text: str) -> None:
        # The end of the line goes with it: two threads say something, and print() writes the end separately.
        print(f"{time.monotonic() - self._began:5.1f} s  {text}\n", end="", flush=True)

    def close(self) -> None:
        self._values.close()
        self._thread.join()

    def _run(self) -> None:
        latest, shown = {}, 0.0
        for message in self._values:
            latest[message.topic] = message.value
            if {TEMPERATURE, POWER} <= latest.keys() and time.monotonic() - shown >= 0.5:
                shown, celsius = time.monotonic(), latest[TEMPERATURE]
                bar = ("#" * int(celsius / 2.5)).ljust(40)
                self.say(f"{celsius:5.1f} °C {bar} {latest[POWER]:5.0f} W")


@contextmanager
def alarm(name: str, state: str, screen: Screen) -> Iterator[None]:
    """The block must bring this alarm into this state."""
    with ether.subscribe("alarms") as changes:
        yield
        while True:
            change = changes.get(timeout_s=15).value
            screen.say(f"ALARM {change['alarm']}: {change['state']} at {change['value']:g}")
            if (change["alarm"], change["state"]) == (name, state):
                return


def warm(celsius: float) -> None:
    ether.wait_for(TEMPERATURE, lambda value: abs(value - celsius) < 1, timeout_s=20)


def too_hot(plant: Plant, screen: Screen) -> None:
    """A valve sticks. The thermostat switches the heater off, which is not enough."""
    screen.say("a steam valve is stuck")
    with alarm("temperature high", "unacknowledged", screen):
        plant.tell("valve stuck")
    with alarm("temperature high", "acknowledged", screen):
        ether.get("alarms", "acknowledge", "temperature high")
    with alarm("temperature high", "normal", screen):
        plant.tell("valve mended")


def silent(plant: Plant, screen: Screen) -> None:
    """A transmitter is silent for a while. The alarm stays until it is acknowledged."""
    screen.say("the pressure transmitter has no power")
    with alarm("pressure silent", "unacknowledged", screen):
        plant.tell("pressure dead")
    with alarm("pressure silent", "returned", screen):
        plant.tell("pressure alive")
    with alarm("pressure silent", "normal", screen):
        ether.get("alarms", "acknowledge", "pressure silent")


def controller_lost(screen: Screen) -> None:
    """The thermostat's process is killed; the plant's own meter says when the heater is off."""
    pid = next(each["pid"] for each in ether.instances() if each["name"] == "thermostat")
    with ether.subscribe(POWER) as meter:
        assert meter.get().value > 0
        killed = time.monotonic()
        os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        screen.say("the thermostat's process is killed")
        while meter.get().value > 0:
            pass
        took = time.monotonic() - killed
    verdict = "within" if took <= SAFE_S else "LATER THAN"
    screen.say(f"the heater is off after {took:.2f} s, {verdict} the stated {SAFE_S:g} s")
    try:
        ether.get("heater", "set_power", 500)
    except RemoteError as refused:
        screen.say(str(refused).splitlines()[0])
    ether.restart("thermostat")
    screen.say("the thermostat is started again")
    warm(60)


def tour(plant: Plant) -> None:
    """The whole demonstration."""
    screen = Screen()
    try:
        warm(60)
        try:
            ether.get("heater", "set_power", 9000)
        except ValidationFailed as refused:
            screen.say(str(refused).splitlines()[0])
        too_hot(plant, screen)
        warm(60)
        silent(plant, screen)
        controller_lost(screen)
    finally:
        screen.close()


def main() -> None:
    """Run it."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("engine", nargs="?", choices=["amqtt", "mosquitto"], help="left out: the best that is there")
    engine = options.parse_args().engine

    config = yaml.safe_load((HERE / "plant.yaml").read_text(encoding="utf-8"))
    with Plant() as plant:
        config["instances"]["heater"]["args"] = [plant.heater_port]
        with ether.tap(config, broker={"engine": engine} if engine else None):
            plant.tell(f"broker {ether.broker_url}")
            tour(plant)
            missing = ether.flush()
            values, changes = len(ether.data(topic="mqtt:plant/#")), len(ether.data(topic="alarms"))
            print(f"on disk: {values} values of the plant and {changes} changes of alarms, {missing} still to come")
        print(f"at the end the heater is at {plant.end()} W")


if __name__ == "__main__":
    main()
