"""What it costs a lab that its page is open: 8 channels at 1 kHz, a camera of 1 MP at 30 Hz, and 200 instances.

    python benchmarks/page.py [--rounds 6] [--seconds 10] [--instances 200] [--profile]
    python benchmarks/page.py --rounds 1 --open-for 1800        # is its memory flat?

A WebSocket client that asks for eight plots and the image, and reads everything, stands for the browser. In each round
the same lab runs with the page and without it, one block after the other, in turns that begin with the one or the
other; without the page there is no process of it. The 200 instances are objects of a few programs, so that the machine
is not full before the page comes. Compared is the processor time of the publishers and the recorder for each message,
because a machine that does something else meanwhile lets fewer messages through; and of the others for each second. Of
the page itself: its processor time, its memory, how many messages a second its client is told. At the end: what the
record says it lacks.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

from figures import table  # noqa: E402
from instances import cpu_s  # noqa: E402

from ether import Ether, ether_every, ether_get, ether_pub  # noqa: E402

CHANNELS, RATE_HZ, FRAMES_HZ, PIXELS = 8, 1000, 30, 1000
SETTLE_S = 4.0
HOSTED_TOGETHER = 50
MINUTE_S = 60.0
MOST_COST, MOST_OF_A_CORE, LEAST_UPDATES_HZ = 0.02, 0.40, 19.0


class Amplifier:
    """8 channels, 1,000 messages a second."""

    def __init__(self) -> None:
        self._number = 0

    @ether_get
    def count(self) -> int:
        return self._number

    @ether_every(f"{RATE_HZ}Hz")
    @ether_pub(topic="samples")
    def poll(self) -> list[float]:
        self._number += 1
        return [float(np.sin(self._number * 0.01 * (channel + 1))) for channel in range(CHANNELS)]


class Camera:
    """Frames of 1,000 x 1,000, 16 bits."""

    def __init__(self) -> None:
        self._number = 0
        self._frame = np.random.default_rng(1).integers(0, 4096, (PIXELS, PIXELS), dtype=np.uint16)

    @ether_get
    def count(self) -> int:
        return self._number

    @ether_every(f"{FRAMES_HZ}Hz")
    @ether_pub(topic="image")
    def take(self) -> Any:
        self._number += 1
        return self._frame


class Well:
    """One of many instances."""

    @ether_every("1Hz")
    @ether_pub(topic="wells")
    def read(self) -> float:
        return time.monotonic()


def config(folder: str) -> dict[str, Any]:
    """The lab; the stream is recorded."""
    return {
        "record": {"folder": f"{folder}/ledger", "topics": ["samples"]},
        "instances": {"amplifier": {"class_path": "page.Amplifier"}, "camera": {"class_path": "page.Camera"}},
    }


HOSTED = """
import sys
from ether import ether
from page import Well

ether.tap(session=sys.argv[1], start=False)
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    ether.host(Well(), f"well-{number}")
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def hosted(session: str, wells: int) -> Iterator[list[int]]:
    """So many instances, as objects of a few programs; gives their process ids."""
    programs: list[subprocess.Popen[str]] = []
    try:
        for first in range(0, wells, HOSTED_TOGETHER):
            command = [sys.executable, "-c", HOSTED, session, str(first), str(min(wells, first + HOSTED_TOGETHER))]
            programs.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            assert programs[-1].stdout is not None
            programs[-1].stdout.readline()
        yield [program.pid for program in programs]
    finally:
        for program in programs:
            program.communicate("")


def parts_of(own: Ether, others: list[int]) -> dict[str, list[int]]:
    """The processes of the lab that are compared, by what they are."""
    named = {each["name"]: each["pid"] for each in own.instances()}
    parts = {name: [named[name]] for name in ("amplifier", "camera", "recorder") if name in named}
    if others:
        parts["the other instances"] = others
    for child in psutil.Process().children(recursive=True):
        line = " ".join(child.cmdline())
        if "mosquitto" in line or "-m broker" in line:
            parts.setdefault("broker", []).append(child.pid)
    parts["this program"] = [os.getpid()]
    return parts


def counted(own: Ether) -> dict[str, float]:
    """How many messages each part has had so far, of those whose cost is counted by the message."""
    found = {name: float(own.get(name, "count", timeout_s=30)) for name in ("amplifier", "camera")}
    return {**found, "recorder": found["amplifier"]}


def paid(own: Ether, parts: dict[str, list[int]], seconds: float) -> dict[str, float]:
    """What each part takes: of processor time for each message, or of a core."""
    sent, began = counted(own), time.monotonic()
    before = {name: cpu_s(pids) for name, pids in parts.items()}
    threading.Event().wait(seconds)
    used = {name: cpu_s(pids) - before[name] for name, pids in parts.items()}
    took, done = time.monotonic() - began, counted(own)
    return {name: each / (max(1.0, done[name] - sent[name]) if name in sent else took) for name, each in used.items()}


READER = """
import asyncio, json, sys, urllib.error, urllib.request
import websockets

class Stays(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None

async def read(link, wishes):
    try:
        urllib.request.build_opener(Stays).open(link)
        raise RuntimeError("the link opened nothing")
    except urllib.error.HTTPError as answer:
        cookie = str(answer.headers["set-cookie"]).partition(";")[0]
    base = link.partition("/open")[0]
    headers = {"Cookie": cookie, "Origin": base}
    told = {"texts": 0, "frames": 0, "bytes": 0, "rows": 0}
    feed = base.replace("http", "ws") + "/feed"
    async with websockets.connect(feed, additional_headers=headers, max_size=None) as wire:
        await wire.send(wishes)
        while True:
            message = await wire.recv()
            told["bytes"] += len(message)
            told["texts" if isinstance(message, str) else "frames"] += 1
            print(json.dumps(told), flush=True)

asyncio.run(read(*sys.argv[1:]))
"""


@dataclass(slots=True)
class OpenPage:
    """The page, and a client that reads everything: a process of its own, as a browser is, so that nothing of the lab
    shares an interpreter with it."""

    process: subprocess.Popen[str]
    reader: subprocess.Popen[str]
    told: dict[str, int] = field(default_factory=dict)

    def hear(self) -> None:
        """Keep the newest count of what the client was told, until it ends."""
        assert self.reader.stdout is not None
        for line in self.reader.stdout:
            self.told = json.loads(line)

    def figures(self, seconds: float, before: dict[str, int], cpu_before: float) -> dict[str, float]:
        """What a block was, from what was known when it began."""
        rates = {name: (self.told[name] - before[name]) / seconds for name in ("texts", "frames", "bytes")}
        return {**rates, "cpu": (cpu_s([self.process.pid]) - cpu_before) / seconds, "mb": self.mb}

    @property
    def mb(self) -> float:
        """Its memory."""
        return float(psutil.Process(self.process.pid).memory_info().rss) / 1e6


@contextmanager
def open_page(session: str, profile: str = "") -> Iterator[OpenPage]:
    """The page of a session, shown by a client."""
    run = ["-m", "cProfile", "-o", profile, "-m", "ether"] if profile else ["-m", "ether"]
    page = subprocess.Popen(
        [sys.executable, *run, "dashboard", "--json", "--", session], stdout=subprocess.PIPE, text=True
    )
    assert page.stdout is not None
    link = json.loads(page.stdout.readline())["link"]
    keys = [f"samples\x1f[{channel}]" for channel in range(CHANNELS)]
    wishes = json.dumps({"plotted": keys, "window_s": 60, "pixels": 900, "picture": "image", "table": ""})
    reader = subprocess.Popen([sys.executable, "-c", READER, link, wishes], stdout=subprocess.PIPE, text=True)
    found = OpenPage(page, reader)
    hearing = threading.Thread(target=found.hear, daemon=True)
    hearing.start()
    try:
        yield found
    finally:
        reader.terminate()
        page.terminate()
        for process in (reader, page):
            process.wait(30)
        hearing.join()
        for process in (reader, page):
            if process.stdout is not None:
                process.stdout.close()


def block(
    own: Ether, parts: dict[str, list[int]], seconds: float, *, shown: bool
) -> tuple[dict[str, float], dict[str, float]]:
    """What the lab's parts take, and the figures of the page where it is open."""
    if not shown:
        threading.Event().wait(SETTLE_S)
        return paid(own, parts, seconds), {}
    with open_page(str(own.session_id)) as page:
        threading.Event().wait(SETTLE_S)
        told, cpu = dict(page.told), cpu_s([page.process.pid])
        found = paid(own, parts, seconds)
        return found, page.figures(seconds, told, cpu)


def said(name: str, found: list[float]) -> str:
    """The median, with its unit."""
    middle = statistics.median(found)
    return (
        f"{1e6 * middle:,.0f} µs/message" if name in ("amplifier", "camera", "recorder") else f"{middle:.1%} of a core"
    )


def compare(own: Ether, parts: dict[str, list[int]], rounds: int, seconds: float) -> list[str]:
    """The table of both; returns what misses its aim."""
    alone: list[dict[str, float]] = []
    shown: list[dict[str, float]] = []
    pages: list[dict[str, float]] = []
    for number in range(rounds):
        for with_page in (False, True) if number % 2 == 0 else (True, False):
            found, page = block(own, parts, seconds, shown=with_page)
            (shown if with_page else alone).append(found)
            pages += [page] if page else []
    rows, ratios = [], {}
    for name in parts:
        one, other = [[each[name] for each in many] for many in (alone, shown)]
        each_ratio = [b / a for a, b in zip(one, other, strict=True) if a > 0]
        ratios[name] = statistics.median(each_ratio) if each_ratio else 1.0
        spread = f"{min(each_ratio, default=1):.3f} to {max(each_ratio, default=1):.3f}"
        rows.append([name, said(name, one), said(name, other), f"{ratios[name]:.3f}", spread])
    table(
        f"What an open page costs, {rounds} rounds",
        ["processor time", "alone", "page open", "ratio", "of the rounds"],
        rows,
    )
    middle = {name: statistics.median(each[name] for each in pages) for name in pages[0]}
    print(
        f"page: {middle['cpu']:.1%} of a core, {middle['mb']:.0f} MB; told {middle['texts']:.1f} updates and"
        f" {middle['frames']:.1f} frames a second, {middle['bytes'] / 1e6:.1f} MB/s"
    )
    missed = [
        f"{name} pays {ratios[name] - 1:.1%}"
        for name in ("amplifier", "camera", "recorder")
        if ratios[name] > 1 + MOST_COST
    ]
    missed += [f"the page takes {middle['cpu']:.0%} of a core"] if middle["cpu"] > MOST_OF_A_CORE else []
    return missed + ([f"{middle['texts']:.1f} updates a second"] if middle["texts"] < LEAST_UPDATES_HZ else [])


def stay_open(own: Ether, seconds: float) -> list[str]:
    """The page's memory by the minute; returns what misses its aim."""
    sizes: list[float] = []
    with open_page(str(own.session_id)) as page:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            told, cpu = dict(page.told) or {"texts": 0, "frames": 0, "bytes": 0}, cpu_s([page.process.pid])
            pause = min(MINUTE_S, max(1.0, until - time.monotonic()))
            threading.Event().wait(pause)
            found = page.figures(pause, told, cpu)
            sizes.append(found["mb"])
            rest = f"{found['cpu']:.0%} of a core, {found['texts']:.1f} updates/s"
            print(f"minute {len(sizes)}: {found['mb']:.0f} MB, {rest}", flush=True)
    third = max(1, len(sizes) // 3)
    before, after = statistics.median(sizes[third : 2 * third] or sizes), statistics.median(sizes[-third:])
    print(f"memory: {before:.0f} MB in the middle third, {after:.0f} MB in the last one")
    return [f"memory grows: {before:.0f} to {after:.0f} MB"] if after > before * 1.05 + 2 else []


def main() -> int:
    reading = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    reading.add_argument("--rounds", type=int, default=6)
    reading.add_argument("--seconds", type=float, default=10.0, help="of a block")
    reading.add_argument("--instances", type=int, default=200, help="beside amplifier and camera")
    reading.add_argument("--open-for", type=float, default=0.0, help="seconds for which the page's memory is watched")
    reading.add_argument("--profile", default="", help="a file for the page's cProfile, of one block")
    asked = reading.parse_args()
    os.environ["PYTHONPATH"] = str(HERE)
    with tempfile.TemporaryDirectory() as folder, Ether() as own:
        own.tap(config(folder), timeout_s=120)
        with hosted(str(own.session_id), asked.instances) as others:
            threading.Event().wait(SETTLE_S)
            if asked.profile:
                with open_page(str(own.session_id), asked.profile):
                    threading.Event().wait(SETTLE_S + asked.seconds)
                return 0
            missed = compare(own, parts_of(own, others), asked.rounds, asked.seconds) if asked.rounds else []
            missed += stay_open(own, asked.open_for) if asked.open_for else []
            proof = own.get("recorder", "proof")
            print(f"the record: {proof['summary']}")
        missed += [f"{len(proof['gaps'])} gaps in the record"] if proof["gaps"] else []
    print(f"missed: {'; '.join(missed)}" if missed else "every aim is met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
