"""Checks that the broker at an address accepts the session's clients, by one real MQTT 3.1.1 CONNECT.

Promise: True means that a client with these credentials was accepted a moment ago.
The trap: another program's open broker accepts every client. True proves that ours answers only where the engine's log
says, too, that it runs.
"""

import os
import socket

_ACCEPTED = b"\x20\x02\x00\x00"
_DISCONNECT = b"\xe0\x00"
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def lets_in(
    host: str, port: int, username: str, password: str, timeout_s: float = 2.0, client_id: str | None = None
) -> bool:
    """Whether a broker at host and port accepts the credentials within the time-out. With a `client_id`, whoever has
    entered under that one is ended: in MQTT the later of two clients with one id stays."""
    try:
        with socket.create_connection((_ANY_ADDRESS.get(host, host), port), timeout_s) as connection:
            connection.sendall(connect_packet(username, password, client_id))
            answer = b""
            while len(answer) < len(_ACCEPTED) and (received := connection.recv(4)):
                answer += received
            if answer == _ACCEPTED:
                connection.sendall(_DISCONNECT)
            return answer == _ACCEPTED
    except OSError:
        return False


def connect_packet(username: str, password: str, client_id: str | None = None) -> bytes:
    """A CONNECT with a clean session, a keep-alive of 10 s and an unguessable client id, or this one."""
    fields = (client_id or f"probe-{os.urandom(8).hex()}", username, password)
    # protocol name, level 4, flags (user, password, clean session), keep-alive 10 s
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
