"""The settings file: its keys, and their checks.

For: reading one JSON file that only its owner can read. Unknown keys and impossible values are refused in one sentence.
Promise: a `Settings` that `load` returns is usable: types, ranges and the rules between the keys have been checked.
The trap: the file holds the password of the session. Its owner and mode are checked on the opened file, not on the
path, so that the file cannot be exchanged between the check and the reading.
"""

import json
import os
import stat
from typing import Any, NamedTuple

from broker.failures import SettingsRefused

MAX_PACKET_BYTES = 268_435_455  # the largest remaining length that four length bytes of MQTT can say
MIN_PACKET_BYTES = 1_024  # a CONNECT with names of ordinary length must fit
LONGEST_UNIX_PATH = 103  # sun_path holds 104 bytes on macOS and 108 on Linux, the final NUL included
LONGEST_FILE = 65_536

LOOPBACK_ONLY = (
    "The amqtt engine listens on loopback only, because its access control has holes, and host is {host!r}: "
    "install mosquitto or name an external broker by its URL to let other machines into the session."
)


class Settings(NamedTuple):
    """One broker's settings. A named tuple, because the module `dataclasses` would cost the supervisor 1.3 MB."""

    username: str
    password: str
    engine: str = "auto"
    host: str = "127.0.0.1"
    port: int = 0
    unix_socket: str | None = None
    max_packet_bytes: int = MAX_PACKET_BYTES
    private_dir: str | None = None
    lan_host: str | None = None
    lan_port: int = 0
    websocket_port: int | None = None


def load(path: str) -> Settings:
    """The checked settings of the file; `SettingsRefused` says in one sentence why there are none."""
    return check(_document(_read_private(path), path), path)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on `host`."""
    return host in ("localhost", "::1") or host.startswith("127.")


def beyond_loopback(settings: Settings) -> str | None:
    """The address of a listener that other machines reach, or a second listener: only mosquitto may open these."""
    return settings.lan_host or (None if is_loopback(settings.host) else settings.host)


def check(document: dict[str, Any], path: str) -> Settings:
    """Settings from a parsed document; `path` is the file that it came from."""
    unknown = sorted(set(document) - set(Settings._fields))
    if unknown:
        raise SettingsRefused(f"Unknown key {unknown[0]!r} in {path}: known are {', '.join(sorted(Settings._fields))}.")
    for key in ("username", "password"):
        if key not in document:
            raise SettingsRefused(f"The key {key!r} is missing in {path}: a broker needs both.")
    settings = Settings(**document)
    _check_texts(settings, path)
    _check_numbers(settings, path)
    _check_paths(settings, path)
    if settings.websocket_port is not None and settings.lan_host is None:
        raise SettingsRefused(f"websocket_port in {path} is a port on lan_host, and there is none.")
    if settings.engine == "amqtt" and (host := beyond_loopback(settings)) is not None:
        raise SettingsRefused(LOOPBACK_ONLY.format(host=host))
    return settings._replace(host="127.0.0.1") if settings.host == "localhost" else settings


def _read_private(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            _refuse_shared(os.fstat(file.fileno()), path)
            return file.read(LONGEST_FILE + 1)
    except OSError as error:
        raise SettingsRefused(f"Cannot read the settings file {path}: {error.strerror}.") from error


def _refuse_shared(status: os.stat_result, path: str) -> None:
    if os.name != "posix":  # Windows has no such bits; the folder's access list protects the file
        return
    if status.st_uid != os.geteuid():
        raise SettingsRefused(f"The settings file {path} belongs to another user (uid {status.st_uid}).")
    if stat.S_IMODE(status.st_mode) & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise SettingsRefused(f"The settings file {path} has mode {mode:04o}: it holds a password and must be 0600.")


def _document(text: bytes, path: str) -> dict[str, Any]:
    if len(text) > LONGEST_FILE:
        raise SettingsRefused(f"The settings file {path} is longer than {LONGEST_FILE} bytes.")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, nested without end
        raise SettingsRefused(f"The settings file {path} is not JSON: {error}.") from error
    if not isinstance(document, dict):
        raise SettingsRefused(f"The settings file {path} must hold one JSON object, not a {type(document).__name__}.")
    return document


def _check_texts(settings: Settings, path: str) -> None:
    # Control characters would end a line of mosquitto's files; lengths are those of MQTT's fields, and of host names.
    for key, longest in (("username", 255), ("password", 65_535), ("host", 255), ("lan_host", 255)):
        value = getattr(settings, key)
        if key == "lan_host" and value is None:
            continue
        if not isinstance(value, str) or not value or len(value.encode()) > longest:
            raise SettingsRefused(f"{key} in {path} must be a text of 1 to {longest} bytes.")
        if any(ord(character) < 32 for character in value):
            raise SettingsRefused(f"{key} in {path} must not hold control characters.")
    if ":" in settings.username:
        raise SettingsRefused(f"username in {path} must not hold a colon: a password file uses it as separator.")
    if any(character.isspace() for character in settings.host + (settings.lan_host or "")):
        raise SettingsRefused(f"host and lan_host in {path} must not hold spaces.")
    if settings.engine not in ("auto", "amqtt", "mosquitto"):
        raise SettingsRefused(f"engine in {path} must be 'auto', 'amqtt' or 'mosquitto', not {settings.engine!r}.")


def _check_numbers(settings: Settings, path: str) -> None:
    bounds: tuple[tuple[str, int, int], ...]
    bounds = (("port", 0, 65_535), ("lan_port", 0, 65_535), ("max_packet_bytes", MIN_PACKET_BYTES, MAX_PACKET_BYTES))
    if settings.websocket_port is not None:
        bounds = (*bounds, ("websocket_port", 0, 65_535))
    for key, lowest, highest in bounds:
        value = getattr(settings, key)
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            raise SettingsRefused(f"{key} in {path} must be a whole number from {lowest} to {highest}, not {value!r}.")


def _check_paths(settings: Settings, path: str) -> None:
    # The socket's file may be replaced and the folder is removed, so neither may be a file or folder of the user's own.
    for key in ("unix_socket", "private_dir"):
        value = getattr(settings, key)
        if value is None:
            continue
        if not isinstance(value, str) or not os.path.isabs(value) or not value.isprintable():
            raise SettingsRefused(f"{key} in {path} must be null or an absolute path, not {value!r}.")
    if settings.unix_socket is not None and len(os.fsencode(settings.unix_socket)) > LONGEST_UNIX_PATH:
        raise SettingsRefused(f"unix_socket in {path} is longer than {LONGEST_UNIX_PATH} bytes.")
    if settings.unix_socket is not None and not _is_replaceable(settings.unix_socket):
        raise SettingsRefused(f"unix_socket in {path} names a file that exists and is no socket.")
    if settings.private_dir is not None and not _holds(settings.private_dir, path):
        # The folder is removed at the end, so a path alone is not believed: the settings file must lie in it.
        raise SettingsRefused(f"private_dir in {path} must be the folder that holds the settings file.")


def _is_replaceable(path: str) -> bool:
    """Whether a socket may be made there: the path is free, or holds a socket that a killed broker left behind."""
    return not os.path.lexists(path) or stat.S_ISSOCK(os.lstat(path).st_mode)


def _holds(folder: str, path: str) -> bool:
    return os.path.realpath(folder) == os.path.dirname(os.path.realpath(path))
