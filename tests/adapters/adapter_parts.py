"""A user's class for tests: what its instrument says by itself is published."""

from __future__ import annotations

from ether import ether_cleanup, ether_get, ether_pub
from hardware_adapters import SerialPort


class Balance:
    """A balance that sends readings without being asked."""

    def __init__(self, port: str, identity: str) -> None:
        self.port = SerialPort(
            port, identity=identity, on_input=self.reading, unsolicited=lambda frame: frame.startswith(b"W=")
        )

    @ether_pub(topic="weight")
    def reading(self, frame: bytes) -> float:
        """A line such as `W=12.5`, in gram."""
        return float(frame.removeprefix(b"W="))

    @ether_get
    def ask(self, command: str) -> str:
        """An answer of the instrument."""
        return self.port.query(command)

    @ether_cleanup
    def stop(self) -> None:
        """Free the port."""
        self.port.close()
