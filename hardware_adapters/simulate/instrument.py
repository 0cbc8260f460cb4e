"""Simulated instruments: as small Python models, or described by properties and dialogues.

A model is a class with `answer(command)`; its result is sent back, None sends nothing:

    class Valve(SimulatedInstrument):
        def answer(self, command):
            return {"OPEN": "ok", "STATE?": "open"}.get(command)

The base class answers the common SCPI commands (`*IDN?`, `*OPC?`, `*ESR?`, `*STB?`, `*CLS`, `*RST`, `SYST:ERR?`), and
keeps an error queue: an unknown command is -113, a value out of range -222.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hardware_adapters.framing import Framing, ScpiMessages
from hardware_adapters.simulate.clock import Clock
from hardware_adapters.simulate.faults import Faults
from hardware_adapters.simulate.world import World

UNDEFINED, OUT_OF_RANGE, WRONG_TYPE = (-113, "Undefined header"), (-222, "Data out of range"), (-104, "Data type error")
_COMMAND_ERROR, _EXECUTION_ERROR, _POWER_ON = 0x20, 0x10, 0x80
_ERROR_QUEUE, _EVENT_SUMMARY = 0x04, 0x20
_QUEUE_LIMIT = 20


@dataclass(frozen=True, slots=True)
class Property:
    """A number of an instrument: its commands (`get` is `TEMP?`, `set` is `TEMP {}`), limits, format and noise."""

    name: str
    get: str | None = None
    set: str | None = None
    value: float = 0.0
    min: float | None = None
    max: float | None = None
    form: str = "{:g}"
    noise: float = 0.0
    drift_per_s: float = 0.0

    def allows(self, value: float) -> bool:
        """Whether the value is within the limits."""
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max)


@dataclass(frozen=True, slots=True)
class Stream:
    """Unsolicited messages of an instrument: every `every_s` seconds a property, formatted by `form` (`W={}`)."""

    every_s: float
    property: str
    form: str = "{}"


class SimulatedInstrument:
    """One instrument of a lab. Subclasses write `answer`; `lab(name)` and `change(name, value)` reach its world."""

    framing: Framing = ScpiMessages()
    stream_every_s: float | None = None
    chatter: bytes = b"!CHAT"

    def __init__(self, name: str, identity: str = "") -> None:
        self.name, self.identity = name, identity or f"ETHER,{type(self).__name__},{name},1"
        self._errors: deque[tuple[int, str]] = deque(maxlen=_QUEUE_LIMIT)
        self._events = _POWER_ON
        self.received: list[str] = []

    def place(self, world: World, clock: Clock, faults: Faults) -> None:
        """Put the instrument into a lab. For `SimulatedLab`."""
        self.world, self.clock, self.faults = world, clock, faults

    def answer(self, command: str) -> str | bytes | None:
        """The answer to a command; None for no answer. Raises LookupError for an unknown command."""
        raise LookupError(command)

    def unasked(self) -> str | bytes | None:
        """The unsolicited message, called every `stream_every_s` seconds; None for none this time."""
        return None

    def reset(self) -> None:
        """The effect of `*RST` and of power-up."""

    def powered(self) -> None:
        """The instrument was plugged in: its settings are lost, as with most instruments."""
        self._events = _POWER_ON
        self._errors.clear()
        self.reset()

    def lab(self, name: str) -> float:
        """A quantity of the lab, as it is now."""
        return self.world.value(name, self.clock.now())

    def change(self, name: str, value: float) -> None:
        """Change a quantity of the lab."""
        self.world.set(name, value, self.clock.now())

    def fail(self, error: tuple[int, str]) -> None:
        """Add an entry to the error queue, and set its bit of the standard events."""
        self._errors.append(error)
        self._events |= _COMMAND_ERROR if -200 < error[0] <= -100 else _EXECUTION_ERROR

    def handle(self, message: bytes) -> bytes | None:
        """The answer to a message; None where there is none."""
        command = message.decode("ascii", "replace").strip()
        self.received.append(command)
        try:
            found = self._common(command) if command.startswith(("*", "SYST:ERR")) else self.answer(command)
        except LookupError:
            self.fail(UNDEFINED)
            return None
        return found.encode() if isinstance(found, str) else found

    def _common(self, command: str) -> str | None:
        """The commands that IEEE 488.2 and SCPI demand of every instrument."""
        match command:
            case "*IDN?":
                wrong = self.faults.on("wrong_device", self.clock.now())
                return "OTHER,Instrument,0,0" if wrong else self.identity
            case "*OPC?":
                return "1"
            case "*ESR?":
                events, self._events = self._events, 0  # reading clears the register
                return str(events)
            case "*STB?":
                return str((_ERROR_QUEUE if self._errors else 0) | (_EVENT_SUMMARY if self._events else 0))
            case "*CLS":
                self._errors.clear()
                self._events = 0
                return None
            case "*RST":
                self.reset()
                return None
            case "SYST:ERR?":
                number, text = self._errors.popleft() if self._errors else (0, "No error")
                return f'{number},"{text}"'
        raise LookupError(command)


class DescribedInstrument(SimulatedInstrument):
    """An instrument of properties, which are quantities `<instrument>.<property>` of the lab, and fixed dialogues."""

    def __init__(
        self,
        name: str,
        identity: str,
        properties: Sequence[Property],
        dialogues: Mapping[str, str | None] | None = None,
        framing: Framing | None = None,
        stream: Stream | None = None,
    ) -> None:
        super().__init__(name, identity)
        self._stream, self.stream_every_s = stream, stream.every_s if stream else None
        self.framing = framing or SimulatedInstrument.framing
        self.properties, self._dialogues = tuple(properties), dict(dialogues or {})
        self._getters = {prop.get: prop for prop in properties if prop.get}
        self._setters = [(_pattern(prop.set), prop) for prop in properties if prop.set]

    def place(self, world: World, clock: Clock, faults: Faults) -> None:
        """See `SimulatedInstrument`."""
        super().place(world, clock, faults)
        for prop in self.properties:
            world.add(f"{self.name}.{prop.name}", prop.value)

    def reset(self) -> None:
        """Settings return to their first values; properties that are only measured stay."""
        for prop in self.properties:
            if prop.set:
                self.change(f"{self.name}.{prop.name}", prop.value)

    def answer(self, command: str) -> str | None:
        """See `SimulatedInstrument`."""
        if command in self._dialogues:
            return self._dialogues[command]
        if command in self._getters:
            return self.reading(self._getters[command])
        for pattern, prop in self._setters:
            if found := pattern.fullmatch(command):
                self._set(prop, found[1])
                return None
        raise LookupError(command)

    def unasked(self) -> str | None:
        """See `SimulatedInstrument`."""
        streamed = [prop for prop in self.properties if self._stream and prop.name == self._stream.property]
        return self._stream.form.format(self.reading(streamed[0])) if self._stream and streamed else None

    def reading(self, prop: Property) -> str:
        """A property as it is read now, with drift, noise and faults, formatted."""
        now = self.clock.now()
        value = self.lab(f"{self.name}.{prop.name}") + prop.drift_per_s * now
        value += self.faults.random.gauss(0.0, prop.noise) if prop.noise else 0.0
        return prop.form.format(self.faults.measured(value, now))

    def _set(self, prop: Property, text: str) -> None:
        try:
            value = float(text)
        except ValueError:
            self.fail(WRONG_TYPE)
            return
        if prop.allows(value):
            self.change(f"{self.name}.{prop.name}", value)
        else:
            self.fail(OUT_OF_RANGE)


def _pattern(form: str) -> re.Pattern[str]:
    """A pattern for a command with a number in place of `{}`."""
    before, _, after = form.partition("{}")
    return re.compile(re.escape(before) + r"\s*(.+?)\s*" + re.escape(after))
