"""A class for tests of a broker's rights: it uses every plane of a session."""

from __future__ import annotations

from patience import patience

from ether import ether, ether_get, ether_pub, ether_save, ether_sub
from ether.utils import get_ether_logger


class Probe:
    """Answers, hears, publishes, saves and logs."""

    @ether_get
    def add(self, a: int, b: int) -> int:
        return a + b

    @ether_save
    def store(self, value: int) -> int:
        return value

    @ether_sub(topic="in")
    @ether_pub(topic="out")
    def double(self, value: int) -> int:
        return 2 * value

    @ether_get
    def log(self, text: str) -> None:
        get_ether_logger().warning("%s", text)

    @ether_get
    def record(self, value: int) -> str:
        """Save a value; its id, when it is on disk."""
        saved = ether.record(value, "probed")
        saved.wait(patience(20))
        return saved.id
