"""The handshake that turns a connection to a web server into a WebSocket for MQTT.

Promise: every wrong answer (a login page, a redirect, an error of a proxy, a server that speaks no HTTP) ends in one
sentence that says what was received, and not later than the deadline. The `websockets` package makes the request and
checks the answer. User and password are not part of the handshake: they go to the broker, in CONNECT.

The trap: the first frames may arrive together with the answer; they belong to the WebSocket.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from time import monotonic

from websockets.client import ClientProtocol
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from ether.errors import NotAuthorized
from ether.transport.endpoint import OVER_TLS, Endpoint
from ether.transport.sockets import ByteStream, Waker, wait_on
from ether.transport.websocket import WebSocket

MQTT = Subprotocol("mqtt")
_LONGEST_HEAD = 16_384  # bytes of an answer before its body
_READ_BYTES = 4_096
_SHOWN = 200
_LOGIN_STATUSES, _REDIRECTIONS = {401, 403, 407}, {301, 302, 303, 307, 308}
_END = b"\r\n\r\n"


def upgraded(
    stream: ByteStream, endpoint: Endpoint, deadline: float, waker: Waker, stopped: Callable[[], bool]
) -> WebSocket:
    """A WebSocket over `stream`, which belongs to it from now on. Raises `OSError` (`NotAuthorized` is one), or
    `InterruptedError` when woken and `stopped()`."""
    try:
        protocol = _request(endpoint)
        request = b"".join(protocol.data_to_send())
        if stream.send(request) < len(request):  # the buffer of a new connection is larger
            raise OSError("the WebSocket handshake could not be sent")
        head, early = _answer(stream, deadline, waker, stopped)
        _check(protocol, endpoint, head)
    except BaseException:
        stream.close()
        raise
    return WebSocket(stream, early)


def _request(endpoint: Endpoint) -> ClientProtocol:
    uri = WebSocketURI(endpoint.kind in OVER_TLS, endpoint.host, endpoint.port, endpoint.path or "/", "")
    protocol = ClientProtocol(uri, subprotocols=[MQTT])
    protocol.send_request(protocol.connect())
    return protocol


def _answer(stream: ByteStream, deadline: float, waker: Waker, stopped: Callable[[], bool]) -> tuple[bytes, bytes]:
    """The head of the answer, and the bytes behind it."""
    wait, head = wait_on(stream, waker), b""
    while _END not in head:
        if len(head) > _LONGEST_HEAD or not b"HTTP/".startswith(head[:5]):
            raise OSError("what answers there is no web server, so there is no WebSocket")
        head += _more(stream)
        if _END in head:
            break
        if stopped():
            raise InterruptedError("closed while connecting")
        remaining = deadline - monotonic()
        if remaining <= 0:
            raise TimeoutError("no answer in time")
        wait.wait(remaining, writing=False)
    head, _, early = head.partition(_END)
    return head + _END, early


def _more(stream: ByteStream) -> bytes:
    try:
        data = stream.recv(_READ_BYTES)
    except BlockingIOError:
        return b""
    if not data:
        raise OSError("it closed the connection at the WebSocket handshake, perhaps it speaks plain MQTT on this port")
    return data


def _check(protocol: ClientProtocol, endpoint: Endpoint, head: bytes) -> None:
    found = re.match(rb"HTTP/\d(?:\.\d)? (\d{3})\b ?([^\r\n]*)", head)
    if found is None:
        raise OSError("what answers there is no web server, so there is no WebSocket")
    status = int(found[1])
    if status != 101:
        raise _refusal(endpoint, status, f"HTTP {status} {_printable(found[2])}".rstrip(), head)
    protocol.receive_data(head)
    if protocol.handshake_exc is not None:
        why = _printable(str(protocol.handshake_exc).encode())
        raise OSError(f"its answer to the WebSocket handshake is wrong ({why})")
    if protocol.subprotocol != MQTT:
        raise OSError("there is a WebSocket, but not one of an MQTT broker")


def _refusal(endpoint: Endpoint, status: int, said: str, head: bytes) -> OSError:
    if status in _LOGIN_STATUSES:
        return NotAuthorized(endpoint.address, f"its web server answered {said}")
    if status in _REDIRECTIONS:
        location = re.search(rb"\r\nlocation:[ \t]*([^\r\n]*)", head, re.IGNORECASE)
        where = f" to {_printable(location[1])}" if location else ""
        return OSError(
            f"its web server answered {said} and leads on{where}, which is not followed: name the final address"
        )
    if status == 404:
        return OSError(f"its web server answered {said}: there is no WebSocket at the path {endpoint.path or '/'}")
    return OSError(f"its web server answered {said} instead of opening a WebSocket")


def _printable(said: bytes) -> str:
    text = said.decode("latin-1")
    return "".join(c if c.isprintable() else "?" for c in text)[:_SHOWN]
