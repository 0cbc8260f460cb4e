"""Which failures of a driver mean that its device is gone. Pure.

Promise: one success begins the count anew; what the driver was asked wrongly (an argument, a value) is no sign of its
device. The trap: exceptions are known by their names, because the class of a driver's library is not imported here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from ether.errors import EtherError


def is_one_of(error: BaseException, names: Sequence[str]) -> bool:
    """Whether an exception, or a class that it inherits from, has one of these names: `OSError`,
    `SerialException` or `serial.serialutil.SerialException`. An error of Ether's own never is one."""
    if isinstance(error, EtherError):
        return False
    for cls in type(error).__mro__[:-1]:
        full = f"{cls.__module__}.{cls.__qualname__}"
        if cls.__name__ in names or full in names or any(_same(full, name) for name in names):
            return True
    return False


def _same(full: str, name: str) -> bool:
    """`serial.SerialException` is `serial.serialutil.SerialException`, exported by the package above."""
    package, _, last = name.rpartition(".")
    return bool(package) and full.startswith(f"{package}.") and full.rpartition(".")[2] == last


@dataclass(slots=True)
class FailuresInARow:
    """Counts failures; says when `after` of them have come in a row, within `within_s` of each other."""

    after: int
    within_s: float | None = None
    _times: deque[float] = field(default_factory=deque)

    def failed(self, now: float) -> bool:
        """One more; whether these are enough."""
        self._times.append(now)
        while len(self._times) > self.after or (self.within_s is not None and now - self._times[0] > self.within_s):
            self._times.popleft()
        return len(self._times) >= self.after

    def went_well(self) -> None:
        """The count begins anew."""
        self._times.clear()

    @property
    def began(self) -> float | None:
        """When the first of these failures came; None where none has."""
        return self._times[0] if self._times else None
