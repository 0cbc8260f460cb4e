"""A user's program for tests of networks: `sensor.py BROKER HZ`. It joins the session `bench` and publishes numbers to
`sensor`, which the session records, HZ times a second, until SIGUSR1; then it waits until all are saved.

What happens is a line on stdout, as in `member.py`: `sending` (the first number), `published` (how many), `unsaved`
(how many are not, in the end), `memory` (the most that it ever had, in kB).
"""

from __future__ import annotations

import queue
import signal
import sys
import time

from ether import Ether


def peak_kb() -> int:
    """The most memory that this program has had. (What `getrusage` tells begins with that of the process it was forked
    from.)"""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))


def tell(what: str, value: object) -> None:
    sys.stdout.write(f"{time.monotonic():.4f} {what} {value}\n")
    sys.stdout.flush()


def main(broker: str, hertz: str) -> None:
    enough: queue.SimpleQueue[int] = queue.SimpleQueue()  # a handler may put into it, whatever it interrupts
    signal.signal(signal.SIGUSR1, lambda sent, _: enough.put(sent))
    ether = Ether()
    with ether.tap(session="bench", broker=broker):
        number, began = 0, time.monotonic()
        tell("sending", 1)
        while enough.empty():
            time.sleep(max(0.0, began + number / float(hertz) - time.monotonic()))
            number += 1
            ether.pub({"n": number}, topic="sensor")
        tell("published", number)
        tell("unsaved", ether.flush(60))  # bare: a user's program, without the parts of the tests
        tell("memory", peak_kb())


if __name__ == "__main__":
    main(*sys.argv[1:])
