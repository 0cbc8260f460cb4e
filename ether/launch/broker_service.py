"""The broker as a service of its own: `python -m ether.launch.broker_service [--listen lan] [--port 8883]`.

It is for a machine on which the broker shall outlive every session. It runs the same broker child as a session with
`broker: {listen: lan}` does, for the members of this machine's lab; programs reach it by `broker: mqtts://host`.

Promise: systemd gets READY when a client can connect, and watchdog pings for as long as one still can. A real
connection is made each time, so a broker that hangs is noticed, not only one that died.
The trap: `python -m broker` cannot be a service by itself. It ends when its standard input ends, which a service's does
at once, and it knows nothing of systemd.
"""

from __future__ import annotations

import argparse
import os
import queue
import signal
import sys
from collections.abc import Sequence

from ether.config.broker import EmbeddedBroker as BrokerSettings
from ether.config.broker_url import DEFAULT_MQTT_PORT, DEFAULT_MQTTS_PORT
from ether.errors import ConfigError, EtherError
from ether.launch.broker import BrokerFacts, BrokerProcess
from ether.launch.process_group import make_group
from ether.log import get_ether_logger, install_console
from ether.system.folders import private_folder
from ether.system.journald import write_for_journal
from ether.system.systemd import Notifier, Watchdog
from ether.transport import open_transport
from ether.transport.endpoint import Endpoint

logger = get_ether_logger("Ether")

READY_S = 30.0
STOP_S = 5.0
PROBE_EVERY_S = 5.0
PROBE_S = 3.0
FAILED_PROBES = 3
"""After so many in a row the service ends, so that systemd starts it again: the broker's own restarts have not
helped."""


def main(arguments: Sequence[str]) -> int:
    """Run a broker until SIGTERM or Ctrl-C; returns the exit code."""
    write_for_journal(os.environ)
    install_console("broker", sys.stderr)
    notifier = Notifier.from_environment(os.environ)
    asked: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: asked.put(number))
    try:
        return _serve(_settings(arguments), notifier, asked)
    except EtherError as error:
        logger.error("%s", error)
        return 2 if isinstance(error, ConfigError) else 1


def _serve(settings: BrokerSettings, notifier: Notifier | None, asked: queue.SimpleQueue[int]) -> int:
    folder = private_folder()
    group = make_group(folder)
    try:
        broker = BrokerProcess(settings, group, folder)
        try:
            return _watch(broker, broker.wait_ready(READY_S), notifier, asked)
        finally:
            broker.stop(STOP_S)
    finally:
        group.close()


def _watch(broker: BrokerProcess, facts: BrokerFacts, notifier: Notifier | None, asked: queue.SimpleQueue[int]) -> int:
    where = broker.lan_url or f"mqtt://{facts.host}:{facts.port}"
    logger.info("%s %s lets clients in at %s", facts.engine, facts.version, where)
    probe = _Probe(broker.endpoint)
    if notifier is not None:
        notifier.ready(f"{facts.engine} {facts.version} at {where}")
    with Watchdog(notifier, lambda: probe.failures == 0):
        while not _comes(asked, _interval_s(notifier)):
            if probe.look() >= FAILED_PROBES:
                logger.error("the broker lets nobody in any more: %s", probe.why)
                return 1
    if notifier is not None:
        notifier.stopping()
    return 0


def _comes(asked: queue.SimpleQueue[int], within_s: float) -> bool:
    """Whether a signal asks for the end within that time. A handler may put into this queue whatever it interrupts; one
    that sets an Event for which the same thread waits can stop it for ever."""
    try:
        asked.get(timeout=within_s)
    except queue.Empty:
        return False
    return True


def _interval_s(notifier: Notifier | None) -> float:
    """Several probes in each period of systemd's watchdog."""
    period_s = notifier.watchdog_s if notifier is not None else None
    return min(PROBE_EVERY_S, (period_s or PROBE_EVERY_S) / 2)


class _Probe:
    """Tries to connect, as any client does."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.failures = 0
        self.why = ""

    def look(self) -> int:
        """Try once; returns how many times in a row it has failed."""
        transport = open_transport(self._endpoint, client_id="probe")
        try:
            transport.connect(PROBE_S)
        except EtherError as error:
            self.failures, self.why = self.failures + 1, str(error)
        else:
            self.failures = 0
        finally:
            transport.close()
        return self.failures


def _settings(arguments: Sequence[str]) -> BrokerSettings:
    parser = argparse.ArgumentParser(
        prog="python -m ether.launch.broker_service", description="The broker as a service."
    )
    parser.add_argument("--listen", default="lan", help="lan, loopback or an address of this machine")
    parser.add_argument("--port", type=int, default=None, help="default: 8883 with TLS, 1883 without")
    parser.add_argument("--security", default="on", choices=["on", "off"], help="off: plain text on the network")
    parser.add_argument("--engine", default="auto", choices=["auto", "mosquitto", "amqtt"])
    given = parser.parse_args(arguments)
    how = {"listen": given.listen, "engine": given.engine, "security": given.security}
    usual = DEFAULT_MQTTS_PORT if BrokerSettings(**how).encrypted else DEFAULT_MQTT_PORT
    return BrokerSettings(**how, port=usual if given.port is None else given.port)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
