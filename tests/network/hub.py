"""An external broker on a machine of a test network: `hub.py ADDRESS PORT USER PASSWORD`.

It is mosquitto. SIGUSR1 kills it as a power cut would, and then starts another
one at the same address; Ctrl-C ends it. What happens is a line on stdout, as in `member.py`.
"""

from __future__ import annotations

import signal
import sys
import time

from running_brokers import running_broker


def tell(what: str) -> None:
    print(f"{time.monotonic():.4f} {what} broker", flush=True)


def main(address: str, port: str, username: str, password: str) -> None:
    signals = {signal.SIGUSR1, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    # no Unix socket: nobody here uses it, and its path below a test's folder may be too long for one
    at = {"host": address, "port": int(port), "unix_socket": None}
    with running_broker("mosquitto", **at, username=username, password=password) as broker:
        tell("listening")
        while signal.sigwait(signals) == signal.SIGUSR1:
            broker.kill()
            tell("killed")
            broker = broker.restart()
            tell("restarted")


if __name__ == "__main__":
    main(*sys.argv[1:])
