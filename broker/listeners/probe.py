"""Is it our broker that answers there? One real MQTT 3.1.1 CONNECT with the session's user and password.

Promise: True means that a client with these credentials was let in a moment ago.
The trap: a stranger's open broker lets anybody in. True proves it only together with the engine's word that it runs.
"""

import os
import socket

_ACCEPTED = b"\x20\x02\x00\x00"
_DISCONNECT = b"\xe0\x00"
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def lets_in(host: str, port: int, username: str, password: str, timeout_s: float = 2.0) -> bool:
    """Whether a broker at host and port accepts the credentials within the time-out."""
    try:
        with socket.create_connection((_EVERYWHERE.get(host, host), port), timeout_s) as connection:
            connection.sendall(connect_packet(username, password))
            answer = b""
            while len(answer) < len(_ACCEPTED) and (received := connection.recv(4)):
                answer += received
            if answer == _ACCEPTED:
                connection.sendall(_DISCONNECT)
            return answer == _ACCEPTED
    except OSError:
        return False


def connect_packet(username: str, password: str) -> bytes:
    """A CONNECT with a clean session, a keep-alive of 10 s and an unguessable client id."""
    fields = (f"probe-{os.urandom(8).hex()}", username, password)
    body = b"\x00\x04MQTT\x04\xc2\x00\x0a" + b"".join(_field(text) for text in fields)
    return b"\x10" + _length(len(body)) + body


def _field(text: str) -> bytes:
    encoded = text.encode()
    return len(encoded).to_bytes(2, "big") + encoded


def _length(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
