"""Where this user's certificates lie: the lab that this machine has made, and the labs of which it is a member.

    ~/.config/ether/lab/            the authority, where this machine made one; with the list of its members
    ~/.config/ether/labs/<lab>/     one folder for each lab that this machine has joined

Promise: folders are 0700, keys 0600; a membership is there whole or not at all, and one in a folder that other users
may write to does not count. Nothing here reads a certificate: what connects to a broker needs the paths alone.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass

from ether.system.private_files import is_own, read_private, write_private

AUTHORITY, CERTIFICATE, KEY, ABOUT = "authority.pem", "device.pem", "device.key", "about.json"


@dataclass(frozen=True, slots=True)
class Membership:
    """This machine as a device of a lab: `name` is its name there, `host` the machine that has let it in."""

    folder: str
    lab: str
    name: str
    host: str

    @property
    def authority(self) -> str:
        """The path of the lab's certificate."""
        return os.path.join(self.folder, AUTHORITY)

    @property
    def certificate(self) -> str:
        """The path of this device's certificate."""
        return os.path.join(self.folder, CERTIFICATE)

    @property
    def key(self) -> str:
        """The path of its key, which never leaves this machine."""
        return os.path.join(self.folder, KEY)


def config_folder(environment: Mapping[str, str]) -> str:
    """Ether's folder in the user's configuration."""
    home = environment.get("HOME") or os.path.expanduser("~")
    return os.path.join(environment.get("XDG_CONFIG_HOME") or os.path.join(home, ".config"), "ether")


def authority_folder(environment: Mapping[str, str]) -> str:
    """Where the lab lies that this machine has made."""
    return os.path.join(config_folder(environment), "lab")


def memberships(environment: Mapping[str, str]) -> list[Membership]:
    """The labs of which this machine is a member, the one joined last first. Never raises."""
    parent = os.path.join(config_folder(environment), "labs")
    try:
        entries = [entry for entry in os.scandir(parent) if not entry.name.startswith(".")]
    except OSError:
        return []
    found = [known for entry in entries if (known := _membership(entry)) is not None]
    return sorted(found, key=lambda known: (-_written(known.certificate), known.lab))


def membership_of(lab: str, environment: Mapping[str, str]) -> Membership | None:
    """This machine's membership of one lab."""
    return next((known for known in memberships(environment) if known.lab == lab), None)


def _membership(entry: os.DirEntry[str]) -> Membership | None:
    try:
        if not entry.is_dir(follow_symlinks=False) or not is_own(entry.stat(follow_symlinks=False)):
            return None
        about = read_private(os.path.join(entry.path, ABOUT))
    except (OSError, ValueError):
        return None
    if not isinstance(about, dict) or not all(isinstance(about.get(key), str) for key in ("name", "host")):
        return None
    return Membership(entry.path, entry.name, about["name"], about["host"])


def _written(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def write_membership(
    lab: str, name: str, host: str, files: Mapping[str, bytes], environment: Mapping[str, str]
) -> Membership:
    """Make this machine a member: `files` are the three PEM files by name. Replaces what it was before in that lab.
    Raises `OSError`."""
    parent = os.path.join(config_folder(environment), "labs")
    os.makedirs(parent, mode=0o700, exist_ok=True)
    folder, new = os.path.join(parent, lab), os.path.join(parent, f".{lab}.{os.urandom(4).hex()}")
    os.mkdir(new, 0o700)
    try:
        for file_name, content in files.items():
            write_bytes(os.path.join(new, file_name), content)
        write_private(os.path.join(new, ABOUT), {"name": name, "host": host})
        if os.path.isdir(folder):
            os.rename(folder, f"{new}.old")
        os.rename(new, folder)
    finally:
        for left in (new, f"{new}.old"):
            shutil.rmtree(left, ignore_errors=True)
    return Membership(folder, lab, name, host)


def write_bytes(path: str, content: bytes) -> None:
    """Replace a file atomically, mode 0600. Raises `OSError`."""
    temporary = f"{path}.{os.urandom(4).hex()}"
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        try:
            os.unlink(temporary)
        except OSError:
            pass  # it was not made
        raise
