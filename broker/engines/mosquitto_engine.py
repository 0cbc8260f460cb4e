"""Supervises a mosquitto program: finds it, configures it, reports when a client can connect, and stops it.

How it works. The main thread waits at a queue of three words: "running" and "ended" come from the thread that reads
mosquitto's log, "stop" comes from the lifeline. A port of 0 is replaced by a free one before the start; where another
program takes it in between, mosquitto ends with "address already in use", and the next attempt takes another port.

Promise: at the ready line, mosquitto's log says "running" and a CONNECT with the session's credentials was accepted.
Errors and warnings of its log become events. It is asked to stop, and killed after `STOP_S` seconds.
The trap: its log is a pipe. Mosquitto blocks when the pipe is full, so one thread does nothing but read it.
"""

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time

from broker import orphans
from broker.engines.mosquitto_config import (
    FIRST_WITH_MQTT_5,
    FIRST_WITH_UNIX_SOCKETS,
    Version,
    acl,
    configuration,
    password_line,
)
from broker.events import EventWriter
from broker.failures import AddressInUse, EngineFailed, EngineMissing, SettingsRefused
from broker.lifeline import SIGNALS_S, Lifeline
from broker.listeners import ports, private
from broker.listeners.probe import lets_in
from broker.settings import Settings, changed_rights, revoked_users

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
_REPORTED = re.compile(
    r"^error|^warning|dropped|exceeded timeout|oversize|too large|protocol error|malformed|out of memory"
    r"|not authori[sz]ed|already connected",
    re.IGNORECASE,
)
_ROUTINE = re.compile(
    r"^New connection from|^New client connected|^Client .* (closed its connection|disconnected(: .*)?)\.$"
    r"|should not be run as root|^mosquitto version .* (starting|running|terminating)|^Config loaded|^Opening "
    r"|^Socket error on client"
    r"|Unable to set TCP_NODELAY",  # mosquitto sets it for Unix sockets, too, which do not have it
)


_ENTERED = re.compile(r"New client connected from \S+ as (.*) \(p\d+, c\d+, k\d+, u'([^']*)'\)\.$")
_LEFT = re.compile(r"Client (.*) (?:disconnected.*|closed its connection\.|has exceeded timeout, disconnecting\.)$")
"""Greedy: what a client id looks like is the client's choice, what stands around it is mosquitto's."""


class _Members:
    """Under which ids the users are here, and whose certificates were taken back. From two threads."""

    def __init__(self) -> None:
        self._user_of: dict[str, str] = {}
        self._revoked: frozenset[str] = frozenset()
        self._lock = threading.Lock()

    def hear(self, line: str) -> str | None:
        """A line of mosquitto's log. Gives the client id that has to go at once: it came before mosquitto had read who
        may not."""
        with self._lock:
            if (entered := _ENTERED.match(line)) is not None:
                self._user_of[entered[1]] = entered[2]
                return entered[1] if entered[2] in self._revoked else None
            if (left := _LEFT.match(line)) is not None:
                self._user_of.pop(left[1], None)
        return None

    def revoke(self, users: frozenset[str]) -> list[str]:
        """From now on these users may not be here; the ids under which they are."""
        with self._lock:
            self._revoked = users
            return [client_id for client_id, user in self._user_of.items() if user in users]


def _stamps(settings: Settings) -> list[tuple[int, int]]:
    """Differs after each change of the certificates' files."""
    paths = (settings.tls_certificate, settings.tls_key, settings.tls_client_ca, settings.tls_crl)
    found = [os.stat(path) for path in paths if path is not None and os.path.exists(path)]
    return [(status.st_mtime_ns, status.st_size) for status in found]


def find() -> str | None:
    """The path of a mosquitto program, or None where there is none."""
    name = "mosquitto.exe" if os.name == "nt" else "mosquitto"
    folders = [*os.environ.get("PATH", "").split(os.pathsep), *_USUAL_PLACES]
    candidates = (os.path.join(folder, name) for folder in folders if folder)
    return next((path for path in candidates if os.path.isfile(path) and os.access(path, os.X_OK)), None)


def version_of(program: str) -> Version:
    """The program's version. Raises `EngineMissing` where it cannot be run or speaks no MQTT 5."""
    try:
        output = subprocess.run([program, "-h"], capture_output=True, timeout=START_S, check=False).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineMissing(f"Cannot run {program}: {error}.") from error
    found = re.search(rb"mosquitto version (\d+)\.(\d+)\.(\d+)", output)
    version = (int(found[1]), int(found[2]), int(found[3])) if found else (0, 0, 0)
    if version < FIRST_WITH_MQTT_5:
        raise EngineMissing(f"{program} is no mosquitto of version 1.6 or later: it knows no MQTT 5.")
    return version


def serve(settings: Settings, events: EventWriter, lifeline: Lifeline) -> None:
    """Run mosquitto until the lifeline asks for the end. Raises `BrokerFailure` where it does not start or ends by
    itself."""
    program = find()
    if program is None:
        raise EngineMissing("No mosquitto program is installed here: install one, or use the engine amqtt.")
    folder = settings.private_dir or private.create()
    try:
        _Supervisor(settings, events, lifeline, program, folder).run()
    finally:
        if settings.private_dir is None:
            private.remove(folder)


class _Supervisor:
    """One mosquitto from its start to its end; see the module's docstring for the words of `_inbox`."""

    def __init__(self, settings: Settings, events: EventWriter, lifeline: Lifeline, program: str, folder: str) -> None:
        self._settings, self._events, self._lifeline = settings, events, lifeline
        self._program, self._folder = program, folder
        self._version = version_of(program)
        unix_sockets = os.name == "posix" and self._version >= FIRST_WITH_UNIX_SOCKETS
        self._unix_socket = settings.unix_socket if unix_sockets else None
        self._inbox: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._last_lines: list[str] = []
        self._announced = False
        self._port = settings.port
        self._lan_port: int | None = None
        self._members = _Members()
        self._read_at_start: object = None
        self._websocket_port: int | None = None

    def run(self) -> None:
        try:
            if (port := self._start()) is not None:
                self._announce(port)
                self._until_stopped()
        finally:
            self._end()

    def _start(self) -> int | None:
        """The port of a mosquitto that accepts clients, or None where the end was asked for during the start."""
        self._write_rights(self._settings)
        settings = self._settings
        attempts = 1 if settings.port and (settings.lan_port or not settings.lan_host) else ATTEMPTS_AT_A_FREE_PORT
        for _ in range(attempts):
            port = settings.port or ports.free(settings.host)
            self._lan_port = self._free_lan_port(settings.lan_host) if settings.lan_host else None
            self._websocket_port = ports.for_websocket(settings.lan_host, settings.websocket_port)
            self._launch(port)
            outcome = self._wait_for_start(port)
            if outcome != "taken":
                return port if outcome == "running" else None
            self._end()
        raise AddressInUse(settings.host, port)

    def _free_lan_port(self, host: str) -> int:
        return ports.for_lan(host, self._settings.lan_port, tls=self._settings.tls_certificate is not None)

    def _launch(self, port: int) -> None:
        self._port = port
        self._write_configuration(self._settings, port)
        self._last_lines.clear()
        self._read_at_start = _stamps(self._settings)
        self._process = orphans.spawn([self._program, "-c", "mosquitto.conf"], self._folder)
        if self._reader is None:
            self._lifeline.watch(lambda: self._inbox.put("stop"), self._take_command)
        self._reader = threading.Thread(target=self._read_log, args=(self._process,), name="log", daemon=True)
        self._reader.start()

    def _write_configuration(self, settings: Settings, port: int) -> None:
        socket_path = self._unix_socket
        if socket_path is not None and os.path.dirname(socket_path) == self._folder:
            socket_path = os.path.basename(socket_path)  # a relative name survives a folder with spaces in its name
        others = self._lan_port, self._websocket_port
        text = configuration(settings, port, self._version, socket_path, *others)
        private.write(self._folder, "mosquitto.conf", text)

    def _write_rights(self, settings: Settings) -> None:
        """Write the files of users and rights, in this order: who has no rights yet may do nothing."""
        users = {settings.username: settings.password, **settings.users}
        lines = (password_line(user, password, self._version) for user, password in users.items())
        private.write(self._folder, "acl", acl(settings))
        private.write(self._folder, "users", "".join(lines))

    def _wait_for_start(self, port: int) -> str:
        """What the start ended with: "running", "stop", or "taken" for a port of another program."""
        settings, deadline = self._settings, time.monotonic() + START_S
        word = self._next(deadline)
        if word == "running" and not lets_in(settings.host, port, settings.username, settings.password):
            raise EngineFailed("mosquitto runs but lets nobody in with the user and password of the settings.")
        if word == "ended" and _TAKEN.search(" ".join(self._last_lines)):
            return "taken"
        if word == "ended":
            raise EngineFailed(f"mosquitto would not start: {self._explanation()}")
        return word

    def _next(self, deadline: float) -> str:
        try:
            return self._inbox.get(timeout=deadline - time.monotonic())
        except queue.Empty:
            raise EngineFailed(f"mosquitto did not say within {START_S:.0f} s that it runs.") from None

    def _announce(self, port: int) -> None:
        assert self._process is not None
        self._events.ready(
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
        for line in self._last_lines:  # held back until now: a failed attempt would have explained itself by them
            self._pass_on(line)

    def _until_stopped(self) -> None:
        while (word := self._next_word()) != "stop":
            if word == "ended":
                raise EngineFailed(f"mosquitto ended by itself: {self._explanation()}")

    def _next_word(self) -> str:
        """The next word of the inbox. Waits in short pieces: see `lifeline.SIGNALS_S`."""
        while True:
            try:
                return self._inbox.get(timeout=SIGNALS_S)
            except queue.Empty:
                continue

    def _take_command(self, line: bytes) -> None:
        """A line of the lifeline that is no `stop`: whose certificates were taken back or made anew, or users and
        rights that hold from now on. On the lifeline's thread."""
        command = "rights"
        try:
            revoked = revoked_users(line)
            if revoked is None:
                self._change_rights(changed_rights(line, self._settings))
            else:
                command = "trust"
                self._change_trust(revoked)
        except (SettingsRefused, OSError) as refused:
            self._events.answered(command, error=str(refused))
            return
        self._events.answered(command, error=None)

    def _change_rights(self, changed: Settings) -> None:
        """Mosquitto reads the files of users and rights again at SIGHUP, and disconnects who is no user any more."""
        process = self._process
        if process is None or not hasattr(signal, "SIGHUP"):
            raise SettingsRefused("this mosquitto cannot be told new rights while it runs; start it again.")
        self._write_rights(changed)
        self._write_configuration(changed, self._port)  # it names the file of rights from the first user on
        self._have_read(process)

    def _change_trust(self, revoked: frozenset[str]) -> None:
        """Mosquitto reads its certificates again, and lets nobody new in with those that were taken back; whoever is in
        with one is ended."""
        self._reload()
        for client_id in self._members.revoke(revoked):
            self._put_out(client_id)

    def _have_read(self, process: "subprocess.Popen[bytes]") -> None:
        """Return when mosquitto has read its files. A SIGHUP that comes while it reads them is lost (it forgets that
        one came when it has finished, 2.0.11), so two changes in a row were one, of the files of the first. A client
        that was let in since shows that it is through: accepting, and reading what comes, are two rounds of its loop,
        and between them it reads."""
        settings = self._settings
        process.send_signal(signal.SIGHUP)
        lets_in(settings.host, self._port, settings.username, settings.password)

    def _reload(self) -> None:
        """Let mosquitto read its certificates again. Where there is no signal for that, let it start again, unless it
        has read these: whoever starts it tells it at once what holds."""
        process = self._process
        if process is None:
            return
        if hasattr(signal, "SIGHUP"):
            self._have_read(process)
        elif _stamps(self._settings) != self._read_at_start:
            process.terminate()

    def _put_out(self, client_id: str) -> None:
        """End the connection of a client, by entering under its id: mosquitto has no command for it."""
        settings = self._settings
        lets_in(settings.host, self._port, settings.username, settings.password, client_id=client_id)

    def _explanation(self) -> str:
        assert self._process is not None
        code = self._process.wait(STOP_S)
        return " ".join(self._last_lines) or f"it said nothing and its exit code is {code}."

    def _read_log(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        for raw in process.stderr:
            self._on_log_line(raw.decode(errors="replace").rstrip())
        self._inbox.put("ended")

    def _on_log_line(self, line: str) -> None:
        if re.search(r"^mosquitto version .* running", line):
            self._inbox.put("running")
        if (client_id := self._members.hear(line)) is not None:
            self._put_out(client_id)
        if _ROUTINE.search(line):
            return
        self._last_lines = [*self._last_lines[-4:], line]
        if self._announced:
            self._pass_on(line)

    def _pass_on(self, line: str) -> None:
        print(f"mosquitto: {line}", file=sys.stderr, flush=True)
        if _REPORTED.search(line):
            self._events.warning(f"mosquitto: {line}")

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
            private.remove_file(self._unix_socket)  # mosquitto leaves it behind where it was killed
