"""Mosquitto's configuration file and password file, as texts.

Promise: a client needs the session's user and password; no message is dropped before `MAX_QUEUED_BYTES` wait for one
client, and mosquitto logs it when that happens; packets leave at once (TCP_NODELAY).
The traps: mosquitto does not start with a setting that its version does not know, so settings newer than 1.6 are
written for newer versions only. Started as root it changes to a user who cannot read the private folder, unless `user
root` is set.
"""

import binascii
import os

from broker.settings import MAX_PACKET_BYTES, Settings

# PUBLISH packets of QoS 1 that one client has not acknowledged yet. A slow client that withholds its PUBACKs has so
# many in its own buffers: the number must be small enough for that, and large enough not to limit the throughput
# (measured in docs/decisions/0002-embedded-broker.md).
MAX_INFLIGHT_MESSAGES = 100
MAX_QUEUED_BYTES = 268_435_456
MAX_QUEUED_MESSAGES = 1_000_000_000
"""As good as unlimited: the bytes count. With 0, which means unlimited, mosquitto 2.0.11 ends the connection of every
client that publishes something it has no right to."""
PASSWORD_ROUNDS = 101  # mosquitto's own default: the password is random, there is nothing to guess

Version = tuple[int, int, int]
FIRST_WITH_MQTT_5: Version = (1, 6, 0)
FIRST_WITH_UNIX_SOCKETS: Version = (2, 0, 0)


def configuration(
    settings: Settings,
    port: int,
    version: Version,
    unix_socket: str | None,
    lan_port: int | None = None,
    websocket_port: int | None = None,
) -> str:
    """The configuration file, for a mosquitto whose working directory is the private folder."""
    asks = settings.password_port is not None and settings.lan_host is not None
    lines = [
        f"listener {port} {settings.host}",
        *([f"listener 0 {unix_socket}"] if unix_socket else []),
        *([f"listener {lan_port} {settings.lan_host}", *_tls(settings)] if settings.lan_host else []),
        *(
            [f"listener {websocket_port} {settings.lan_host}", "protocol websockets", *_tls(settings)]
            if websocket_port
            else []
        ),
        *([f"listener {settings.password_port} {settings.lan_host}", *_tls_alone(settings)] if asks else []),
        "allow_anonymous false",
        "password_file users",
        *(["acl_file acl"] if has_rights(settings) else []),
        "persistence false",
        "set_tcp_nodelay true",
        f"max_inflight_messages {MAX_INFLIGHT_MESSAGES}",
        f"max_queued_messages {MAX_QUEUED_MESSAGES}",
        f"max_queued_bytes {MAX_QUEUED_BYTES}",
        *_packet_limit(settings.max_packet_bytes),
        "sys_interval 0",
        "log_dest stderr",
        "log_timestamp false",
        "log_type error",
        "log_type warning",
        "log_type notice",
        "log_type information",
        *(["user root"] if os.name == "posix" and os.geteuid() == 0 else []),
    ]
    return "\n".join(lines) + "\n"


def _tls(settings: Settings) -> list[str]:
    """The settings of the listener above that make it speak TLS."""
    if settings.tls_certificate is None:
        return []
    return [
        f"certfile {settings.tls_certificate}",
        f"keyfile {settings.tls_key}",
        f"tls_version tlsv{settings.tls_minimum}",
        *([f"cafile {settings.tls_client_ca}", "require_certificate true"] if settings.tls_client_ca else []),
        *([f"crlfile {settings.tls_crl}"] if settings.tls_crl else []),
        *(["use_identity_as_username true"] if settings.tls_identity else []),
    ]


def _tls_alone(settings: Settings) -> list[str]:
    """The same where the client shows no certificate, and may be one that speaks no TLS 1.3."""
    return [f"certfile {settings.tls_certificate}", f"keyfile {settings.tls_key}", "tls_version tlsv1.2"]


def _packet_limit(max_packet_bytes: int) -> list[str]:
    """The setting for the largest packet. Mosquitto refuses a remaining length that *reaches* `max_packet_size`, so one
    more is written, and it announces that number over MQTT 5. At MQTT's own limit the setting is left out: a larger
    announcement is invalid, and clients would refuse the connection."""
    return [] if max_packet_bytes == MAX_PACKET_BYTES else [f"max_packet_size {max_packet_bytes + 1}"]


def password_line(username: str, password: str, version: Version) -> str:
    """One line of the password file: PBKDF2 over SHA-512 since 2.0, before that SHA-512 of password and salt."""
    import hashlib  # late, because it loads 4 MB of OpenSSL

    salt = os.urandom(12)
    if version >= (2, 0, 0):
        digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, PASSWORD_ROUNDS)
        return f"{username}:$7${PASSWORD_ROUNDS}${_base64(salt)}${_base64(digest)}\n"
    return f"{username}:$6${_base64(salt)}${_base64(hashlib.sha512(password.encode() + salt).digest())}\n"


def has_rights(settings: Settings) -> bool:
    """Whether there is a file of rights: where further users are known. Where all have the same rights, nothing is
    looked up for a message."""
    return bool(settings.users or settings.rights)


def acl(settings: Settings) -> str:
    """The file of rights: the session's own user may do everything, every other one what its rule says. Mosquitto
    grants every subscription, and checks each message that it delivers; so what may be subscribed to and what may be
    delivered are one. It puts client ids and users only into rules for everybody (`pattern`), so a rule with `%c` or
    `%u` counts for everybody, each with his own."""
    lines: list[str] = []
    patterns: list[str] = []
    for user in dict.fromkeys((settings.username, *settings.users, *settings.rights)):
        rule = settings.rights.get(user)
        lines += ["", f"user {user}", *(_ALL if rule is None and user == settings.username else ())]
        for access, filters in (("write", rule.publish), ("read", rule.receive)) if rule is not None else ():
            own = [f"{access} {each}" for each in filters]
            patterns += [f"pattern {each}" for each in own if "%c" in each or "%u" in each]
            lines += [f"topic {each}" for each in own if f"pattern {each}" not in patterns]
    return "\n".join([*dict.fromkeys(patterns), *lines]) + "\n"


_ALL = ("topic readwrite #", "topic readwrite $SYS/#")


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()
