"""Errors of calls to other instances; the whole tree is drawn in `ether.errors`."""

from __future__ import annotations

import builtins
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ether.errors.base import EtherError


class CallError(EtherError):
    """A call to another instance that returns no value."""

    ran: bool | None = None
    """Whether the method has run to its end: a call that is repeated then acts twice. None where that is not known."""


class RemoteError(CallError):
    """The method raised an exception.

    `remote_class` and `remote_message` are its class and text, `remote_traceback` is the traceback in its own process,
    as text. Where the remote class is a builtin, the error is also an instance of that builtin: `except KeyError`
    catches it.
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
"""Builtin exceptions that cannot be combined: their constructors need other arguments, or the interpreter itself acts
on them."""


def remote_error(call: str, remote_class: str, remote_message: str, remote_traceback: str) -> RemoteError:
    """A `RemoteError` that is also the builtin exception of that name, where there is one. The combined classes are
    made on first use and kept, so that two errors of one kind have one class."""
    builtin = getattr(builtins, remote_class, None)
    if not (isinstance(builtin, type) and issubclass(builtin, Exception)) or issubclass(builtin, _NOT_COMBINED):
        return RemoteError(call, remote_class, remote_message, remote_traceback)
    if builtin not in _combined:
        _combined[builtin] = type("RemoteError", (RemoteError, builtin), {"__module__": __name__})
    return _combined[builtin](call, remote_class, remote_message, remote_traceback)


_combined: dict[type[Exception], type[RemoteError]] = {}


class AnswerNotSent(RemoteError):
    """The method ran to its end, and what it returned cannot be sent to the caller: it is no plain value, too large for
    the broker, or does not fit the method's own return hint. `remote_class` and `remote_message` say which."""

    ran = True

    def __str__(self) -> str:
        return (
            f"{self.call} ran, but its answer cannot travel: {self.remote_class}: {self.remote_message}\nWhat it does"
            " is done; another call does it again. `result: ignore` beside the method in the registry takes no answer."
        )

    def __reduce__(self) -> tuple[object, ...]:
        return AnswerNotSent, (self.call, self.remote_class, self.remote_message, self.remote_traceback)


class NoResponder(CallError, LookupError):
    """No instance can answer the call. `existing` are the names that exist, the nearest first."""

    ran = False

    def __init__(self, call: str, why: str, existing: Sequence[str] = ()) -> None:
        self.call, self.why, self.existing = call, why, tuple(existing)
        there = f" There are: {', '.join(self.existing)}." if self.existing else ""
        super().__init__(f"nobody can answer {call}: {why}.{there}")


class InstanceLost(CallError, ConnectionError):
    """The instance died while it worked on the call; whether the method had finished is not known."""

    def __init__(self, call: str, instance: str, why: str) -> None:
        self.call, self.instance, self.why = call, instance, why
        super().__init__(f"{instance} died while it was working on {call}: {why}")


class RequestTimeout(CallError, TimeoutError):
    """No answer by the deadline. `timeout_s` is the time waited in seconds, `state` says what the instance was doing,
    `before` how many messages and calls were to be handled before this call: 0 where it was being run, None where that
    is not known."""

    def __init__(self, call: str, instance: str, timeout_s: float, state: str, before: int | None = None) -> None:
        self.call, self.instance, self.timeout_s, self.state, self.before = call, instance, timeout_s, state, before
        super().__init__(f"{call} did not answer within {timeout_s:g} s: {instance} {state}")


class InstanceLeased(CallError, BlockingIOError):
    """Another program holds a lease of the instance (`ether.lease`). `holder` describes that program: `program`,
    `host`, `pid`, `reason`, `since` (unix seconds)."""

    ran = False

    def __init__(self, instance: str, method: str, holder: Mapping[str, Any]) -> None:
        self.instance, self.method, self.holder = instance, method, dict(holder)
        since = time.strftime("%H:%M:%S", time.localtime(float(holder.get("since") or 0)))
        reason = f", for {holder['reason']!r}" if holder.get("reason") else ""
        super().__init__(
            f"{instance} does not take {method}: {holder.get('program')} on {holder.get('host')}"
            f" (pid {holder.get('pid')}) has it alone since {since}{reason}"
        )


class LeaseEnded(CallError, ConnectionError):
    """A lease ended before it was given back: other programs may have used the instance since."""

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
    """A save that may have begun, and whose progress cannot be known. It is not repeated."""

    def __init__(self, call: str, why: str) -> None:
        self.call, self.why = call, why
        super().__init__(f"{call} was interrupted: {why}")


class SyncError(CallError, RuntimeError):
    """`ether.sync(topic)` did not succeed at every instance.

    `results` maps the names of the instances that succeeded to their values; `failed`, `lost` and `missing` map the
    names of the others to the reason.
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
