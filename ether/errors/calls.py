"""Errors of calls to other instances; the whole tree is drawn in `ether.errors`."""

from __future__ import annotations

import builtins
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ether.errors.base import EtherError


class CallError(EtherError):
    """A call to another instance that has no value to return."""


class RemoteError(CallError):
    """The method raised.

    `remote_class` and `remote_message` are what it raised, `remote_traceback` where, as text from its own process.
    An error whose remote class is a builtin is also an instance of that builtin: `except KeyError` catches it.
    """

    def __init__(self, call: str, remote_class: str, remote_message: str, remote_traceback: str) -> None:
        Exception.__init__(self, call, remote_class, remote_message, remote_traceback)
        self.call = call
        self.remote_class = remote_class
        self.remote_message = remote_message
        self.remote_traceback = remote_traceback

    def __str__(self) -> str:
        told = f"{self.call} raised {self.remote_class}: {self.remote_message}"
        return f"{told}\n\nRemote traceback:\n{self.remote_traceback.rstrip()}" if self.remote_traceback else told

    def __reduce__(self) -> tuple[object, ...]:
        return remote_error, (self.call, self.remote_class, self.remote_message, self.remote_traceback)


_NOT_COMBINED = (BaseExceptionGroup, StopIteration, StopAsyncIteration, RemoteError)
"""Exceptions that need arguments of their own to exist, or that mean something to the interpreter."""


def remote_error(call: str, remote_class: str, remote_message: str, remote_traceback: str) -> RemoteError:
    """A `RemoteError` that is also the builtin exception of that name, where there is one."""
    builtin = getattr(builtins, remote_class, None)
    if not (isinstance(builtin, type) and issubclass(builtin, Exception)) or issubclass(builtin, _NOT_COMBINED):
        return RemoteError(call, remote_class, remote_message, remote_traceback)
    if builtin not in _combined:
        _combined[builtin] = type("RemoteError", (RemoteError, builtin), {"__module__": __name__})
    return _combined[builtin](call, remote_class, remote_message, remote_traceback)


_combined: dict[type[Exception], type[RemoteError]] = {}


class NoResponder(CallError, LookupError):
    """Nobody can answer. `existing` are the names that there are, nearest first."""

    def __init__(self, call: str, why: str, existing: Sequence[str] = ()) -> None:
        self.call, self.why, self.existing = call, why, tuple(existing)
        there = f" There are: {', '.join(self.existing)}." if self.existing else ""
        super().__init__(f"nobody can answer {call}: {why}.{there}")


class InstanceLost(CallError, ConnectionError):
    """The instance died while it was working on the call; whether it had finished is not known."""

    def __init__(self, call: str, instance: str, why: str) -> None:
        self.call, self.instance, self.why = call, instance, why
        super().__init__(f"{instance} died while it was working on {call}: {why}")


class RequestTimeout(CallError, TimeoutError):
    """No answer by the deadline. `timeout_s` is how long was waited, `state` what the instance is doing."""

    def __init__(self, call: str, instance: str, timeout_s: float, state: str) -> None:
        self.call, self.instance, self.timeout_s, self.state = call, instance, timeout_s, state
        super().__init__(f"{call} did not answer within {timeout_s:g} s: {instance} {state}")


class InstanceLeased(CallError, BlockingIOError):
    """Somebody has the instance alone (`ether.lease`). `holder` says who: `program`, `host`, `pid`, `reason`, `since`
    (unix seconds)."""

    def __init__(self, instance: str, method: str, holder: Mapping[str, Any]) -> None:
        self.instance, self.method, self.holder = instance, method, dict(holder)
        since = time.strftime("%H:%M:%S", time.localtime(float(holder.get("since") or 0)))
        reason = f", for {holder['reason']!r}" if holder.get("reason") else ""
        super().__init__(
            f"{instance} does not take {method}: {holder.get('program')} on {holder.get('host')}"
            f" (pid {holder.get('pid')}) has it alone since {since}{reason}"
        )


class LeaseEnded(CallError, ConnectionError):
    """A lease ended before it was given back: others may have used the instance meanwhile."""

    def __init__(self, instance: str, why: str) -> None:
        self.instance, self.why = instance, why
        super().__init__(
            f"the lease of {instance} ended before it was given back: {why}; others may have used it since"
        )


class Cancelled(CallError, RuntimeError):
    """The call was cancelled. Inside a method `ether.progress()` raises it when the caller has cancelled."""

    def __init__(self, call: str) -> None:
        self.call = call
        super().__init__(f"{call} was cancelled")


class Interrupted(CallError, RuntimeError):
    """A save that may have been begun, of which nobody can say how far it came. It is not run again."""

    def __init__(self, call: str, why: str) -> None:
        self.call, self.why = call, why
        super().__init__(f"{call} was interrupted: {why}")


class SyncError(CallError, RuntimeError):
    """Not everybody did what `ether.sync(topic)` asked for.

    `results` maps those who succeeded to what they returned, `failed`, `lost` and `missing` the others to why.
    """

    def __init__(
        self, topic: str, results: Mapping[str, object], failed: Mapping[str, str], lost: Mapping[str, str],
        missing: Mapping[str, str],
    ) -> None:  # fmt: skip
        self.topic, self.results = topic, dict(results)
        self.failed, self.lost, self.missing = dict(failed), dict(lost), dict(missing)
        told = [f"{kind}: {_listed(group)}" for kind, group in self._groups() if group]
        succeeded = ", ".join(self.results) or "nobody"
        super().__init__(f"sync {topic!r} did not succeed everywhere; {'; '.join(told)}; succeeded: {succeeded}")

    def _groups(self) -> tuple[tuple[str, dict[str, str]], ...]:
        return (("failed", self.failed), ("died", self.lost), ("missing", self.missing))


def _listed(reasons: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({reason})" for name, reason in reasons.items())
