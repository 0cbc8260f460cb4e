"""The certificates of a session's broker that other machines reach: made before it starts, exchanged while it runs.

How it works. The broker reads the lab's own files. A thread looks at the lab's list of members, and at the
broker's certificate, four times a second: a look is two `stat`s, and the command that changes the list (`ether revoke`)
need not know which brokers run. Where something was changed the broker is told to read its files again, and who may be
there no more. Once an hour the broker's own certificate is renewed where that is due.

Promise: a device whose certificate was taken back is out within a second, on either engine. The trap: the lab's clock
is this machine's. Certificates begin two days before they are made, so that a clock which is set back by less leaves
nobody outside.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from ether.config.broker import EVERYWHERE
from ether.errors import EtherError
from ether.log import get_ether_logger
from ether.security.certificates import facts_of, signing_request
from ether.session.discovery.mdns import own_addresses
from ether.session.renewal import take_renewed
from ether.session.trust.lab import LabAuthority, Member, ServerFiles
from ether.system.clock import wall_time
from ether.system.lab_folders import Membership, membership_of

logger = get_ether_logger("Ether")

LOOK_S = 0.25
RENEWAL_EVERY_S = 3600.0

Tell = Callable[[bytes], object]


class BrokerTrust:
    """What one broker is told of the lab, from its start to `close()`."""

    def __init__(self, environment: Mapping[str, str], lan_host: str) -> None:
        """Makes the lab where there is none yet. Raises `ConfigError`, `LabRefused`."""
        self.lab = LabAuthority.load_or_make(environment, wall_time())
        self._lan_host = lan_host
        self._files = self._server_files()
        self._closing = threading.Event()
        self._tell: Tell | None = None
        self._told: object = None
        self._keys = _keys(self.lab.members())
        self._own = membership_of(self.lab.id, environment)
        self._own_problem = ""
        self.on_change: Callable[[], object] | None = None
        """Called on the watching thread after the broker was told of a change."""
        self._thread: threading.Thread | None = None

    def settings(self) -> dict[str, Any]:
        """The keys of the broker's settings file."""
        return {
            "tls_certificate": self._files.certificate,
            "tls_key": self._files.key,
            "tls_client_ca": self._files.authority,
            "tls_crl": self._files.revoked,
            "tls_identity": True,
        }

    def devices(self) -> tuple[str, ...]:
        """The names of the other machines that may be here."""
        return tuple(name for name in sorted(_keys(self.lab.members())) if name != self.own_name)

    def passwords(self) -> dict[str, str]:
        """The passwords of the devices that hold no certificate. Raises `LabRefused`."""
        return self.lab.passwords()

    @property
    def id(self) -> str:
        """The lab's name among labs."""
        return self.lab.id

    def due(self) -> list[str]:
        """The other machines whose certificates are to be renewed; this machine's own one is renewed by this. Raises
        `LabRefused`, `NotSigned`, `OSError`."""
        due = self.lab.due(wall_time())
        if self._own is not None and self._own.name in due:
            self._renew_own(self._own)
        return [name for name in due if name != self.own_name]

    def _renew_own(self, own: Membership) -> None:
        """Where this machine's own one cannot be renewed, those of the others are all the same."""
        try:
            with open(own.key, "rb") as file:
                take_renewed(own, self.lab.renew(signing_request(file.read()), wall_time()))
        except (EtherError, OSError, ValueError) as error:
            if str(error) != self._own_problem:
                logger.warning("this machine's own certificate %s is not renewed: %s", own.certificate, error)
            self._own_problem = str(error)

    def sign(self, request_pem: bytes) -> tuple[str, bytes]:
        """The device that has this key, and its new certificate. Raises `LabRefused`, `NotSigned`."""
        signed = self.lab.renew(request_pem, wall_time())
        return facts_of(signed).name, signed

    @property
    def own_name(self) -> str | None:
        """The name of this machine in its own lab."""
        return None if self._own is None else self._own.name

    def watch(self, tell: Tell, port: int | None) -> None:
        """From now on tell this broker, which listens to other machines at `port`, what changes, also what has changed
        since it read its files."""
        self.lab.note_broker(port)
        self._told, self._tell = None, tell
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="ether-trust", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Watch no more. Twice is fine."""
        self._closing.set()
        self.lab.note_broker(None)
        if self._thread is not None:
            self._thread.join(2.0)

    def _run(self) -> None:
        renewal = time.monotonic() + RENEWAL_EVERY_S
        while not self._closing.wait(LOOK_S):
            try:
                if time.monotonic() >= renewal:
                    renewal = time.monotonic() + RENEWAL_EVERY_S
                    self._renew()
                self._look()
            except (EtherError, OSError, ValueError) as error:
                logger.error("the lab's list of members cannot be followed: %s", error)
                self._closing.wait(10 * LOOK_S)

    def _look(self) -> None:
        # The certificate is the lab's: another session's broker on this machine may have renewed it.
        changed, tell = (self.lab.changed, _written(self._files)), self._tell
        if changed == self._told or tell is None:
            return
        members = self.lab.members()
        revoked, keys = [name for name, each in members.items() if each.revoked is not None], _keys(members)
        # A name that was given to another device: who is here under it is put out, then it may come.
        given = [name for name, key in keys.items() if self._keys.get(name, key) != key]
        self._told, self._keys = changed, keys
        for names in (revoked + given, revoked) if given else (revoked,):
            tell(json.dumps({"command": "trust", "revoked": sorted(names)}).encode() + b"\n")
        if self.on_change is not None:
            self.on_change()

    def _renew(self) -> None:
        """Renew the broker's certificate where that is due, or its machine has other addresses now; `_look` sees it."""
        self._files = self._server_files()

    def _server_files(self) -> ServerFiles:
        addresses = own_addresses() if self._lan_host == EVERYWHERE else [self._lan_host]
        return self.lab.server_files(socket.gethostname(), ["127.0.0.1", *addresses], wall_time())


def _keys(members: Mapping[str, Member]) -> dict[str, str]:
    """The key of each device that may be here, by its name."""
    return {name: member.fingerprint for name, member in members.items() if member.revoked is None}


def _written(files: ServerFiles) -> int:
    return os.stat(files.certificate).st_mtime_ns
