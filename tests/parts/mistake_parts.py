"""Classes for the mistakes that people make, and a session of one process in which they make them."""

from __future__ import annotations

from typing import Any

from ether import ether_get, ether_pub, ether_save, ether_sub, ether_sync


class Thermometer:
    """Publishes on `temperature`."""

    @ether_sub(topic="measure")
    @ether_pub(topic="temperature")
    def measure(self, celsius: float = 20.0) -> dict[str, float]:
        return {"celsius": celsius}


class Logger:
    """Hears what nobody publishes."""

    @ether_sub(topic="temprature")
    def take(self, celsius: float) -> None:
        raise AssertionError(f"nobody publishes here: {celsius}")


class Careless:
    """Publishes and listens by calls of its own, with a slip in each name, and calls nobody."""

    @ether_sub(topic="go")
    def go(self, times: int) -> None:
        from ether import ether

        for _ in range(times):
            ether.pub({"pixels": [1]}, topic="imgae")
            ether.pub({"done": True}, topic="finished")
        with ether.subscribe("temperatur"):
            pass


class Camera:
    """Is called in every way, and hears `image`."""

    def __init__(self) -> None:
        self.images: list[Any] = []

    @ether_sub(topic="image")
    def keep_image(self, pixels: list[int]) -> None:
        self.images.append(pixels)

    @ether_get
    def snap(self, exposure: float, gain: int = 1) -> dict[str, float]:
        return {"exposure": exposure, "gain": gain}

    @ether_get
    def bad_result(self) -> dict[str, Any]:
        return {"images": [0, object()]}

    @ether_get
    def fail(self) -> None:
        raise KeyError("no film")

    @ether_save
    def store(self, number: int) -> int:
        return number

    @ether_sync(topic="prepare_trial")
    def prepare(self) -> None:
        """Nothing to prepare."""

    def hidden(self) -> None:
        """Not marked."""


class Lens:
    """Is built of what it is given."""

    def __init__(self, glass: Any) -> None:
        self.glass = glass
