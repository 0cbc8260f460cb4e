"""How many of Ether's modules one `pub`, one `record` and one `get` pass, in the caller's process and the instance's.

    .venv/bin/python benchmarks/path.py [--engine amqtt|mosquitto]

Every function call of both processes is noted with its time (a profile function that `sitecustomize` installs before
any thread begins). Each act is done several times; a module counts where it ran within the window of *each* of them,
so that heartbeats, which fall into some windows by chance, do not count. `record` counts the caller's side up to the
return of the call; the outbox and the recorder follow later, in threads and a process of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TIMES = 12

TRACER = """
import atexit, json, os, sys, threading, time
seen = []
names = {}
def note(frame, event, arg):
    if event == "call":
        code = frame.f_code.co_filename
        module = names.get(code)
        if module is None:
            at = code.rfind("/ether/")
            module = names[code] = code[at + 1:-3].replace("/", ".") if at >= 0 and code.startswith(ROOT) else ""
        if module:
            seen.append((time.monotonic(), module))
ROOT = os.environ["PATH_ROOT"]
def write():
    sys.setprofile(None)
    threading.setprofile(None)
    with open(os.path.join(os.environ["PATH_FOLDER"], f"{os.getpid()}.json"), "w") as file:
        json.dump(seen, file)
if "broker" not in sys.orig_argv:
    atexit.register(write)
    threading.setprofile(note)
    sys.setprofile(note)
"""

PARTS = """
from ether import ether_get, ether_sub
class Part:
    def __init__(self): self.heard = 0
    @ether_sub(topic="data")
    def take(self, value: int = 0): self.heard += 1
    @ether_get
    def count(self) -> int: return self.heard
"""

PROGRAM = """
import json, sys, threading, time
from ether import ether
times, engine = int(sys.argv[1]), sys.argv[2]
ether.tap({"instances": {"part": {"class_path": "parts.Part"}}, "record": ["kept"]}, broker={"engine": engine})
def window(act):
    began = time.monotonic()
    act()
    return (began, time.monotonic())
def publish():
    before = ether.get("part", "count")
    began = time.monotonic()
    ether.pub({"value": 1}, "data")
    threading.Event().wait(0.15)  # it has arrived by then, as the next line makes sure
    ended = time.monotonic()
    assert ether.get("part", "count") == before + 1
    return (began, ended)
for _ in range(3):
    publish(); ether.record(1, "kept").wait()
found = {"pub": [publish() for _ in range(times)], "record": [], "get": []}
for _ in range(times):
    found["get"].append(window(lambda: ether.get("part", "count")))
    found["record"].append(window(lambda: ether.record(1, "kept")))
ether.shutdown()
print("WINDOWS" + json.dumps(found))
"""


def modules_of(engine: str) -> dict[str, set[str]]:
    """The modules that each act passes in every one of its windows."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (("sitecustomize", TRACER), ("parts", PARTS), ("program", PROGRAM)):
            Path(folder, f"{name}.py").write_text(text)
        environment = {
            **os.environ, "PYTHONPATH": f"{folder}:{ROOT}", "PATH_FOLDER": folder, "PATH_ROOT": str(ROOT),
            "XDG_STATE_HOME": folder, "XDG_DATA_HOME": folder,
        }  # fmt: skip
        command = [sys.executable, "program.py", str(TIMES), engine]
        said = subprocess.check_output(command, cwd=folder, env=environment, text=True, timeout=120)
        windows = json.loads(said.split("WINDOWS")[1])
        calls = sorted(tuple(call) for file in Path(folder).glob("*.json") for call in json.loads(file.read_text()))
    return {
        act: set.intersection(*({module for at, module in calls if began <= at <= ended} for began, ended in spans))
        for act, spans in windows.items()
    }


def main() -> None:
    """Print the counts and the modules."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--engine", default="amqtt", choices=("amqtt", "mosquitto"))
    for act, modules in modules_of(options.parse_args().engine).items():
        print(f"{act}: {len(modules)} modules")
        print("   ", ", ".join(sorted(module.removeprefix("ether.") for module in modules)))


if __name__ == "__main__":
    main()
