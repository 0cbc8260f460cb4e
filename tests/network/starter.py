"""A user's program for tests of networks: `starter.py FILE SETTINGS`, run on a machine of its own.

It says that it is there, and taps with SETTINGS (the arguments of `ether.tap`, as JSON) when `time.monotonic()`, which
all machines share, is what comes through FILE, a named pipe. It saves numbers at once, and prints lines of JSON:
when it was in the session and who leads that, and that the numbers are on disk. Ctrl-C ends it."""

from __future__ import annotations

import json
import queue
import signal
import socket
import sys
import time
from pathlib import Path

from ether import Ether

NUMBERS = 20


def main(file: str, settings: str) -> None:
    # `set()` of an Event by a handler, while this very thread waits for it, can stop it for ever.
    asked: queue.SimpleQueue[int] = queue.SimpleQueue()
    signal.signal(signal.SIGINT, lambda number, _: asked.put(number))
    ether = Ether()
    arguments = json.loads(settings)
    print("there", file=sys.stderr, flush=True)
    at = float(Path(file).read_text())  # a named pipe: it waits for whoever writes
    time.sleep(max(0.0, at - time.monotonic()))
    with ether.tap(**arguments):
        saved = [ether.pub({"from": socket.gethostname(), "n": n}, topic="n", save=True) for n in range(NUMBERS)]
        info = ether.session_info()
        print(json.dumps({"after_s": time.monotonic() - at, "leader": info["host"]}), flush=True)
        for each in saved:
            assert each is not None
            each.wait(timeout_s=20.0)  # bare: a user's program, without the parts of the tests
        print(json.dumps({"saved": len(saved)}), flush=True)
        asked.get()


if __name__ == "__main__":
    main(*sys.argv[1:])
