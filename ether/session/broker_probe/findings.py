"""What a broker carries of what Ether needs, as values: one `Finding` for each capability."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class CapabilityVerdict(enum.Enum):
    """Whether a broker has a capability."""

    YES = "yes"
    LIMITED = "limited"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One capability. `value` is what was found, the same at each broker of this kind; `measured` adds the numbers of
    this one. Where the verdict is not yes: `consequence` says what that means, `instead` what Ether does all the
    same, `advice` what to do, and `settings` the lines of `mosquitto.conf` that do it. `prevents`: no session is
    possible."""

    name: str
    verdict: CapabilityVerdict
    value: str
    measured: str = ""
    consequence: str = ""
    instead: str = ""
    advice: str = ""
    settings: tuple[str, ...] = ()
    prevents: bool = False

    def to_value(self) -> dict[str, object]:
        """As JSON."""
        return {
            "name": self.name,
            "verdict": self.verdict.value,
            "value": self.value,
            "measured": self.measured,
            "consequence": self.consequence,
            "instead": self.instead,
            "advice": self.advice,
            "settings": list(self.settings),
            "prevents": self.prevents,
        }


@dataclass(frozen=True, slots=True)
class BrokerFindings:
    """Everything that was found at one broker. `entered`: it let us in. `software` is what it calls itself, where it
    does."""

    address: str
    entered: bool
    software: str
    findings: tuple[Finding, ...]
    took_s: float

    @property
    def carries_a_session(self) -> bool:
        """Whether nothing was found that makes a session impossible."""
        return self.entered and not any(each.prevents for each in self.findings)

    @property
    def settings(self) -> tuple[str, ...]:
        """The lines of `mosquitto.conf` that mend what was found."""
        return tuple(dict.fromkeys(line for each in self.findings for line in each.settings))

    def finding(self, name: str) -> Finding:
        """The finding of that name; `KeyError` where there is none."""
        for each in self.findings:
            if each.name == name:
                return each
        raise KeyError(name)
