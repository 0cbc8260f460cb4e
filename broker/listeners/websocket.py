"""A WebSocket below a client: the core of the `websockets` package, which does no I/O.

Promise: the subprotocol `mqtt` is demanded and chosen. A request with an Origin, that is: from a page in a browser, is
let in only where the settings name that Origin. A frame larger than its client may send is refused at its head. Text
frames end the connection: MQTT demands binary ones.
"""

import logging
from collections.abc import Callable
from typing import cast

from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Origin, Subprotocol

from broker.listeners.layers import LayerFailed

HEAD_BYTES = 1_024
"""A frame may be so much larger than a packet, because it may begin with the end of another one."""

_silent = logging.getLogger("broker.websocket")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


class WebSocketLayer:
    """One connection's WebSocket, on the server's side. `largest` gives the largest packet that is taken now."""

    def __init__(self, origins: tuple[str, ...], largest: Callable[[], int]) -> None:
        self._largest = largest
        self._protocol = ServerProtocol(
            origins=[None, *(cast(Origin, origin) for origin in origins)],
            subprotocols=[cast(Subprotocol, "mqtt")],
            logger=_silent,
        )

    def receive(self, data: bytes) -> bytes:
        protocol = self._protocol
        protocol.max_size = self._largest() + HEAD_BYTES
        protocol.receive_data(data)
        pieces: list[bytes | bytearray | memoryview] = []
        for event in protocol.events_received():
            if isinstance(event, Request):
                response = protocol.accept(event)
                protocol.send_response(response)
            elif isinstance(event, Frame):
                if event.opcode is Opcode.TEXT:
                    protocol.fail(1003, "MQTT is binary")
                elif event.opcode in (Opcode.BINARY, Opcode.CONT):
                    pieces.append(event.data)
        if protocol.close_expected() and not pieces:
            raise LayerFailed("" if protocol.handshake_exc is None else f"no WebSocket: {protocol.handshake_exc}")
        return b"".join(pieces)

    def send(self, data: bytes | memoryview) -> bytes:
        if data and self._protocol.state is State.OPEN:
            self._protocol.send_binary(bytes(data))
        return b"".join(self._protocol.data_to_send())

    def close(self) -> None:
        if self._protocol.state is State.OPEN:
            try:
                self._protocol.send_close(1000)
            except InvalidState:
                return
