"""What an agent was asked to run, on disk: so that it runs it again after the machine was switched off.

Promises: when `put` or `drop` returns, the change is on the disk; until then the file is as it was before, and never
half of either. Its user alone may read it, because the broker's URL may hold a password. A file that cannot be read is
said to be so, kept beside under another name, and the agent goes on without it.

The traps: what follows from the lab key is not written down, but derived anew. And an entry is believed no more than a
request is: its class path is checked against the agent's roots each time it is started.
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
from ether.ledger.durable import sync_folder, write_whole
from ether.log import get_ether_logger
from ether.security.lab_key import load_key
from ether.system.private_files import LONGEST_BYTES, read_private
from ether.wire.topics import check_instance_name, check_session_name

logger = get_ether_logger("Ether")

_VERSION = 1


class NotKept(EtherError, OSError):
    """What the agent was asked to run cannot be written down."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One instance that an agent was asked to run: as in YAML, with the registry that goes with it. `by` asked."""

    instance: Mapping[str, Any]
    registry: Mapping[str, Any]
    by: str = field(default="", compare=False)

    @classmethod
    def of(cls, name: str, instance: object, registry: object, by: str) -> Wanted:
        """As it was asked for, or read; raises `ConfigError` and `InvalidName`."""
        check_instance_name(name)
        if not isinstance(instance, dict) or not isinstance(registry, dict):
            raise ConfigError("an instance and a registry are mappings.", path=f"instances.{name}")
        wanted = cls({key: value for key, value in instance.items() if key not in ("host", "autorun")}, registry, by)
        if wanted.config().name_or(name) != name:
            raise ConfigError("its ether_name is another name.", path=f"instances.{name}")
        wanted.registry_config()
        return wanted

    def config(self) -> EtherInstanceConfig:
        """Checked; raises `ConfigError`."""
        return EtherInstanceConfig(**self.instance)

    def registry_config(self) -> EtherConfig:
        """A configuration that holds only the registry; raises `ConfigError`."""
        return load_config({"registry": dict(self.registry)})


@dataclass(slots=True)
class AgentFile:
    """The file of one agent. Not locked."""

    path: str
    environment: Mapping[str, str] = field(repr=False)
    session: str | None = None
    url: str | None = field(default=None, repr=False)
    instances: dict[str, Wanted] = field(default_factory=dict)

    def place(self, session: str, url: str) -> None:
        """From now on what is wanted is wanted there. Raises `NotKept`."""
        if (session, url) != (self.session, self.url):
            self.session, self.url = session, url
            if self.instances:
                self._write(self.instances)

    def put(self, name: str, wanted: Wanted) -> None:
        """Note one; raises `NotKept`, and then nothing has changed."""
        self._write({**self.instances, name: wanted})

    def drop(self, name: str) -> None:
        """It is not wanted any more. Raises `NotKept`."""
        if name in self.instances:
            self._write({key: wanted for key, wanted in self.instances.items() if key != name})

    def set_aside(self, why: str) -> None:
        """Begin anew; what there was stays beside under another name."""
        beside = f"{self.path}.{time.strftime('%Y%m%d-%H%M%S')}"
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
        entries = {name: {"instance": w.instance, "registry": w.registry, "by": w.by} for name, w in instances.items()}
        value = {"version": _VERSION, "session": self.session, "url": url, "by_key": by_key, "instances": entries}
        text = json.dumps(value)
        if len(text.encode()) > LONGEST_BYTES:
            raise NotKept(
                f"what this agent is asked to run has {len(text):,} bytes; it keeps {LONGEST_BYTES:,} at most"
            )
        try:
            _write_durably(self.path, text)
        except OSError as error:
            raise NotKept(f"what this agent is asked to run cannot be written to {self.path}: {error}") from error
        self.instances = instances


def agent_path(name: str, environment: Mapping[str, str]) -> str:
    """Where the agent of that name keeps it, in the user's state folder."""
    home = environment.get("HOME") or os.path.expanduser("~")
    folder = environment.get("XDG_STATE_HOME") or os.path.join(home, ".local", "state")
    return os.path.join(folder, "ether", "agents", f"{quote(name, safe=' ')}.json")


def read_agent_file(path: str, environment: Mapping[str, str]) -> AgentFile:
    """What was kept. Never raises for what is in the file: what cannot be read is set aside, and said."""
    kept = AgentFile(path, environment)
    try:
        value = read_private(path)
        _take(kept, value, environment)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        kept.set_aside(f"it cannot be read: {type(error).__name__}: {error}")
    return kept


def _take(kept: AgentFile, value: object, environment: Mapping[str, str]) -> None:
    match value:
        case {
            "version": 1,
            "session": str(session),
            "url": str(url),
            "by_key": bool(by_key),
            "instances": dict(entries),
        }:
            instances = {str(name): _wanted(name, entry) for name, entry in entries.items()}
            kept.url = _with_key(url, environment) if by_key else url
            kept.session, kept.instances = check_session_name(session), instances
        case _:
            raise ValueError("not what an agent of this version writes")


def _wanted(name: str, entry: object) -> Wanted:
    if not isinstance(entry, dict):
        raise ValueError(f"{name!r} is no description of an instance")
    return Wanted.of(name, entry.get("instance"), entry.get("registry"), str(entry.get("by", "")))


def _without_key(url: str, environment: Mapping[str, str]) -> tuple[str, bool]:
    """The URL as it is written down, and whether user and password follow from the lab key."""
    try:
        key = load_key(environment)
    except ConfigError:
        key = None
    if key is None or not url:
        return url, False
    address, who = broker_address(url), key.credentials()
    by_key = (address.username, address.password) == (who.username, who.password)
    return (url_without_credentials(url) if by_key else url), by_key


def _with_key(url: str, environment: Mapping[str, str]) -> str | None:
    key = load_key(environment)
    if key is None:
        logger.warning("there is no lab key any more: the broker at %s cannot be asked", url)
        return None
    who = key.credentials()
    return url_with(url, who.username, who.password)


def _write_durably(path: str, text: str) -> None:
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    write_whole(Path(path), [text.encode()])
    sync_folder(Path(folder))
