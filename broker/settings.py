"""The settings file: its keys, and their checks.

For: reading one JSON file that only its owner can read. Unknown keys and impossible values are refused in one sentence.
Promise: a `Settings` that `load` returns is usable: types, ranges and the rules between the keys have been checked.
The trap: the file holds the password of the session. Its owner and mode are checked on the opened file, not on the
path, so that the file cannot be exchanged between the check and the reading.
"""

import json
import os
import stat
from collections.abc import Mapping
from typing import Any, NamedTuple

from broker.core.quotas import HIGHEST, LOWEST, Quotas
from broker.core.rule import Rule
from broker.failures import SettingsRefused
from broker.wire.topics import is_valid_filter

MAX_PACKET_BYTES = 268_435_455  # the largest remaining length that four length bytes of MQTT can say
MIN_PACKET_BYTES = 1_024  # a CONNECT with names of ordinary length must fit
LONGEST_UNIX_PATH = 103  # sun_path holds 104 bytes on macOS and 108 on Linux, the final NUL included
LONGEST_FILE = 65_536
PROTOCOLS = ("3.1.1", "5")


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
    password_port: int | None = None
    protocols: tuple[str, ...] = PROTOCOLS
    tls_certificate: str | None = None
    tls_key: str | None = None
    tls_client_ca: str | None = None
    tls_crl: str | None = None
    tls_identity: bool = False
    tls_minimum: str = "1.3"
    websocket_origins: tuple[str, ...] = ()
    users: Mapping[str, str] = {}
    rights: Mapping[str, Rule] = {}
    quotas: Quotas = Quotas()
    plugins: Mapping[str, Mapping[str, Any]] = {}


def load(path: str) -> Settings:
    """The checked settings of the file; `SettingsRefused` says in one sentence why there are none."""
    return check(_document(_read_private(path), path), path)


def needs_amqtt(settings: Settings) -> bool:
    """Whether the settings say something that mosquitto cannot be told."""
    plain = settings.protocols == PROTOCOLS and not settings.websocket_origins and settings.quotas == Quotas()
    return not plain or bool(settings.plugins) or _has_narrow_websocket(settings)


def _has_narrow_websocket(settings: Settings) -> bool:
    """Whether there are WebSockets at one address of this machine: mosquitto opens them at every address, whatever it
    is told."""
    return settings.websocket_port is not None and settings.lan_host not in ("0.0.0.0", "::")


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
    if not isinstance(settings.protocols, list | tuple) or not settings.protocols:
        raise SettingsRefused(f"protocols in {path} must be a list of '3.1.1' and '5'.")
    if any(each not in PROTOCOLS for each in settings.protocols):
        raise SettingsRefused(f"protocols in {path} must be a list of '3.1.1' and '5', not {settings.protocols!r}.")
    settings = settings._replace(protocols=tuple(each for each in PROTOCOLS if each in settings.protocols))
    if settings.engine == "mosquitto" and settings.protocols != PROTOCOLS:
        raise SettingsRefused(f"protocols in {path}: mosquitto always speaks both, only amqtt can speak one of them.")
    if settings.websocket_port is not None and settings.lan_host is None:
        raise SettingsRefused(f"websocket_port in {path} is a port on lan_host, and there is none.")
    if settings.engine == "mosquitto" and _has_narrow_websocket(settings):
        raise SettingsRefused(
            f"websocket_port in {path}: mosquitto opens WebSockets at every address of this machine, not at"
            f" {settings.lan_host} alone; take the engine amqtt, or listen at every address."
        )
    _check_tls(settings, path)
    _check_plugins(settings, path)
    settings = _with_rights(settings, path)
    settings = settings._replace(quotas=_quotas(settings.quotas, path))
    if settings.engine == "mosquitto" and settings.quotas != Quotas():
        raise SettingsRefused(f"quotas in {path} are for amqtt: mosquitto has settings of its own.")
    if not _are_texts(settings.websocket_origins):
        raise SettingsRefused(f"websocket_origins in {path} must be a list of texts such as 'https://lab.example'.")
    if settings.websocket_origins and settings.engine == "mosquitto":
        raise SettingsRefused(f"websocket_origins in {path}: mosquitto does not look at the Origin of a WebSocket.")
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
    if settings.password_port is not None:
        bounds = (*bounds, ("password_port", 1, 65_535))
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


def _check_tls(settings: Settings, path: str) -> None:
    for key in ("tls_certificate", "tls_key", "tls_client_ca", "tls_crl"):
        value = getattr(settings, key)
        if value is not None and (not isinstance(value, str) or not os.path.isabs(value) or not value.isprintable()):
            raise SettingsRefused(f"{key} in {path} must be null or an absolute path, not {value!r}.")
    if settings.tls_minimum not in ("1.2", "1.3"):
        raise SettingsRefused(f"tls_minimum in {path} must be '1.2' or '1.3', not {settings.tls_minimum!r}.")
    if (settings.tls_certificate is None) is not (settings.tls_key is None):
        raise SettingsRefused(f"tls_certificate and tls_key in {path} belong together.")
    if settings.tls_certificate is None and settings.tls_client_ca is not None:
        raise SettingsRefused(f"tls_client_ca in {path} needs tls_certificate and tls_key.")
    if not isinstance(settings.tls_identity, bool):
        raise SettingsRefused(f"tls_identity in {path} must be true or false, not {settings.tls_identity!r}.")
    if settings.tls_client_ca is None and (settings.tls_crl is not None or settings.tls_identity):
        raise SettingsRefused(f"tls_crl and tls_identity in {path} need tls_client_ca.")
    if settings.tls_certificate is not None and settings.lan_host is None:
        raise SettingsRefused(f"tls_certificate in {path} is for the listeners on lan_host, and there is none.")
    if settings.password_port is not None and settings.tls_client_ca is None:
        raise SettingsRefused(f"password_port in {path} is for users without a certificate beside tls_client_ca.")


def revoked_users(line: bytes) -> frozenset[str] | None:
    """Whose certificates were taken back, by a line of the lifeline: `{"command": "trust", "revoked": […]}`; None for
    another command. Raises `SettingsRefused`."""
    document = _document(line, "the lifeline")
    if document.get("command") != "trust":
        return None
    revoked = document.get("revoked", [])
    if not set(document) <= {"command", "revoked"} or not _are_texts(revoked):
        raise SettingsRefused("The command trust takes revoked, a list of users.")
    return frozenset(revoked)


def _check_plugins(settings: Settings, path: str) -> None:
    plugins = settings.plugins
    if not isinstance(plugins, dict) or not all("." in name and isinstance(plugins[name], dict) for name in plugins):
        example = '{"amqtt.plugins.topic_checking.TopicAccessControlListPlugin": {"publish_acl": {…}}}'
        raise SettingsRefused(f"plugins in {path} must map paths of classes to their configuration, such as {example}.")
    if plugins and settings.engine == "mosquitto":
        raise SettingsRefused(f"plugins in {path} are amqtt's: mosquitto cannot run them.")


def changed_rights(line: bytes, settings: Settings) -> Settings:
    """The settings with the users and rights that a line of the lifeline gives:
    `{"command": "rights", "users": {…}, "rights": {…}}`. Raises `SettingsRefused`."""
    where = "the lifeline"
    document = _document(line, where)
    if document.get("command") != "rights" or not set(document) <= {"command", "users", "rights"}:
        raise SettingsRefused(
            f"A line of {where} must be stop, or the command rights with users and rights, or trust with revoked."
        )
    changed = settings._replace(users=document.get("users", {}), rights=document.get("rights", {}))
    return _with_rights(changed, where)


def _with_rights(settings: Settings, path: str) -> Settings:
    """The settings with `users` and `rights` checked, and each user's rights as a `Rule`."""
    users, rights = settings.users, settings.rights
    if not isinstance(users, dict) or not all(_are_texts(pair) and len(pair[1]) > 0 for pair in users.items()):
        raise SettingsRefused(f"users in {path} must map each user to a password that is not empty.")
    if settings.username in users:
        raise SettingsRefused(f"users in {path} names {settings.username!r}, whose password is the key password.")
    if not isinstance(rights, dict):
        raise SettingsRefused(f"rights in {path} must map each user to publish, subscribe and receive.")
    rules = {}
    for user, rule in rights.items():
        # A device that comes with a certificate has no password, and plugins may know others.
        known_otherwise = settings.tls_identity or bool(settings.plugins)
        if user != settings.username and user not in users and not known_otherwise:
            raise SettingsRefused(f"rights in {path} names {user!r}, who is no user.")
        if not isinstance(rule, dict) or not set(rule) <= set(Rule._fields):
            raise SettingsRefused(f"rights of {user!r} in {path} must be lists named {', '.join(Rule._fields)}.")
        for kind, filters in rule.items():
            if not _are_texts(filters) or not all(_is_one_line_filter(each) for each in filters):
                raise SettingsRefused(f"{kind} of {user!r} in {path} must be a list of topic filters.")
        subscribe = tuple(rule.get("subscribe", ()))
        rules[user] = Rule(tuple(rule.get("publish", ())), subscribe, tuple(rule.get("receive", subscribe)))
    return settings._replace(rights=rules)


def _is_one_line_filter(text: str) -> bool:
    return is_valid_filter(text.encode()) and text.isprintable()  # a line of mosquitto's acl file


def _quotas(given: Any, path: str) -> Quotas:
    if isinstance(given, Quotas):
        return given
    if not isinstance(given, dict) or not set(given) <= set(Quotas._fields):
        raise SettingsRefused(f"quotas in {path} must be an object with some of {', '.join(Quotas._fields)}.")
    for key, value in given.items():
        lowest, highest = getattr(LOWEST, key), getattr(HIGHEST, key)
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            raise SettingsRefused(f"{key} of quotas in {path} must be a whole number from {lowest} to {highest}.")
    return Quotas(**given)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(each, str) and each.isprintable() for each in value)


def _is_replaceable(path: str) -> bool:
    """Whether a socket may be made there: the path is free, or holds a socket that a killed broker left behind."""
    return not os.path.lexists(path) or stat.S_ISSOCK(os.lstat(path).st_mode)


def _holds(folder: str, path: str) -> bool:
    return os.path.realpath(folder) == os.path.dirname(os.path.realpath(path))
