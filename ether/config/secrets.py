"""`!secret NAME` in a configuration: a value that stands somewhere else.

    kwargs: {password: !secret CAM_PASSWORD}

It is looked for in the environment (`CAM_PASSWORD`), then in the user's private file
(`~/.config/ether/secrets.json`, mode 0600, written by `ether secret set CAM_PASSWORD`), then in the system's keyring,
where the package `keyring` is installed. Promise: a missing one is a `ConfigError` with file, line, and what to type;
the value is in no message. The trap: a file that others may read is no secret; it is not read, and the error says so.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from ether.errors import ConfigError
from ether.secret_values import learn

SERVICE = "ether"
"""Under which the keyring keeps them."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_MOST_BYTES = 1 << 20


class SecretName(str):
    """The name of a secret, in the place of its value."""

    __slots__ = ()


def check_secret_name(name: str) -> str:
    """The name. Raises `ConfigError`."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"found {name!r:.80} as the name of a secret; expected a letter, then letters, digits, dots, dashes and"
            " underscores, at most 64."
        )
    return name


def secrets_path(environment: Mapping[str, str]) -> str:
    """The user's file of secrets."""
    home = environment.get("HOME") or os.path.expanduser("~")
    return os.path.join(environment.get("XDG_CONFIG_HOME") or os.path.join(home, ".config"), "ether", "secrets.json")


def read_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """The secrets in the user's file. Raises `ConfigError` where others may read it, or it is not what it should be."""
    path = secrets_path(environment)
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            text = file.read(_MOST_BYTES)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"the secrets in {path} cannot be read: {error.strerror or error}.") from error
    if hasattr(os, "geteuid") and (status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077):
        raise ConfigError(f"the secrets in {path} can be read by others, so they are not used: chmod 600 {path}")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the secrets in {path} are not JSON.") from error
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ConfigError(f"the secrets in {path} are not texts by their names.")
    return found


def secret_value(name: str, environment: Mapping[str, str]) -> tuple[str, str] | None:
    """A secret's value and where it is from; None where it is nowhere. Raises `ConfigError`."""
    if value := environment.get(name):
        return value, "the environment"
    if value := read_secrets(environment).get(name):
        return value, secrets_path(environment)
    value = _from_keyring(name)
    return None if value is None else (value, "the keyring")


def _from_keyring(name: str) -> str | None:
    try:
        keyring = import_module("keyring")
    except ImportError:
        return None
    try:
        value = keyring.get_password(SERVICE, name)
    except Exception:  # noqa: BLE001  each system's keyring has errors of its own; without one there is no secret
        return None
    return value if isinstance(value, str) and value else None


class MissingSecret(ConfigError):
    """A secret that is nowhere."""


def resolved(value: Any, environment: Mapping[str, str], place: tuple[str, ...] = ()) -> Any:
    """Plain data with the value of each secret in the place of its name. What was found is hidden from now on. Raises
    `ConfigError`, whose `path` is the place."""
    if isinstance(value, SecretName):
        return _value_of(value, environment, place)
    if isinstance(value, dict):
        return {key: resolved(item, environment, (*place, str(key))) for key, item in value.items()}
    if isinstance(value, list):
        return [resolved(item, environment, (*place, str(index))) for index, item in enumerate(value)]
    return value


def _value_of(name: SecretName, environment: Mapping[str, str], place: tuple[str, ...]) -> str:
    try:
        found = secret_value(name, environment)
    except ConfigError as error:
        raise ConfigError(error.problem, path=".".join(place)) from error
    if found is None:
        raise MissingSecret(
            f"the secret {name} is not known on this machine: type `ether secret set {name}`, or set the environment"
            f" variable {name}.",
            path=".".join(place),
        )
    learn([found[0]])
    return found[0]
