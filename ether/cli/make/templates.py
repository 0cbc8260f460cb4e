"""The projects that `ether new` makes: each the shortest correct way to a kind of lab.

Every template has a class file, `ether.yaml` and a test that runs without broker and processes. Promise: each runs as
it is, without hardware; what stands for hardware says where the real thing goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class ProjectTemplate(NamedTuple):
    """What it is for, in a few words; its files; and what to try in a second terminal, one command a line."""

    about: str
    files: Mapping[str, str]
    tries: str
    run: str = "ether run"


_MINIMAL = {
    "parts.py": '''\
"""Two parts of a small lab: a thermometer that measures, and an alarm that watches it.

Ordinary classes: the decorators only mark what Ether shall do with them.
"""

import random

from ether import ether_every, ether_get, ether_pub, ether_sub


class Thermometer:
    """Replace the body of `measure` by what your instrument says."""

    def __init__(self) -> None:
        self.celsius = 20.0

    @ether_every("1s")
    @ether_pub(topic="temperature")  # what it returns is published
    def measure(self) -> dict[str, float]:
        self.celsius = round(self.celsius + random.uniform(-0.5, 0.7), 2)
        return {"celsius": self.celsius}

    @ether_get  # can be called: ether call thermometer.read
    def read(self) -> float:
        return self.celsius


class Alarm:
    """Says so when it is too warm."""

    def __init__(self, limit: float = 21.0) -> None:
        self.limit = limit
        self.alarms = 0

    @ether_sub(topic="temperature")  # is called with every message
    def check(self, celsius: float) -> None:
        too_warm = celsius > self.limit
        self.alarms += too_warm
        print(f"{celsius:.2f} degrees{' - too warm!' if too_warm else ''}")

    @ether_get  # ether call alarm.set_limit limit=22.5
    def set_limit(self, limit: float) -> float:
        self.limit = limit
        return limit
''',
    "ether.yaml": """\
session: {session}
record: all                      # keep every message: ether data, ether why
instances:
  thermometer: {class_path: parts.Thermometer}
  alarm:
    class_path: parts.Alarm
    kwargs: {limit: 21.0}
    restart: on-failure          # started again when it dies
""",
    "test_parts.py": '''\
"""The parts together, in one process, in milliseconds: pytest"""

from ether.testing import Lab
from parts import Alarm, Thermometer


def test_the_alarm_watches_the_temperature():
    with Lab(objects={"alarm": Alarm(limit=21.0)}) as lab:
        lab.pub({"celsius": 20.0}, topic="temperature")
        lab.pub({"celsius": 25.0}, topic="temperature")
        assert lab["alarm"].alarms == 1


def test_the_thermometer_measures_once_a_second():
    with Lab(objects={"thermometer": Thermometer()}) as lab:
        lab.advance(3)
        assert len(lab.values("temperature")) >= 3
''',
}

_CAMERA = {
    "camera.py": '''\
"""A camera that publishes pictures, and a monitor that looks at them."""

import numpy as np

from ether import ether_every, ether_get, ether_pub, ether_sub


class Camera:
    """Stands for a real one: open your camera's library in `__init__`, and grab a picture in `grab`."""

    def __init__(self, height: int = 240, width: int = 320) -> None:
        self.shape = (height, width)
        self.exposure_s = 0.1
        self.random = np.random.default_rng()

    @ether_every("5Hz")
    @ether_pub(topic="image")
    def grab(self) -> np.ndarray:
        return self.random.poisson(1000 * self.exposure_s, self.shape).astype(np.uint16)

    @ether_get  # ether call camera.expose exposure_s=0.2
    def expose(self, exposure_s: float) -> float:
        self.exposure_s = exposure_s
        return exposure_s


class Monitor:
    @ether_sub(topic="image", keep="latest")  # always the newest picture; older ones are skipped
    @ether_pub(topic="brightness")
    def look(self, image: np.ndarray) -> dict[str, float]:
        return {"mean": float(image.mean()), "max": float(image.max())}
''',
    "ether.yaml": """\
session: {session}
record: [brightness]             # every value; add image to keep the pictures, too
instances:
  camera: {class_path: camera.Camera}
  monitor: {class_path: camera.Monitor}
""",
    "test_camera.py": """\
from camera import Camera, Monitor

from ether.testing import Lab


def test_each_picture_has_a_brightness():
    with Lab(objects={"camera": Camera(8, 8), "monitor": Monitor()}) as lab:
        lab.advance(1)
        assert lab.values("brightness")
        assert all(60 < each["mean"] < 140 for each in lab.values("brightness"))
""",
}

_SERIAL = {
    "heater.py": '''\
"""A serial instrument that answers questions by text: a heater with a thermometer."""

from ether import ether_cleanup, ether_every, ether_get, ether_pub
from hardware_adapters import SerialPort


class Heater:
    """`port` is the one of your system; `identity` is what it answers to *IDN?, so that no other one is used."""

    def __init__(self, port: str = "/dev/ttyUSB0", identity: str = "ACME,Heater,0042,1.3") -> None:
        self.port = SerialPort(port, identity=identity)

    @ether_get  # ether call heater.set_power percent=10
    def set_power(self, percent: float) -> None:
        self.port.write(f"POW {percent}")

    @ether_get
    def power(self) -> float:
        return self.port.query_value("POW?", float)

    @ether_every("2s")
    @ether_pub(topic="heater/power")
    def report(self) -> dict[str, float]:
        return {"percent": self.power()}

    @ether_cleanup  # at the end, and when a program that runs it dies
    def off(self) -> None:
        self.set_power(0)
''',
    "ether.yaml": """\
session: {session}
instances:
  heater:
    class_path: heater.Heater
    kwargs: {port: /dev/ttyUSB0}
simulate:                        # the twin that `ether run --sim` uses; the real one with `ether run`
  instruments:
    heater:
      twin_of: /dev/ttyUSB0
      idn: "ACME,Heater,0042,1.3"
      properties:
        power: {get: "POW?", set: "POW {}", min: 0, max: 100}
""",
    "test_heater.py": """\
from heater import Heater

from hardware_adapters.simulate import SimulatedLab

TWIN = {
    "idn": "ACME,Heater,0042,1.3",
    "properties": {"power": {"get": "POW?", "set": "POW {}", "min": 0, "max": 100}},
}


def test_the_heater_is_set_and_read():
    lab = SimulatedLab({"instruments": {"heater": TWIN}}).start()
    heater = Heater(lab.port("heater"))
    try:
        heater.set_power(12.5)
        assert heater.power() == 12.5
    finally:
        heater.port.close()
        lab.close()
""",
}

_PIPELINE = {
    "stages.py": '''\
"""A pipeline: a source, a stage, a collector, each in a process of its own, each hearing what the one before says."""

import math

from ether import ether_every, ether_get, ether_pub, ether_save_all, ether_sub


class Source:
    def __init__(self) -> None:
        self.n = 0

    @ether_every("10Hz")
    @ether_pub(topic="raw")
    def sample(self) -> dict[str, float]:
        self.n += 1
        return {"n": self.n, "value": math.sin(self.n / 10)}


class Smooth:
    """A moving mean. `ether_sub` with `ether_pub` is a stage."""

    def __init__(self, over: int = 5) -> None:
        self.over, self.values = over, []

    @ether_sub(topic="raw")
    @ether_pub(topic="smooth")
    def smooth(self, n: int, value: float) -> dict[str, float]:
        self.values = [*self.values, value][-self.over :]
        return {"n": n, "value": sum(self.values) / len(self.values)}


class Collector:
    def __init__(self) -> None:
        self.count, self.largest = 0, -math.inf

    @ether_sub(topic="smooth")
    def collect(self, n: int, value: float) -> None:
        self.count += 1
        self.largest = max(self.largest, value)

    @ether_get  # ether call collector.summary
    def summary(self) -> dict[str, float]:
        return {"count": self.count, "largest": self.largest}

    @ether_save_all  # at the end, when everything under way has arrived
    def report(self) -> None:
        print(f"{self.count} values, the largest {self.largest:.3f}")
''',
    "ether.yaml": """\
session: {session}
record: [smooth]
instances:
  source: {class_path: stages.Source}
  smooth:
    class_path: stages.Smooth
    kwargs: {over: 5}
  collector: {class_path: stages.Collector}
""",
    "test_stages.py": """\
from stages import Collector, Smooth, Source

from ether.testing import Lab


def test_every_sample_arrives():
    with Lab(objects={"source": Source(), "smooth": Smooth(3), "collector": Collector()}) as lab:
        lab.advance(2)
        assert lab["collector"].count == lab["source"].n > 10
""",
}

_EXPERIMENT = {
    "bench.py": '''\
"""What the experiment is made with: a stimulus, and a detector that sees it."""

import random

from ether import ether_get, ether_pub, ether_sync


class Stimulus:
    def __init__(self) -> None:
        self.dose = 0.0

    @ether_sync(topic="prepare_trial")  # before each trial, with the keys of its condition; all are waited for
    def prepare(self, dose: float) -> None:
        self.dose = dose

    @ether_get
    @ether_pub(topic="shown")
    def show(self) -> float:
        return self.dose


class Detector:
    @ether_get
    @ether_pub(topic="response")
    def measure(self, shown: float) -> float:
        return 2 * shown + random.gauss(0, 0.01)
''',
    "experiment.py": '''\
"""Run the experiment: python experiment.py"""

from ether import ether


def main() -> None:
    with ether.tap("ether.yaml"):
        stimulus, detector = ether.instance("stimulus"), ether.instance("detector")
        with ether.run("dose-response", animal=7) as run:
            for trial in run.trials([{"dose": 0.1}, {"dose": 0.3}, {"dose": 1.0}], order="random", seed=7, again=3):
                with trial:  # repeated where an instance dies
                    trial.result = detector.measure(shown=stimulus.show())
                    print(trial.condition, trial.result)
    print(f"recorded as {run.id}: ether runs, ether data, ether report")


if __name__ == "__main__":
    main()
''',
    "ether.yaml": """\
session: {session}
record: all
instances:
  stimulus: {class_path: bench.Stimulus}
  detector: {class_path: bench.Detector}
""",
    "test_bench.py": """\
from bench import Detector, Stimulus


def test_the_detector_answers_twice_the_dose():
    stimulus = Stimulus()
    stimulus.prepare(dose=0.5)
    assert abs(Detector().measure(stimulus.show()) - 1.0) < 0.1
""",
}

_DRIVER = {
    "vendor.py": '''\
"""Stands for a driver that somebody else wrote: it knows nothing of Ether, and is not edited."""


class Oven:
    def __init__(self, address: str) -> None:
        self.address, self.setpoint, self.watts = address, 20.0, 0.0

    @property
    def temperature(self) -> float:
        return self.setpoint - 0.5

    def set_power(self, watts: float) -> None:
        self.watts = watts

    def close(self) -> None:
        self.watts = 0.0
''',
    "ether.yaml": """\
session: {session}
instances:
  oven:
    class_path: vendor.Oven      # or any class that is installed: pymeasure.instruments.….Keithley2400
    kwargs: {address: "GPIB0::5"}
registry:
  vendor.Oven:                   # what Ether does with it, without a change of its code
    on_stop: close
    methods:
      set_power:
        ether_get: {}
        arguments: {watts: {limits: [0, 50], unit: W}}
    properties:
      temperature: {get: {topic: oven/temperature, every: 1s}, unit: °C}
      setpoint: {get: {}, set: true, unit: °C, limits: [0, 80]}
    safe_state:                  # when the program that runs it is lost
      after: 2s
      calls: [{method: set_power, args: [0]}]
""",
    "test_driver.py": """\
from ether.testing import Lab


def test_the_temperature_is_published_once_a_second():
    with Lab("ether.yaml") as lab:
        lab.advance(3)
        assert set(lab.values("oven/temperature")) == {19.5}
""",
}

_SERVICE = {
    "sensor.py": '''\
"""A sensor that measures day and night, on a Raspberry Pi for example: the temperature of its processor."""

from pathlib import Path

from ether import ether_every, ether_get, ether_pub

PLACE = Path("/sys/class/thermal/thermal_zone0/temp")


class Sensor:
    """Replace `read` by your sensor: I2C, 1-Wire, a GPIO."""

    @ether_get
    def read(self) -> float:
        try:
            return int(PLACE.read_text()) / 1000
        except (OSError, ValueError):  # a machine without such a file
            return 42.0

    @ether_every("5s")
    @ether_pub(topic="sensor/temperature", on="change", dead_band=0.2)  # only what has changed
    def publish(self) -> float:
        return self.read()
''',
    "ether.yaml": """\
session: {session}
record: all
instances:
  sensor:
    class_path: sensor.Sensor
    restart: always              # in a session; as a service systemd does it
""",
    "test_sensor.py": """\
from sensor import Sensor

from ether.testing import Lab


def test_the_first_value_is_published():
    with Lab(objects={"sensor": Sensor()}) as lab:
        lab.advance(6)
        assert lab.values("sensor/temperature")[0] > 0
""",
}

_DEMO = {
    "oven.py": '''\
"""An oven, what regulates it, and what shows its temperature: three processes that hear each other."""

from ether import ether_every, ether_get, ether_pub, ether_save_all, ether_sub

ROOM = 20.0


class Oven:
    """Stands for a real one: it warms up with its power, and loses heat to the room."""

    def __init__(self) -> None:
        self.celsius, self.percent = ROOM, 0.0

    @ether_every("0.5s")
    @ether_pub(topic="temperature")  # what it returns is published
    def measure(self) -> dict[str, float]:
        self.celsius += 0.08 * self.percent - 0.06 * (self.celsius - ROOM)
        return {"celsius": round(self.celsius, 2)}

    @ether_sub(topic="power")  # is called with every message
    def heat(self, percent: float) -> None:
        self.percent = percent


class Regulator:
    """Hears the temperature, and says with which power the oven shall heat."""

    def __init__(self, target: float = 60.0) -> None:
        self.target, self.integral = target, 0.0

    @ether_sub(topic="temperature")
    @ether_pub(topic="power")
    def regulate(self, celsius: float) -> dict[str, float]:
        error = self.target - celsius
        self.integral = min(100.0, max(0.0, self.integral + 0.3 * error))
        return {"percent": round(min(100.0, max(0.0, 3 * error + self.integral)), 1)}

    @ether_get  # can be called: ether call regulator.set_target celsius=80
    def set_target(self, celsius: float) -> float:
        self.target = celsius
        return celsius


class Display:
    """Prints every second temperature, and at the end the highest one."""

    def __init__(self) -> None:
        self.count, self.highest = 0, 0.0

    @ether_sub(topic="temperature")
    def show(self, celsius: float) -> None:
        self.highest = max(self.highest, celsius)
        self.count += 1
        if self.count % 2:
            print(f"{celsius:6.2f} degrees  {'#' * int(celsius / 2)}", flush=True)

    @ether_save_all  # at the end, when everything under way has arrived
    def report(self) -> None:
        print(f"{self.count} temperatures, the highest {self.highest:.2f} degrees", flush=True)
''',
    "ether.yaml": """\
session: {session}
record: all                      # keep every message: ether data, ether why
instances:
  oven: {class_path: oven.Oven}
  regulator:
    class_path: oven.Regulator
    kwargs: {target: 60.0}
  display: {class_path: oven.Display}
""",
    "test_oven.py": """\
from oven import Display, Oven, Regulator

from ether.testing import Lab


def test_the_oven_reaches_its_target():
    with Lab(objects={"oven": Oven(), "regulator": Regulator(40.0), "display": Display()}) as lab:
        lab.advance(60)
        assert abs(lab["oven"].celsius - 40.0) < 1.0
        assert lab["display"].count > 100
""",
}

TEMPLATES: Mapping[str, ProjectTemplate] = {
    "minimal": ProjectTemplate(
        "a thermometer and an alarm", _MINIMAL,
        "ether call thermometer.read\nether call alarm.set_limit limit=22.5\nether topic echo temperature\nether top",
    ),
    "camera": ProjectTemplate(
        "a camera and what looks at its pictures (needs NumPy)", _CAMERA,
        "ether topic hz image\nether call camera.expose exposure_s=0.2\nether topic echo brightness",
    ),
    "serial": ProjectTemplate(
        "an instrument at a serial port, with a simulated twin", _SERIAL,
        "ether call heater.set_power percent=10\nether topic echo heater/power", "ether run --sim",
    ),
    "pipeline": ProjectTemplate(
        "source, stage, collector", _PIPELINE, "ether graph\nether call collector.summary\nether topic hz smooth"
    ),
    "experiment": ProjectTemplate(
        "a run with trials, recorded", _EXPERIMENT, "ether runs\nether data", "python experiment.py"
    ),
    "driver": ProjectTemplate(
        "a class that others wrote, by YAML alone", _DRIVER,
        "ether call oven.set_power watts=20\nether topic echo oven/temperature",
    ),
    "service": ProjectTemplate(
        "a sensor that runs after every reboot", _SERVICE,
        "ether call sensor.read\nether service install instance sensor --file ether.yaml --user --dry-run",
    ),
    "demo": ProjectTemplate(
        "what ether demo runs: an oven that is regulated", _DEMO,
        "ether ps\nether call regulator.set_target celsius=80\nether topic echo power\nether graph\nether data",
    ),
}  # fmt: skip
"""By the name that `ether new --template` takes."""
