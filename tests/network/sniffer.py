"""Records every frame of a machine of a test network into a file: `sniffer.py FILE`, until Ctrl-C. Needs root."""

from __future__ import annotations

import signal
import socket
import sys

_ALL = 0x0003
"""ETH_P_ALL."""


def main(path: str) -> None:
    ending: list[int] = []
    signal.signal(signal.SIGINT, lambda *_: ending.append(1))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL)) as frames, open(path, "wb") as file:
        frames.settimeout(0.1)
        print("listening", flush=True)
        while not ending:
            try:
                file.write(frames.recv(65_536))
            except TimeoutError:
                continue


if __name__ == "__main__":
    main(*sys.argv[1:])
