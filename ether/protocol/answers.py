"""The answer to a call: a value, or the reason why there is none.

An error travels twice: its class in a header (a user property over MQTT 5), for tools that read no bodies, and the
whole report in the body.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ether.errors import (
    AnswerNotSent,
    ArgumentProblem,
    Cancelled,
    EtherError,
    InstanceLeased,
    Interrupted,
    NoResponder,
    ValidationFailed,
    remote_error,
)

PROGRESS = "ether/progress"
LOG = "ether/log"
LATER = "ether/later"
SAVE = "ether/save"
SAVE_LATER = "ether/save-later"
"""Schemas of messages of a call that are not a plain request or answer. Progress and log lines come before the answer.
A save is sent again until it is answered, and must be run once. The schemas that end in `later` ask for progress,
too."""

SAVES = frozenset((SAVE, SAVE_LATER))
WATCHED = frozenset((LATER, SAVE_LATER))

RAISED, INVALID, NO_METHOD, CANCELLED = "raised", "invalid", "no-method", "cancelled"
INTERRUPTED, UNKEPT, LEASED = "interrupted", "unkept", "leased"
UNSENT = "unsent"
"""The method ran to its end, and what it returned cannot be sent."""


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """Why a call has no value. `kind` is one of the constants above."""

    kind: str
    class_name: str
    message: str
    traceback: str = ""
    problems: Sequence[ArgumentProblem] = field(default_factory=tuple)
    holder: Mapping[str, Any] = field(default_factory=dict)
    """The holder of the lease, where the instance is leased."""

    def to_value(self) -> dict[str, Any]:
        """The JSON form, in which it is sent."""
        report: dict[str, Any] = {"kind": self.kind, "class": self.class_name, "message": self.message}
        if self.traceback:
            report["traceback"] = self.traceback
        if self.problems:
            report["arguments"] = [[p.argument, p.given, p.accepted] for p in self.problems]
        if self.holder:
            report["holder"] = dict(self.holder)
        return {"error": report}

    @classmethod
    def from_value(cls, value: object) -> ErrorReport:
        """Read a received value. One that is not a report still gives an error."""
        match value:
            case {"error": {"kind": str(kind), "class": str(name), "message": str(message), **rest}}:
                traceback, holder = rest.get("traceback", ""), rest.get("holder", {})
                return cls(
                    kind, name, message, traceback if isinstance(traceback, str) else "", _problems(rest),
                    holder if isinstance(holder, dict) else {},
                )  # fmt: skip
        return cls(RAISED, "Exception", f"an error that cannot be read: {value!r:.200}")

    def to_exception(self, call: str, method: str) -> EtherError:
        """The exception that the caller raises."""
        if self.kind == INVALID:
            return ValidationFailed(method, self.problems)
        if self.kind == NO_METHOD:
            return NoResponder(call, self.message)
        if self.kind == CANCELLED:
            return Cancelled(call)
        if self.kind == LEASED:
            holder = dict(self.holder)
            return InstanceLeased(str(holder.pop("instance", "")), method.partition(".")[2] or method, holder)
        if self.kind == INTERRUPTED:
            return Interrupted(call, self.message)
        if self.kind == UNSENT:
            return AnswerNotSent(call, self.class_name, self.message, self.traceback)
        return remote_error(call, self.class_name, self.message, self.traceback)


def _problems(rest: Mapping[Any, Any]) -> tuple[ArgumentProblem, ...]:
    listed = rest.get("arguments")
    if not isinstance(listed, list):
        return ()
    return tuple(ArgumentProblem(*map(str, item)) for item in listed if isinstance(item, list) and len(item) == 3)


def status_of(result: object, method: str) -> dict[str, Any]:
    """What `ether.save` returns for a method that returned."""
    return {"status": "success", "result": result, "message": f"{method} succeeded"}


def pending_status(call_id: str, message: str) -> dict[str, Any]:
    """What `ether.save` returns for a call that is on disk and goes on being sent."""
    return {"status": "pending", "call_id": call_id, "message": message}


def error_status(error: EtherError) -> dict[str, Any]:
    """What `ether.save` returns for everything else: `error` is the class and the text, as the last line of a traceback
    has them, and `message` the text alone. `ran` is there, and True, where the method has run to its end; then
    `message` says so, too."""
    name = getattr(error, "remote_class", type(error).__name__)
    message = getattr(error, "remote_message", str(error))
    said = f"{name}: {message}" if message else name
    status: dict[str, Any] = {"status": "error", "error": said, "message": message}
    if getattr(error, "ran", None) is True:
        status |= {"ran": True, "message": str(error)}
    if traceback := getattr(error, "remote_traceback", ""):
        status["traceback"] = traceback
    return status
