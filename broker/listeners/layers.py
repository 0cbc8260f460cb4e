"""What may lie between a socket and its client: TLS, a WebSocket, both. Each is bytes in, bytes out, without I/O."""

from typing import Protocol


class LayerFailed(Exception):
    """The other side does not speak this layer, or has ended it. What `send` still gives is the last to be written."""


class Layer(Protocol):
    """One layer of one connection."""

    def receive(self, data: bytes) -> bytes:
        """What these bytes from below mean to what lies above; often nothing. Raises `LayerFailed`."""

    def send(self, data: bytes | memoryview) -> bytes:
        """What is to be sent below: the layer's own bytes (of a handshake, an answer to a ping), then these."""

    def close(self) -> None:
        """Say goodbye with the next `send`."""
