"""`ether new`: a project that runs, small enough to read in a minute and to change in the next."""

from __future__ import annotations

import json as json_text
import shlex
from pathlib import Path
from typing import Annotated

import typer

from ether.cli.exits import CommandMistake
from ether.cli.make.schema import config_schema
from ether.cli.options import Json
from ether.cli.output import print_json, print_line

_PARTS = '''\
"""Two parts of a small lab: a thermometer that measures, and an alarm that watches it.

Ordinary classes: the decorators only mark what Ether shall do with them.
"""

from __future__ import annotations

import random
import threading

from ether import ether_cleanup, ether_get, ether_init, ether_pub, ether_sub


class Thermometer:
    """Measures again and again. Replace `measure` by what your instrument says."""

    def __init__(self, interval_s: float = 1.0) -> None:
        self.interval_s = interval_s
        self.celsius = 20.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._measure_repeatedly, daemon=True)

    @ether_init
    def begin(self) -> None:
        self._thread.start()

    @ether_pub(topic="temperature")  # what it returns is published
    def measure(self) -> dict[str, float]:
        self.celsius = round(self.celsius + random.uniform(-0.5, 0.7), 2)
        return {"celsius": self.celsius}

    @ether_get  # can be called: ether call thermometer.read
    def read(self) -> float:
        return self.celsius

    @ether_cleanup
    def end(self) -> None:
        self._stop.set()
        self._thread.join()

    def _measure_repeatedly(self) -> None:
        while not self._stop.wait(self.interval_s):
            self.measure()


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
'''

_YAML = """\
# yaml-language-server: $schema=ether.schema.json
instances:
  thermometer:
    class_path: parts.Thermometer
    kwargs: {interval_s: 1.0}
  alarm:
    class_path: parts.Alarm
    kwargs: {limit: 21.0}
"""

_TEST = '''\
"""The parts together, in one process, in milliseconds: pytest"""

from ether.testing import Lab
from parts import Alarm


def test_the_alarm_watches_the_temperature():
    with Lab(objects={"alarm": Alarm(limit=21.0)}) as lab:
        lab.pub({"celsius": 20.0}, topic="temperature")
        lab.pub({"celsius": 25.0}, topic="temperature")
        assert lab["alarm"].alarms == 1
'''

_README = """\
# {name}

    ether run                              # both parts, until Ctrl-C

and in another terminal

    ether ps                               # who is there
    ether call thermometer.read            # ask one of them
    ether call alarm.set_limit limit=22.5  # tell one of them
    ether topic echo temperature           # what passes
    ether top                              # live

| file | what it is |
| --- | --- |
| `parts.py` | the classes; they work without Ether, too |
| `ether.yaml` | which instances there are, with which arguments |
| `test_parts.py` | `pytest` runs it, without broker or processes |
| `ether.schema.json` | lets editors complete and check `ether.yaml`; made by `ether schema` |
"""


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The folder to make.")],
    json: Json = False,
) -> None:
    """Make a folder with a project that runs: two classes, a configuration, a test, a README."""
    folder = Path(name)
    files = _files(folder.name)
    try:
        _make(folder, files)
    except FileExistsError:
        raise CommandMistake(f"{name!r} exists already; choose another name, or remove it first") from None
    except OSError as error:
        raise CommandMistake(f"cannot make {name!r}: {error.strerror or error}") from error
    if json:
        print_json({"folder": str(folder), "files": sorted(files)})
    else:
        print_line(f"{name} is made. Try it:\n\n    cd {shlex.quote(name)}\n    ether run")


def _files(name: str) -> dict[str, str]:
    return {
        "parts.py": _PARTS,
        "ether.yaml": _YAML,
        "test_parts.py": _TEST,
        "README.md": _README.replace("{name}", name or "A small lab"),
        "ether.schema.json": json_text.dumps(config_schema(), indent=2) + "\n",
    }


def _make(folder: Path, files: dict[str, str]) -> None:
    """Raises `FileExistsError` rather than change an existing file. An empty folder may exist already."""
    if not folder.is_dir() or any(folder.iterdir()):
        folder.mkdir(parents=True)
    for name, text in files.items():
        with open(folder / name, "x", encoding="utf-8") as file:
            file.write(text)
