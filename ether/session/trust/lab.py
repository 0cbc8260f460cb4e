"""The lab that this machine has made: the authority's files, its members, and whose certificates were taken back.

    authority.pem, authority.key    the lab itself; the key with a passphrase where ETHER_LAB_PASSPHRASE had one
    server.pem, server.key          the certificate of a session's broker on this machine
    revoked.pem                     what was taken back, as the broker reads it
    passwords.json                  of the members that cannot hold a certificate, where there are any
    members.json                    the members; its last change is what a running broker watches

Promise: each change is whole, and one at a time: a lock of the folder is held meanwhile, and `members.json` is written
last. The trap: whoever can read `authority.key` is the lab. It is 0600 in a folder of 0700; a passphrase protects it
where disks are copied, and is then needed to let devices in and to renew.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from ether.errors import ConfigError, EtherError
from ether.log import get_ether_logger
from ether.security import certificates as certs
from ether.security.certificates import Authority, NotSigned
from ether.security.lab_key import VARIABLE as KEY_VARIABLE
from ether.security.lab_key import key_file
from ether.system.lab_folders import (
    AUTHORITY,
    CERTIFICATE,
    KEY,
    authority_folder,
    membership_of,
    write_bytes,
    write_membership,
)  # fmt: skip
from ether.system.private_files import is_own, read_private, write_private
from ether.system.processes import birth_of, is_running

logger = get_ether_logger("Ether")

PASSPHRASE_VARIABLE = "ETHER_LAB_PASSPHRASE"
AUTHORITY_KEY, SERVER, SERVER_KEY, REVOKED, MEMBERS = (
    "authority.key", "server.pem", "server.key", "revoked.pem", "members.json",
)  # fmt: skip
PASSWORDS = "passwords.json"
BY_PASSWORD = "password-"
"""In place of a key's fingerprint, with a number of its own for each password."""
_PASSWORD_BYTES = 20
_DAY_S = 86_400.0
SERVER_RENEWED_WITH_DAYS_LEFT = 30
DEVICE_RENEWED_WITH_DAYS_LEFT = 30
_SERIALS = 15
"""A certificate is renewed every 60 days at most, and holds for 455: no more of them can be good at a time."""
_MOST_ADDRESSES = 32
_MOST_BYTES = 16 * 1024 * 1024


class LabRefused(EtherError, RuntimeError):
    """The lab of this machine cannot do what was asked; the message says what to type."""


class NoMember(EtherError, LookupError):
    """There is no device of this name in the lab."""

    def __init__(self, name: str, members: Sequence[str]) -> None:
        self.name = name
        known = ", ".join(members) or "none"
        super().__init__(f"there is no member {name!r} in this lab; members are: {known}. `ether members` shows them.")


@dataclass(frozen=True, slots=True)
class Member:
    """A device of the lab. `fingerprint` is that of its key; `serials` are of its certificates that have not ended, of
    which the last one counts; times in unix seconds."""

    name: str
    fingerprint: str
    serials: tuple[int, ...]
    host: str
    since: float
    ends: float
    revoked: float | None = None

    @property
    def has_password(self) -> bool:
        """Whether it has a password, because it cannot hold a certificate."""
        return self.fingerprint.startswith(BY_PASSWORD)


@dataclass(frozen=True, slots=True)
class ServerFiles:
    """What a broker needs to know this lab's devices, as paths."""

    certificate: str
    key: str
    authority: str
    revoked: str


class LabAuthority:
    """One machine's lab. Made by `load` or `load_or_make`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.folder = authority_folder(environment)
        self._environment = dict(environment)

    @classmethod
    def load(cls, environment: Mapping[str, str]) -> LabAuthority | None:
        """The lab of this user on this machine; None where there is none. Raises `ConfigError` for a folder that others
        can write to."""
        lab = cls(environment)
        try:
            status = os.stat(lab.folder)
        except OSError:
            return None
        if not is_own(status):
            raise ConfigError(f"the lab in {lab.folder} can be changed by others: make it yours alone (chmod 700).")
        return lab if os.path.exists(lab._path(MEMBERS)) else None

    @classmethod
    def load_or_make(cls, environment: Mapping[str, str], now: float) -> LabAuthority:
        """The lab, made now where there is none. Raises `ConfigError`."""
        if (known := cls.load(environment)) is not None:
            return known
        lab = cls(environment)
        try:
            os.makedirs(lab.folder, mode=0o700, exist_ok=True)
            with lab._alone():
                if not os.path.exists(lab._path(MEMBERS)):
                    lab._make(environment, now)
        except OSError as error:
            raise ConfigError(f"the lab cannot be written to {lab.folder}: {error.strerror or error}.") from error
        return lab

    def _make(self, environment: Mapping[str, str], now: float) -> None:
        """Write everything that is missing, and make this machine its first member."""
        host = socket.gethostname()
        authority = Authority.make(f"Ether lab of {host}", now)
        write_bytes(self._path(AUTHORITY_KEY), authority.key_pem(environment.get(PASSPHRASE_VARIABLE) or None))
        write_bytes(self._path(AUTHORITY), authority.certificate_pem)
        self.__dict__["authority"] = authority
        key, name = certs.make_key(), _name_of(host)
        signed = authority.sign_device(certs.signing_request(key), name, now)
        facts = certs.facts_of(signed)
        files = {AUTHORITY: authority.certificate_pem, CERTIFICATE: signed, KEY: key}
        write_membership(authority.id, name, host, files, environment)
        self._write({name: _member(facts, host, now)}, [], 1, now)
        logger.info("This machine is a lab now (%s): other machines join by `ether pair NAME` here.", self.folder)
        if environment.get(KEY_VARIABLE) or os.path.exists(key_file(environment)):
            logger.warning(
                "the lab key (%s) opens this session no more: it is encrypted, and knows machines by their certificate;"
                " for each of them type `ether pair NAME` here and `ether join TOKEN` there",
                KEY_VARIABLE if environment.get(KEY_VARIABLE) else key_file(environment),
            )

    # -- what it is

    @cached_property
    def authority(self) -> Authority:
        """The authority with its key. Raises `LabRefused`."""
        try:
            files = [_read(self._path(name)) for name in (AUTHORITY, AUTHORITY_KEY)]
            return Authority.from_pem(files[0], files[1], os.environ.get(PASSPHRASE_VARIABLE) or None)
        except NotSigned as error:
            advice = f"set {PASSPHRASE_VARIABLE} to its passphrase" if "passphrase" in str(error) else "restore it"
            raise LabRefused(f"the lab's key {self._path(AUTHORITY_KEY)} cannot be used: {error}; {advice}.") from error
        except OSError as error:
            raise LabRefused(f"the lab's key cannot be read: {error}.") from error

    @property
    def authority_pem(self) -> bytes:
        """The lab's certificate, which is no secret. Raises `OSError`."""
        return _read(self._path(AUTHORITY))

    @property
    def id(self) -> str:
        """The lab's name among labs. Raises `NotSigned`, `OSError`."""
        return certs.lab_id(self.authority_pem)

    @property
    def changed(self) -> tuple[int, int]:
        """Differs after each change of members and certificates."""
        try:
            status = os.stat(self._path(MEMBERS))
        except OSError:
            return 0, 0
        return status.st_mtime_ns, status.st_ino

    def members(self) -> dict[str, Member]:
        """The devices by name, those included whose certificates were taken back. Raises `LabRefused`."""
        return self._read()[0]

    # -- what is asked of it

    def admit(self, request_pem: bytes, name: str, host: str, now: float) -> bytes:
        """Sign the certificate of a device that was let in. A device that had the name before has it no more. Raises
        `LabRefused`, `NotSigned`, `ConfigError`."""
        self.refuse_own(name)
        with self._alone():
            members, revoked, number = self._read()
            signed = self.authority.sign_device(request_pem, name, now)
            if (before := members.get(name)) is not None:
                revoked += [serial for serial in before.serials if serial not in revoked]
                self._forget_password(before)
            members[name] = _member(certs.facts_of(signed), host, now)
            self._write(members, revoked, number + 1, now)
        return signed

    def admit_by_password(self, name: str, now: float) -> str:
        """A password for one device that cannot hold a certificate: nobody else has it, and it is good at the broker's
        `password_port` alone. A device that had the name before has it no more. Raises `LabRefused`, `ConfigError`."""
        certs.check_device_name(name)
        self.refuse_own(name, by_password=True)
        with self._alone():
            members, revoked, number = self._read()
            if (before := members.get(name)) is not None:
                revoked += [serial for serial in before.serials if serial not in revoked]
            password, mark = secrets.token_urlsafe(_PASSWORD_BYTES), f"{BY_PASSWORD}{secrets.token_hex(4)}"
            ends = certs.facts_of(self.authority_pem).ends
            members[name] = Member(name, mark, (), "", now, ends)
            write_private(self._path(PASSWORDS), {**self._passwords(), name: password})
            self._write(members, revoked, number + 1, now)
        return password

    def refuse_own(self, name: str, *, by_password: bool = False) -> None:
        """Raises `ConfigError` for this machine's own name: by it the broker knows who may do everything, and to give
        it to a device would take this machine's own certificate back. Where that was taken back already, this machine
        may come in anew, by a certificate. Raises `LabRefused`."""
        own = membership_of(self.id, self._environment)
        if own is None or own.name != name:
            return
        member = self.members().get(name)
        if by_password or member is None or member.revoked is None:
            raise ConfigError(
                f"{name} is this machine itself, which leads its lab: take another name for the device. (To pair this"
                f" machine with itself anew, because its certificate is lost: `ether revoke {name}` first.)"
            )

    def passwords(self) -> dict[str, str]:
        """The passwords of the members that have one, by name. Raises `LabRefused`."""
        known, members = self._passwords(), self.members()
        return {
            name: known[name]
            for name, each in members.items()
            if each.has_password and each.revoked is None and name in known
        }

    def _passwords(self) -> dict[str, str]:
        try:
            value: Any = read_private(self._path(PASSWORDS), _MOST_BYTES)
            return {str(name): str(password) for name, password in value.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError) as error:
            raise LabRefused(f"the passwords {self._path(PASSWORDS)} cannot be read: {error}.") from error

    def _forget_password(self, member: Member) -> None:
        if member.has_password:
            left = {name: each for name, each in self._passwords().items() if name != member.name}
            write_private(self._path(PASSWORDS), left)

    def revoke(self, name: str, now: float) -> Member:
        """Take a device's certificates back. Raises `NoMember`, `LabRefused`."""
        with self._alone():
            members, revoked, number = self._read()
            member = members.get(name)
            if member is None:
                raise NoMember(name, [each.name for each in members.values() if each.revoked is None])
            self._forget_password(member)
            members[name] = member = replace(member, revoked=member.revoked or now)
            revoked += [serial for serial in member.serials if serial not in revoked]
            self._write(members, revoked, number + 1, now)
        return member

    def due(self, now: float) -> list[str]:
        """The devices whose certificates end soon, or have ended. Raises `LabRefused`."""
        return [name for name, each in self.members().items() if each.revoked is None and _is_due(each, now)]

    def renew(self, request_pem: bytes, now: float) -> bytes:
        """A new certificate for the device whose key has signed the request: nobody else could use it. Raises
        `LabRefused` where this key is no member's, was taken back, or needs none yet; `NotSigned`."""
        fingerprint = certs.fingerprint_of_request(request_pem)
        with self._alone():
            members, revoked, number = self._read()
            member = next((each for each in members.values() if each.fingerprint == fingerprint), None)
            if member is None or member.revoked is not None:
                what = "of no member" if member is None else f"of {member.name!r}, which was taken back"
                raise LabRefused(f"the key {fingerprint} is {what}: type `ether pair NAME` on {socket.gethostname()}.")
            if not _is_due(member, now):  # each certificate that is given has to be remembered, to be taken back
                raise LabRefused(f"the certificate of {member.name!r} needs no renewal yet.")
            signed = self.authority.sign_device(request_pem, member.name, now)
            facts = certs.facts_of(signed)
            serials = (*member.serials[-_SERIALS:], facts.serial)
            members[member.name] = replace(member, serials=serials, ends=_end_of(facts))
            self._write(members, revoked, number, now, list_too=False)
        return signed

    def server_files(self, host: str, addresses: Sequence[str], now: float) -> ServerFiles:
        """The files of a broker on this machine, renewed where that is due, or where its addresses are new. Raises
        `LabRefused`."""
        files = ServerFiles(*(self._path(name) for name in (SERVER, SERVER_KEY, AUTHORITY, REVOKED)))
        with self._alone():
            if not self._server_is_due(host, addresses, now):
                return files
            addresses = self._with_earlier(host, addresses)
            wanted = f"{host} {' '.join(addresses)}\n".encode()
            key = _read(files.key) if os.path.exists(files.key) else certs.make_key()
            try:
                signed = self.authority.sign_server(key, host, addresses, now)
            except LabRefused as error:
                if os.path.exists(files.certificate):
                    logger.warning("the broker's certificate cannot be renewed: %s", error)
                    return files
                raise
            write_bytes(files.key, key)
            write_bytes(files.certificate, signed)
            write_bytes(self._path("server.names"), wanted)
        return files

    def _server_is_due(self, host: str, addresses: Sequence[str], now: float) -> bool:
        try:
            ends = certs.facts_of(_read(self._path(SERVER))).ends
        except (OSError, NotSigned):
            return True
        known = self._names()
        is_new = known[:1] != [host] or not set(addresses) <= set(known[1:])
        return is_new or ends - now < SERVER_RENEWED_WITH_DAYS_LEFT * _DAY_S

    def _names(self) -> list[str]:
        """The host name and the addresses in the broker's certificate."""
        try:
            return _read(self._path("server.names")).decode("ascii", "replace").split()
        except OSError:
            return []

    def _with_earlier(self, host: str, addresses: Sequence[str]) -> list[str]:
        """The addresses, and those of before: two sessions of this machine that listen at different addresses have one
        certificate, which each would else sign over for the other."""
        known = self._names()
        before = known[1:] if known[:1] == [host] else []
        return list(dict.fromkeys((*addresses, *before)))[:_MOST_ADDRESSES]

    # -- brokers of this machine

    def note_broker(self, port: int | None) -> None:
        """This process runs a broker that other machines reach at this port; None: no more. What is noted helps devices
        that join; where it cannot be written they look for themselves."""
        path = self._path(f"broker-{os.getpid()}.json")
        try:
            if port is None:
                os.unlink(path)
            else:
                write_private(path, {"port": port, "pid": os.getpid(), "pid_started": birth_of(os.getpid())})
        except OSError:
            return

    def broker_ports(self) -> list[int]:
        """The ports of the brokers that run now. Notes of dead processes are removed."""
        ports = []
        for name in sorted(os.listdir(self.folder)):
            if not name.startswith("broker-"):
                continue
            with suppress(OSError, ValueError, TypeError, KeyError):
                noted: Any = read_private(self._path(name))
                if is_running(int(noted["pid"]), noted["pid_started"]):
                    ports.append(int(noted["port"]))
                else:
                    os.unlink(self._path(name))
        return ports

    # -- files

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def _read(self) -> tuple[dict[str, Member], list[int], int]:
        """The members, the serials of what was taken back, and the number of that list."""
        try:
            value: Any = read_private(self._path(MEMBERS), _MOST_BYTES)
            members = {each["name"]: Member(**{**each, "serials": tuple(each["serials"])}) for each in value["members"]}
            return members, [int(serial) for serial in value["revoked"]], int(value["number"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise LabRefused(f"the list of members {self._path(MEMBERS)} cannot be read: {error}.") from error

    def _write(
        self, members: Mapping[str, Member], revoked: list[int], number: int, now: float, *, list_too: bool = True
    ) -> None:
        if list_too:
            write_bytes(self._path(REVOKED), self.authority.revocation_list(revoked, number, now))
        listed = [asdict(member) for member in members.values()]
        write_private(self._path(MEMBERS), {"members": listed, "revoked": revoked, "number": number})

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Within the block no other process of this user changes the lab."""
        with open(os.open(self._path("lock"), os.O_RDWR | os.O_CREAT, 0o600), "rb+") as file:
            try:
                import fcntl
            except ImportError:  # Windows: the last one wins
                yield
                return
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _is_due(member: Member, now: float) -> bool:
    return not member.has_password and member.ends - now < DEVICE_RENEWED_WITH_DAYS_LEFT * _DAY_S


def _member(facts: certs.CertificateFacts, host: str, now: float) -> Member:
    return Member(facts.name, facts.fingerprint, (facts.serial,), host[:255], now, _end_of(facts))


def _end_of(facts: certs.CertificateFacts) -> float:
    """When a device's certificate is over for people: before the year in which it renews by its key."""
    return facts.ends - certs.GRACE_DAYS * _DAY_S


def _name_of(host: str) -> str:
    """A device's name for a host name."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", host).lstrip("._-")[:60]
    return name if name and not name.lower().startswith("ether") else f"pc-{name}".rstrip("-")


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(_MOST_BYTES)
