"""What it costs a lab that its page is open: 8 channels at 1 kHz, a camera of 1 MP at 30 Hz, and many instances.

python benchmarks/page.py [seconds] [instances]

A WebSocket client that asks for plots and the image, and reads everything, stands for the browser. Before it the same
lab without a page: processor time of the publishers, the recorder and the broker, and what the record lacks. Of the
page itself: its processor time, its memory at the begin and at the end, and how many messages a second it sends.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from ether import Ether, ether_every, ether_pub

CHANNELS, RATE_HZ, FRAMES_HZ = 8, 1000, 30
SETTLE_S = 5.0


class Amplifier:
    """8 channels, 1,000 messages a second."""

    def __init__(self) -> None:
        self._number = 0

    @ether_every(f"{RATE_HZ}Hz")
    @ether_pub(topic="samples")
    def poll(self) -> list[float]:
        self._number += 1
        return [float(np.sin(self._number * 0.01 * (channel + 1))) for channel in range(CHANNELS)]


class Camera:
    """Frames of 1,000 x 1,000, 16 bits."""

    def __init__(self) -> None:
        self._frame = np.random.default_rng(1).integers(0, 4096, (1000, 1000), dtype=np.uint16)

    @ether_every(f"{FRAMES_HZ}Hz")
    @ether_pub(topic="image")
    def take(self) -> Any:
        return self._frame


class Well:
    """One of many instances."""

    @ether_every("1Hz")
    @ether_pub(topic="wells")
    def read(self) -> float:
        return time.monotonic()


def config(folder: str, wells: int) -> dict[str, Any]:
    """The lab; the stream is recorded."""
    here = "page" if __name__ == "__main__" else __name__
    many = {f"well-{number}": {"class_path": f"{here}.Well"} for number in range(wells)}
    return {
        "record": {"folder": f"{folder}/ledger", "topics": ["samples"]},
        "instances": {
            "amplifier": {"class_path": f"{here}.Amplifier"}, "camera": {"class_path": f"{here}.Camera"}, **many
        },
    }  # fmt: skip


def seconds_of(pids: dict[str, int]) -> dict[str, float]:
    """Processor time so far, by part of the lab."""
    found = {}
    for name, pid in pids.items():
        times = psutil.Process(pid).cpu_times()
        found[name] = times.user + times.system
    return found


def parts_of(own: Ether) -> dict[str, int]:
    """The processes of the lab that are compared."""
    named = {each["name"]: each["pid"] for each in own.instances()}
    chosen = {name: named[name] for name in ("amplifier", "camera", "recorder") if name in named}
    for child in psutil.Process().children(recursive=True):
        line = " ".join(child.cmdline())
        if "mosquitto" in line or "-m broker" in line:
            chosen["broker"] = child.pid
    return chosen


def measured(own: Ether, seconds: float) -> dict[str, float]:
    """The share of a core that each part takes."""
    pids = parts_of(own)
    before, began = seconds_of(pids), time.monotonic()
    threading.Event().wait(seconds)
    after, took = seconds_of(pids), time.monotonic() - began
    return {name: (after[name] - before[name]) / took for name in pids}


class Reader(threading.Thread):
    """Stands for the browser: opens the link, asks for plots and the image, and reads everything."""

    def __init__(self, link: str) -> None:
        super().__init__(daemon=True)
        self.texts = self.frames = self.bytes = 0
        self._link = link
        self.over = threading.Event()

    def run(self) -> None:
        asyncio.run(self._read())

    async def _read(self) -> None:
        import websockets

        class Stays(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *_: Any) -> None:
                return None

        try:
            urllib.request.build_opener(Stays).open(self._link)
            raise RuntimeError("the link opened nothing")
        except urllib.error.HTTPError as answer:
            cookie = str(answer.headers["set-cookie"]).partition(";")[0]
        base = self._link.partition("/open")[0]
        headers = {"Cookie": cookie, "Origin": base}
        async with websockets.connect(
            base.replace("http", "ws") + "/feed", additional_headers=headers, max_size=None
        ) as wire:
            keys = [f"samples\x1f[{channel}]" for channel in range(CHANNELS)]
            await wire.send(
                json.dumps({"plotted": keys, "window_s": 60, "pixels": 900, "picture": "image", "table": ""})
            )
            while not self.over.is_set():
                message = await wire.recv()
                self.bytes += len(message)
                if isinstance(message, str):
                    self.texts += 1
                else:
                    self.frames += 1


def gaps_of(own: Ether) -> str:
    """The record's own word."""
    return str(own.get("recorder", "proof")["summary"])


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
    wells = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    sys.path.insert(0, str(Path(__file__).parent))
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    with tempfile.TemporaryDirectory() as folder, Ether() as own:
        own.tap(config(folder, wells), timeout_s=120)
        threading.Event().wait(SETTLE_S)
        alone = measured(own, seconds)
        page = subprocess.Popen(
            [sys.executable, "-m", "ether", "dashboard", "--json", "--", str(own.session_id)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert page.stdout is not None
        reader = Reader(json.loads(page.stdout.readline())["link"])
        reader.start()
        threading.Event().wait(SETTLE_S)
        process = psutil.Process(page.pid)
        begin, memory, texts, frames, sent = (
            process.cpu_times(),
            process.memory_info().rss,
            reader.texts,
            reader.frames,
            reader.bytes,
        )
        shown = measured(own, seconds)
        end, memory_after = process.cpu_times(), process.memory_info().rss
        cpu = (end.user + end.system - begin.user - begin.system) / seconds
        print(f"{'share of a core':20} {'alone':>8} {'shown':>8} {'more':>8}")
        for name in alone:
            print(f"{name:20} {alone[name]:8.1%} {shown[name]:8.1%} {shown[name] - alone[name]:+8.1%}")
        rates = [
            (reader.texts - texts) / seconds,
            (reader.frames - frames) / seconds,
            (reader.bytes - sent) / seconds / 1e6,
        ]
        print(
            f"{'page':20} {cpu:17.1%}; {rates[0]:.1f} messages and {rates[1]:.1f} frames a second, {rates[2]:.1f} MB/s"
        )
        print(f"{'memory of the page':20} {memory / 1e6:.0f} MB, after {seconds:g} s {memory_after / 1e6:.0f} MB")
        print(f"{'the record':20} {gaps_of(own)}")
        reader.over.set()
        page.terminate()
        page.wait()
    print(f"{'this program':20} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000:.0f} MB")


if __name__ == "__main__":
    main()
