"""The lab key: the secret shared by the machines that may join each other's sessions over the network.

It is 32 hex digits, in `ETHER_KEY` or in the file `ether/key` of the user's configuration folder, which is made when a
session first listens on the network. User and password of the session's broker are derived from the key, so that every
machine with the same key gets in, and no other one.

The trap: MQTT without TLS sends the password unencrypted. The key keeps other users of a trusted network out; it does
not protect against someone who reads the network. The password is derived, so the key itself is never sent.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field

from ether.errors import ConfigError
from ether.security.credentials import Credentials

VARIABLE = "ETHER_KEY"
USERNAME = "ether"

_DIGITS = 32
_PURPOSE = b"ether broker"


@dataclass(frozen=True, slots=True)
class LabKey:
    """A key and its origin: `source` is the path of the file, or the name of the environment variable."""

    digits: str = field(repr=False)
    source: str

    def credentials(self) -> Credentials:
        """The credentials with which a machine that has this key logs in to the broker of another one."""
        import hmac

        return Credentials(USERNAME, hmac.new(bytes.fromhex(self.digits), _PURPOSE, "sha256").hexdigest())


def key_file(environment: Mapping[str, str]) -> str:
    """The path of the key's file, which users copy from machine to machine."""
    folder = environment.get("XDG_CONFIG_HOME") or os.path.join(_home(environment), ".config")
    return os.path.join(folder, "ether", "key")


def load_key(environment: Mapping[str, str]) -> LabKey | None:
    """The key of this user; None where there is none yet. Raises `ConfigError` for a key that cannot be used."""
    if given := environment.get(VARIABLE):
        return LabKey(_checked(given, VARIABLE), VARIABLE)
    path = key_file(environment)
    try:
        return LabKey(_checked(_read(path), path), path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"the lab key {path} cannot be read: {error.strerror or error}.") from error


def load_or_make_key(environment: Mapping[str, str]) -> LabKey:
    """The key of this user, made now where there is none yet. Raises `ConfigError`."""
    known = load_key(environment)
    if known is not None:
        return known
    path = key_file(environment)
    try:
        _write_new(path, os.urandom(_DIGITS // 2).hex())
    except FileExistsError:
        pass  # another program of this user made a key at the same moment: that one is loaded below
    except OSError as error:
        raise ConfigError(f"the lab key cannot be written to {path}: {error.strerror or error}.") from error
    made = load_key(environment)
    if made is None:
        raise ConfigError(f"the lab key {path} vanished while it was being made.")
    return made


def _write_new(path: str, digits: str) -> None:
    """Write the file completely or not at all: programs would load a half-written key as another one. So the digits go
    to a temporary file first, which then gets its final name; raises `FileExistsError` where that name exists."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    temporary = f"{path}.{os.urandom(4).hex()}"
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(digits + "\n")
        if os.name == "posix":
            os.link(temporary, path)  # unlike a rename, it does not replace an existing key
        else:
            os.rename(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def _read(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as file:
        status = os.fstat(file.fileno())
        if os.name == "posix" and (status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077):
            raise ConfigError(f"the lab key {path} can be read by others: make it yours alone (chmod 600 {path}).")
        return file.read(4096)


def _checked(text: str, source: str) -> str:
    """The digits of a key. The message of the error does not show the text: it may be a real key with one wrong
    digit."""
    digits = text.strip().lower()
    if not re.fullmatch(f"[0-9a-f]{{{_DIGITS}}}", digits):
        raise ConfigError(f"{source} holds no lab key: expected {_DIGITS} hex digits (0-9, a-f).")
    return digits


def _home(environment: Mapping[str, str]) -> str:
    return environment.get("HOME") or os.path.expanduser("~")
