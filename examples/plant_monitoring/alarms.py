"""Alarms on the values of a plant: too high, or silent. With hysteresis, and latched until acknowledged.

An alarm is in one of four states, named as in ISA-18.2:

    normal ──bad──▶ unacknowledged ──acknowledge──▶ acknowledged ──good──▶ normal
                         │    ▲
                       good  bad
                         ▼    │
                       returned ──acknowledge──▶ normal

It is latched: an unacknowledged alarm stays, even where the value is good again (`returned`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from ether import ether_every, ether_get, ether_pub, ether_sub


@dataclass
class Alarm:
    """One alarm and its state."""

    name: str
    state: str = "normal"

    def judge(self, bad: bool) -> bool:
        """Enter the present condition; returns whether the state has changed."""
        after = {
            ("normal", True): "unacknowledged",
            ("returned", True): "unacknowledged",
            ("unacknowledged", False): "returned",
            ("acknowledged", False): "normal",
        }
        return self._become(after.get((self.state, bad), self.state))

    def acknowledge(self) -> bool:
        """Acknowledge the alarm; returns whether the state has changed."""
        after = {"unacknowledged": "acknowledged", "returned": "normal"}
        return self._become(after.get(self.state, self.state))

    def _become(self, state: str) -> bool:
        changed, self.state = state != self.state, state
        return changed


class Signal:
    """One measured value, and its two alarms. Bad from `high` on, good again at `clear`; in between it stays."""

    def __init__(self, name: str, high: float, clear: float, silent_s: float) -> None:
        if not clear < high:
            raise ValueError(f"{name}: clear ({clear:g}) must be below high ({high:g})")
        self.high, self.silent = Alarm(f"{name} high"), Alarm(f"{name} silent")
        self._high, self._clear, self._silent_s = high, clear, silent_s
        self._bad = False
        self._heard: float | None = None
        self.value: float | None = None

    def take(self, value: float, now: float) -> list[Alarm]:
        """Enter a value; returns the alarms that changed. NaN is bad."""
        self.value, self._heard = value, now
        self._bad = not value < self._high if not self._bad else not value <= self._clear
        return [alarm for alarm, bad in ((self.high, self._bad), (self.silent, False)) if alarm.judge(bad)]

    def look(self, now: float) -> list[Alarm]:
        """Check for silence; returns the alarms that changed. Silence counts from the first value on."""
        silent = self._heard is not None and now - self._heard > self._silent_s
        return [self.silent] if self.silent.judge(silent) else []


class Alarms:
    """Watches the boiler. `signals` are the limits, by name: `{temperature: {high: 75, clear: 70, silent_s: 1}}`."""

    def __init__(self, signals: dict[str, dict[str, float]]) -> None:
        self._signals = {name: Signal(name, **limits) for name, limits in signals.items()}

    @ether_sub(topic="mqtt:plant/boiler1/temperature")
    def temperature(self, value: float) -> None:
        self._take("temperature", value)

    @ether_sub(topic="mqtt:plant/boiler1/pressure")
    def pressure(self, value: float) -> None:
        self._take("pressure", value)

    @ether_every("100ms")
    def look(self) -> None:
        for signal in self._signals.values():
            for alarm in signal.look(time.monotonic()):
                self.tell(alarm, signal)

    @ether_get
    def acknowledge(self, name: str) -> str:
        """Acknowledge the alarm of this name; returns its new state."""
        for signal in self._signals.values():
            for alarm in (signal.high, signal.silent):
                if alarm.name == name:
                    if alarm.acknowledge():
                        self.tell(alarm, signal)
                    return alarm.state
        raise KeyError(f"no alarm {name!r}; there are {', '.join(self.states())}")

    @ether_get
    def states(self) -> dict[str, str]:
        """All alarms."""
        return {a.name: a.state for signal in self._signals.values() for a in (signal.high, signal.silent)}

    @ether_pub(topic="alarms")
    def tell(self, alarm: Alarm, signal: Signal) -> dict[str, object]:
        """Every change is published, and recorded."""
        return {"alarm": alarm.name, "state": alarm.state, "value": signal.value}

    def _take(self, name: str, value: float) -> None:
        for alarm in self._signals[name].take(value, time.monotonic()):
            self.tell(alarm, self._signals[name])
