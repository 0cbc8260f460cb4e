"""Classes for tests of simulated sessions: on the bench they would open real ports."""

from __future__ import annotations

from patience import patience

from ether import ether_get, ether_pub, ether_shutdown
from hardware_adapters import SerialPort, VisaInstrument

THERMOMETER = "TCPIP0::10.0.0.7::5025::SOCKET"


class Heater:
    """A serial device at the port that it is given. `set_power` is a setting that `on_connect` brings back."""

    def __init__(self, port: str, identity: str = "ACME,Heater,0042,1.3") -> None:
        self.power = 0.0
        self.port = SerialPort(port, identity=identity, timeout_s=patience(2), on_connect=self.restore)

    def restore(self, port: SerialPort) -> None:
        port.write(f"POW {self.power:g}")

    @ether_get
    def set_power(self, power: float) -> None:
        self.power = power
        self.port.write(f"POW {power:g}")

    @ether_get
    def read_power(self) -> float:
        return self.port.query_value("POW?", float)

    @ether_get
    def where(self) -> str:
        return self.port.port

    @ether_shutdown
    def close(self) -> None:
        self.port.close()


class Thermometer:
    """A VISA device whose address stands in the class itself."""

    def __init__(self) -> None:
        self.visa = VisaInstrument(THERMOMETER, timeout_s=patience(2))

    @ether_get
    @ether_pub(topic="temperature")
    def read(self) -> float:
        return self.visa.query_value("TEMP?", float)

    @ether_shutdown
    def close(self) -> None:
        self.visa.close()


class Given:
    """Knows nothing of adapters: keeps what it was given."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        self.args, self.kwargs = args, kwargs

    @ether_get
    def given(self) -> dict[str, object]:
        return {"args": list(self.args), **self.kwargs}
