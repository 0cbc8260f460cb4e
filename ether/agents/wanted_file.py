"""The file of the instances that an agent was asked to run: it starts them again after the machine was switched off.

Promises: when `put` or `drop` returns, the change is on the disk; until then the file is the one from before, never a
part of either. Only the agent's user may read it, because the broker's URL may hold a password. A file that cannot be
read is reported and renamed, and the agent goes on without it.

The traps: credentials that follow from the lab key are not written, but derived again when the file is read. And an
entry is trusted no more than a request: its class path is checked against the agent's roots each time it is started.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ether.config import EtherConfig, EtherInstanceConfig, load_config
from ether.config.broker_url import broker_address, url_with, url_without_credentials
from ether.errors import ConfigError, EtherError
from ether.ledger.durable import make_folder, sync_folder, write_whole
from ether.log import get_ether_logger
from ether.secret_values import learn
from ether.security.lab_key import load_key
from ether.system.clock import wall_time
from ether.system.private_files import LONGEST_BYTES, read_private
from ether.wire.topics import check_instance_name, check_session_name

logger = get_ether_logger("Ether")

_VERSION = 1


class NotKept(EtherError, OSError):
    """What the agent was asked to run cannot be written to its file."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One instance that an agent was asked to run: as in YAML, with the registry that goes with it. `by` is the program
    that asked."""

    instance: Mapping[str, Any]
    registry: Mapping[str, Any]
    by: str = field(default="", compare=False)
    secrets: tuple[str, ...] = field(default=(), compare=False, repr=False)
    """The values in it that are recorded, logged and shown nowhere."""

    @classmethod
    def of(cls, name: str, instance: object, registry: object, by: str, secrets: object = None) -> Wanted:
        """From a request, or from the file; raises `ConfigError` and `InvalidName`."""
        check_instance_name(name)
        if not isinstance(instance, dict) or not isinstance(registry, dict):
            raise ConfigError("an instance and a registry are mappings.", path=f"instances.{name}")
        described = {key: value for key, value in instance.items() if key not in ("host", "autorun")}
        hides = tuple(each for each in secrets if isinstance(each, str)) if isinstance(secrets, list) else ()
        learn(hides)
        wanted = cls(described, registry, by, hides)
        if wanted.config().name_or(name) != name:
            raise ConfigError("its ether_name is another name.", path=f"instances.{name}")
        wanted.registry_config()
        return wanted

    def config(self) -> EtherInstanceConfig:
        """The instance, checked; raises `ConfigError`."""
        return EtherInstanceConfig(**self.instance)

    def registry_config(self) -> EtherConfig:
        """A configuration that holds only the registry; raises `ConfigError`."""
        return load_config({"registry": dict(self.registry)})


@dataclass(slots=True)
class AgentFile:
    """The file of one agent, and what it holds. Not locked."""

    path: str
    environment: Mapping[str, str] = field(repr=False)
    session: str | None = None
    url: str | None = field(default=None, repr=False)
    instances: dict[str, Wanted] = field(default_factory=dict)

    def place(self, session: str, url: str) -> None:
        """The instances are wanted in this session from now on, at this broker. Raises `NotKept`."""
        if (session, url) != (self.session, self.url):
            self.session, self.url = session, url
            if self.instances:
                self._write(self.instances)

    def put(self, name: str, wanted: Wanted) -> None:
        """Add or replace an instance; raises `NotKept`, and then nothing has changed."""
        self._write({**self.instances, name: wanted})

    def drop(self, name: str) -> None:
        """Take out an instance that is wanted no more. Raises `NotKept`."""
        if name in self.instances:
            self._write({key: wanted for key, wanted in self.instances.items() if key != name})

    def set_aside(self, why: str) -> None:
        """Begin with an empty file; the old one is renamed."""
        beside = f"{self.path}.{time.strftime('%Y%m%d-%H%M%S', time.localtime(wall_time()))}"
        try:
            os.replace(self.path, beside)
        except OSError as error:
            beside = f"nowhere: {error}"
        logger.error(
            "what this agent was asked to run (%s): %s. It goes on without it; kept as %s", self.path, why, beside
        )
        self.session, self.url, self.instances = None, None, {}

    def _write(self, instances: dict[str, Wanted]) -> None:
        url, by_key = _without_key(self.url or "", self.environment)
        entries = {name: _entry_of(wanted) for name, wanted in instances.items()}
        value = {"version": _VERSION, "session": self.session, "url": url, "by_key": by_key, "instances": entries}
        text = json.dumps(value)
        if len(text.encode()) > LONGEST_BYTES:
            raise NotKept(
                f"what this agent is asked to run has {len(text):,} bytes; it keeps {LONGEST_BYTES:,} at most"
            )
        try:
            _write_durably(Path(self.path), text)
        except OSError as error:
            raise NotKept(f"what this agent is asked to run cannot be written to {self.path}: {error}") from error
        self.instances = instances


def agent_path(name: str, environment: Mapping[str, str]) -> str:
    """The path of the file of the agent of that name, in the user's state folder."""
    home = environment.get("HOME") or os.path.expanduser("~")
    folder = environment.get("XDG_STATE_HOME") or os.path.join(home, ".local", "state")
    return os.path.join(folder, "ether", "agents", f"{quote(name, safe=' ')}.json")


def read_agent_file(path: str, environment: Mapping[str, str]) -> AgentFile:
    """Read the file, if there is one. Never raises for its content: what cannot be read is set aside, and logged."""
    file = AgentFile(path, environment)
    try:
        value = read_private(path)
        _fill(file, value, environment)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        file.set_aside(f"it cannot be read: {type(error).__name__}: {error}")
    return file


def _fill(file: AgentFile, value: object, environment: Mapping[str, str]) -> None:
    match value:
        case {
            "version": 1,
            "session": str(session),
            "url": str(url),
            "by_key": bool(by_key),
            "instances": dict(entries),
        }:
            instances = {str(name): _wanted(name, entry) for name, entry in entries.items()}
            file.url = _with_key(url, environment) if by_key else url
            file.session, file.instances = check_session_name(session), instances
        case _:
            raise ValueError("not what an agent of this version writes")


def _wanted(name: str, entry: object) -> Wanted:
    if not isinstance(entry, dict):
        raise ValueError(f"{name!r} is no description of an instance")
    return Wanted.of(name, entry.get("instance"), entry.get("registry"), str(entry.get("by", "")), entry.get("secrets"))


def _entry_of(wanted: Wanted) -> dict[str, Any]:
    entry = {"instance": wanted.instance, "registry": wanted.registry, "by": wanted.by}
    return {**entry, "secrets": list(wanted.secrets)} if wanted.secrets else entry


def _without_key(url: str, environment: Mapping[str, str]) -> tuple[str, bool]:
    """The URL as it is written, and whether user and password follow from the lab key (then they are left out)."""
    try:
        key = load_key(environment)
    except ConfigError:
        key = None
    if key is None or not url:
        return url, False
    address, login = broker_address(url), key.credentials()
    by_key = (address.username, address.password) == (login.username, login.password)
    return (url_without_credentials(url) if by_key else url), by_key


def _with_key(url: str, environment: Mapping[str, str]) -> str | None:
    key = load_key(environment)
    if key is None:
        logger.warning("there is no lab key any more: the broker at %s cannot be asked", url)
        return None
    login = key.credentials()
    return url_with(url, login.username, login.password)


def _write_durably(path: Path, text: str) -> None:
    make_folder(path.parent)
    write_whole(path, [text.encode()])
    sync_folder(path.parent)  # the new name, too, must be on the disk
