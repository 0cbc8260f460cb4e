"""Supervises a mosquitto program: finds it, configures it, says when a client can connect, and takes it down.

Promise: ready means that its log says "running" and that a CONNECT with the session's credentials was let in. What it
reports as wrong becomes an event. It is stopped within `STOP_S`, and killed after that.
The trap: its log is a pipe. If nobody reads it mosquitto stops at the next line, so one thread does nothing else.
"""

import os
import queue
import re
import subprocess
import sys
import threading
import time

from broker import orphans
from broker.engines.mosquitto_config import (
    FIRST_WITH_MQTT_5,
    FIRST_WITH_UNIX_SOCKETS,
    Version,
    configuration,
    password_line,
)
from broker.events import EventWriter
from broker.failures import AddressInUse, EngineFailed, EngineMissing
from broker.lifeline import SIGNALS_S, Lifeline
from broker.listeners import ports, private
from broker.listeners.probe import lets_in
from broker.settings import Settings

START_S = 10.0
STOP_S = 0.4
ATTEMPTS_AT_A_FREE_PORT = 10

_USUAL_PLACES = (
    "/usr/sbin",
    "/usr/local/sbin",
    "/usr/local/bin",
    "/opt/homebrew/sbin",
    "/opt/local/sbin",
    r"C:\Program Files\mosquitto",
)
_TAKEN = re.compile(r"address already in use|only one usage of each socket address", re.IGNORECASE)
_WORTH_AN_EVENT = re.compile(
    r"^error|^warning|dropped|exceeded timeout|oversize|too large|protocol error|malformed|out of memory"
    r"|not authori[sz]ed|already connected",
    re.IGNORECASE,
)
_OF_NO_INTEREST = re.compile(
    r"^New connection from|^New client connected|^Client .* (closed its connection|disconnected(: .*)?)\.$"
    r"|should not be run as root|^mosquitto version .* (starting|running|terminating)|^Config loaded|^Opening "
    r"|^Socket error on client"
    r"|Unable to set TCP_NODELAY",  # it tries for Unix sockets, too, which have no Nagle
)


def find() -> str | None:
    """The path of a mosquitto program, or None where there is none."""
    name = "mosquitto.exe" if os.name == "nt" else "mosquitto"
    folders = [*os.environ.get("PATH", "").split(os.pathsep), *_USUAL_PLACES]
    candidates = (os.path.join(folder, name) for folder in folders if folder)
    return next((path for path in candidates if os.path.isfile(path) and os.access(path, os.X_OK)), None)


def version_of(program: str) -> Version:
    """What the program says it is; `EngineMissing` where that is nothing that speaks MQTT 5."""
    try:
        said = subprocess.run([program, "-h"], capture_output=True, timeout=START_S, check=False).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineMissing(f"Cannot run {program}: {error}.") from error
    found = re.search(rb"mosquitto version (\d+)\.(\d+)\.(\d+)", said)
    version = (int(found[1]), int(found[2]), int(found[3])) if found else (0, 0, 0)
    if version < FIRST_WITH_MQTT_5:
        raise EngineMissing(f"{program} is no mosquitto of version 1.6 or later: it knows no MQTT 5.")
    return version


def serve(settings: Settings, announcer: EventWriter, lifeline: Lifeline) -> None:
    """Run mosquitto until the lifeline is pulled; raises `BrokerFailure` when it will not start or ends by itself."""
    program = find()
    if program is None:
        raise EngineMissing("No mosquitto program is installed here: install one, or use the engine amqtt.")
    folder = settings.private_dir or private.create()
    try:
        _Supervisor(settings, announcer, lifeline, program, folder).run()
    finally:
        if settings.private_dir is None:
            private.remove(folder)


class _Supervisor:
    """One mosquitto from its start to its end. Lines, its end and the wish to stop arrive in one inbox."""

    def __init__(
        self, settings: Settings, announcer: EventWriter, lifeline: Lifeline, program: str, folder: str
    ) -> None:
        self._settings, self._announcer, self._lifeline = settings, announcer, lifeline
        self._program, self._folder = program, folder
        self._version = version_of(program)
        unix_sockets = os.name == "posix" and self._version >= FIRST_WITH_UNIX_SOCKETS
        self._unix_socket = settings.unix_socket if unix_sockets else None
        self._inbox: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._last_words: list[str] = []
        self._announced = False
        self._lan_port: int | None = None
        self._websocket_port: int | None = None

    def run(self) -> None:
        try:
            if (port := self._start()) is not None:
                self._announce(port)
                self._until_stopped()
        finally:
            self._end()

    def _start(self) -> int | None:
        """The port of a mosquitto that lets clients in, or None if the lifeline was pulled before."""
        private.write(
            self._folder,
            "users",
            password_line(self._settings.username, self._settings.password, self._version),
        )
        settings = self._settings
        attempts = 1 if settings.port and (settings.lan_port or not settings.lan_host) else ATTEMPTS_AT_A_FREE_PORT
        for _ in range(attempts):
            port = settings.port or ports.free(settings.host)
            self._lan_port = ports.for_lan(settings.lan_host, settings.lan_port) if settings.lan_host else None
            self._websocket_port = ports.for_websocket(settings.lan_host, settings.websocket_port)
            self._launch(port)
            came = self._wait_for_start(port)
            if came != "taken":
                return port if came == "running" else None
            self._end()
        raise AddressInUse(settings.host, port)

    def _launch(self, port: int) -> None:
        socket_path = self._unix_socket
        if socket_path is not None and os.path.dirname(socket_path) == self._folder:
            socket_path = os.path.basename(socket_path)  # a relative name survives a folder with spaces in its name
        others = self._lan_port, self._websocket_port
        text = configuration(self._settings, port, self._version, socket_path, *others)
        private.write(self._folder, "mosquitto.conf", text)
        self._last_words.clear()
        self._process = orphans.spawn([self._program, "-c", "mosquitto.conf"], self._folder)
        if self._reader is None:
            self._lifeline.watch(lambda: self._inbox.put("stop"))
        self._reader = threading.Thread(target=self._read_log, args=(self._process,), name="log", daemon=True)
        self._reader.start()

    def _wait_for_start(self, port: int) -> str:
        settings, deadline = self._settings, time.monotonic() + START_S
        came = self._next(deadline)
        if came == "running" and not lets_in(settings.host, port, settings.username, settings.password):
            raise EngineFailed("mosquitto runs but lets nobody in with the user and password of the settings.")
        if came == "ended" and _TAKEN.search(" ".join(self._last_words)):
            return "taken"
        if came == "ended":
            raise EngineFailed(f"mosquitto would not start: {self._said()}")
        return came

    def _next(self, deadline: float) -> str:
        try:
            return self._inbox.get(timeout=deadline - time.monotonic())
        except queue.Empty:
            raise EngineFailed(f"mosquitto did not say within {START_S:.0f} s that it runs.") from None

    def _announce(self, port: int) -> None:
        assert self._process is not None
        self._announcer.ready(
            engine="mosquitto",
            version=".".join(map(str, self._version)),
            host=self._settings.host,
            port=port,
            unix_socket=self._unix_socket,
            protocols=["3.1.1", "5"],
            max_packet_bytes=self._settings.max_packet_bytes,
            pid=self._process.pid,
            lan_host=self._settings.lan_host,
            lan_port=self._lan_port,
            websocket_port=self._websocket_port,
        )
        self._announced = True
        for line in self._last_words:  # before that they were the explanation of a start that failed, or of a retry
            self._pass_on(line)

    def _until_stopped(self) -> None:
        while (came := self._came()) != "stop":
            if came == "ended":
                raise EngineFailed(f"mosquitto ended by itself: {self._said()}")

    def _came(self) -> str:
        """In short waits: see `lifeline.SIGNALS_S`."""
        while True:
            try:
                return self._inbox.get(timeout=SIGNALS_S)
            except queue.Empty:
                continue

    def _said(self) -> str:
        assert self._process is not None
        code = self._process.wait(STOP_S)
        return " ".join(self._last_words) or f"it said nothing and its exit code is {code}."

    def _read_log(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        for raw in process.stderr:
            self._hear(raw.decode(errors="replace").rstrip())
        self._inbox.put("ended")

    def _hear(self, line: str) -> None:
        if re.search(r"^mosquitto version .* running", line):
            self._inbox.put("running")
        if _OF_NO_INTEREST.search(line):
            return
        self._last_words = [*self._last_words[-4:], line]
        if self._announced:
            self._pass_on(line)

    def _pass_on(self, line: str) -> None:
        print(f"mosquitto: {line}", file=sys.stderr, flush=True)
        if _WORTH_AN_EVENT.search(line):
            self._announcer.warning(f"mosquitto: {line}")

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        orphans.release(process)
        if self._unix_socket is not None:
            private.remove_file(self._unix_socket)  # one that was killed leaves it
