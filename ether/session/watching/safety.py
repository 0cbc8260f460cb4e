"""The safe state for all: one command to every instance that has one, and what has become of it, by instance.

Promise: an instance that could not be reached is never reported as safe. The trap: an instance without a safe state
does nothing at all; it is left out of the answer, and so whoever asks has to know which those are.
"""

from __future__ import annotations

from typing import NamedTuple

from ether.protocol.presence import LIVES, Announcement
from ether.protocol.safety import SAFE, SAFE_STATE
from ether.session.session import Session

ANSWER_S = 5.0


class SafetyAnswer(NamedTuple):
    """Of one instance: whether its calls were made, which they are, and otherwise why not."""

    safe: bool
    calls: tuple[str, ...]
    why: str = ""


def safe_calls(member: Announcement) -> tuple[str, ...]:
    """The calls that an instance's safe state makes; none where it has none."""
    calls = member.about.get(SAFE_STATE)
    return tuple(map(str, calls)) if isinstance(calls, list) else ()


def make_safe(session: Session, why: str, timeout_s: float = ANSWER_S) -> dict[str, SafetyAnswer]:
    """Ask every instance that has a safe state for it; with an empty `why`, for its end. Returns after all have
    answered, or `timeout_s` seconds. Raises what publishing raises."""
    members = {member.name: member for member in session.announcements() if safe_calls(member)}
    living = [name for name, member in members.items() if member.state in LIVES]
    barrier = session.ask(SAFE, living, timeout_s, {"why": why}) if living else None
    found = {}
    for name, member in members.items():
        calls = safe_calls(member)
        answer = barrier.answers.get(name) if barrier is not None else None
        if answer is not None:
            failed = "; ".join(f"{call}: {text}" for call, text in answer.failed.items())
            found[name] = SafetyAnswer(not failed, calls, failed)
        elif name in living:
            found[name] = SafetyAnswer(False, calls, f"it did not answer within {timeout_s:g} s")
        else:
            found[name] = SafetyAnswer(False, calls, f"it cannot be reached: it is {member.state.value}")
    return found
