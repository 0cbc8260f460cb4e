"""Every error that Ether raises, in one tree.

    EtherError
    ├── ConfigError (ValueError)            the YAML, dict or settings say something that cannot be
    ├── InvalidName (ValueError)            a session, instance or topic name breaks the rule
    ├── MarkError (TypeError)               a decorator or registry entry marks what cannot be marked
    ├── PayloadError (ValueError)           a value or body that cannot cross the wire
    │   ├── EncodeError                     … this value cannot be sent
    │   ├── DecodeError                     … these bytes cannot be understood
    │   └── PayloadTooLarge                 … more bytes than the broker takes
    ├── ValidationFailed (ValueError)       a payload does not fit the method's arguments
    ├── ResultInvalid (ValueError)          what a method returned does not fit its own return hint
    ├── TransportError (ConnectionError)    between this process and the broker
    │   ├── BrokerUnreachable               … nobody answers there
    │   ├── NotAuthorized (PermissionError) … it answers, and refuses
    │   │   └── WrongLabKey                 … the key that machines of one lab share
    │   ├── SubscribeRefused                … a subscription was not granted
    │   ├── TransportClosed                 … used after close()
    │   └── PublishTimeout (TimeoutError)   … not accepted, or not acknowledged, in time
    ├── StoreFailed (OSError)               a file that has to outlive this process cannot be written, or read
    ├── UnsupportedFeature (NotImplementedError)  MQTT 3.1.1 has no such thing
    ├── BrokerFailed (RuntimeError)         the embedded broker did not start
    ├── SeveralSessions (LookupError)       several sessions run, and none was named
    ├── ServiceFailed (RuntimeError)        a service of this machine: not installed, started or removed
    ├── OutboxFailed (OSError)              the file that keeps what is not saved yet cannot be used
    ├── OutboxFull (TimeoutError)           what is to be saved finds no room, and the policy is to wait
    ├── NotSaved (OSError)                  a value is not on disk: not yet, or never, and why
    ├── NotJoined (RuntimeError)            a call that needs a session, before `ether.tap()`
    ├── NotAllowedHere (RuntimeError)       a call that cannot be made from inside an instance, or twice
    ├── StartFailed (RuntimeError)          `ether.tap()`: which instances are not ready, and why
    ├── NameTaken (RuntimeError)            a session or instance of this name is there already
    ├── LedgerError (OSError)               where results are kept
    │   ├── LedgerFull                      … no space is left on its disk
    │   ├── LedgerFailed                    … it cannot be written or read: an I/O error, a wrong folder
    │   ├── LedgerLocked                    … another program is writing to it
    │   ├── LedgerDamaged                   … what is on the disk is not what was written
    │   └── SchemaTooNew                    … a newer Ether has written it
    ├── NoLedger (LookupError)              nothing was recorded under that name
    ├── SeveralLedgers (LookupError)        one session was recorded at several places
    ├── NotRecorded (LookupError)           what is asked for is no record of this ledger, or several are meant
    ├── NoSuchRun (LookupError)             … is no run of it
    ├── QueryMistake (ValueError)           `ether.data()`: a condition or a point in time that cannot be understood
    ├── ExportFailed (ValueError)           records cannot be written in that form
    ├── ExportUnwritable (OSError)          … or their file cannot be written
    ├── MissingExtra (ImportError)          a library is needed that is not installed
    ├── InSafeState (RuntimeError)          an instance whose device is in its safe state, and does not do what is asked
    ├── RunGoesOn (RuntimeError)            `ether.run()`: another one goes on in this session
    ├── RunDiffers (ValueError)             … a run that is to go on had other conditions
    ├── TrialNotReady (TimeoutError)        … an instance is not ready for the trial, or for its end
    ├── TrialDisturbed (ConnectionError)    … an instance died during the trial
    ├── ReadbackDiffers (ValueError)        … what was read back is not what was set
    ├── NotPlanned (LookupError)            … `run.planned()`: the configuration does not plan this run
    ├── NoRunHere (LookupError)             … no run goes on that could pause
    ├── ConditionNotMet (TimeoutError)      `ether.wait_for()`: no message met the condition
    ├── LifecycleFailed (RuntimeError)      save_all, cleanup or shutdown: who failed or did not answer
    └── CallError                           a call to another instance that has no value to return
        ├── RemoteError                     … the method raised; also the builtin that it raised, where it was one
        ├── NoResponder (LookupError)       … nobody of that name, or no such method
        ├── InstanceLost (ConnectionError)  … the instance died while it was working on it
        ├── InstanceLeased (BlockingIOError) … somebody has the instance alone: who, why, since when
        ├── LeaseEnded (ConnectionError)    `ether.lease()`: it ended before it was given back
        ├── RequestTimeout (TimeoutError)   … no answer by the deadline
        ├── Cancelled (RuntimeError)        … it was cancelled
        ├── Interrupted (RuntimeError)      … a save whose instance died in the middle; it is not run again
        └── SyncError (RuntimeError)        `ether.sync()`: who succeeded, who failed, who died or is missing

Each class builds its own sentence (what was attempted, with which thing, what happened, what to do) and
keeps its arguments as attributes. Each inherits the builtin that a caller would already catch.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# isort: off
from ether.errors.base import EtherError as EtherError
from ether.errors.calls import (
    CallError as CallError,
    Cancelled as Cancelled,
    InstanceLeased as InstanceLeased,
    InstanceLost as InstanceLost,
    Interrupted as Interrupted,
    LeaseEnded as LeaseEnded,
    NoResponder as NoResponder,
    RemoteError as RemoteError,
    RequestTimeout as RequestTimeout,
    SyncError as SyncError,
    remote_error as remote_error,
)
from ether.errors.devices import InSafeState as InSafeState
from ether.errors.ledger import (
    LedgerDamaged as LedgerDamaged,
    LedgerError as LedgerError,
    LedgerFailed as LedgerFailed,
    LedgerFull as LedgerFull,
    LedgerLocked as LedgerLocked,
    SchemaTooNew as SchemaTooNew,
)
from ether.errors.lineage import (
    NoSuchRun as NoSuchRun,
    NotRecorded as NotRecorded,
)
from ether.errors.reading import (
    ExportFailed as ExportFailed,
    ExportUnwritable as ExportUnwritable,
    MissingExtra as MissingExtra,
    NoLedger as NoLedger,
    QueryMistake as QueryMistake,
    SeveralLedgers as SeveralLedgers,
)
from ether.errors.runs import (
    ConditionNotMet as ConditionNotMet,
    NoRunHere as NoRunHere,
    NotPlanned as NotPlanned,
    ReadbackDiffers as ReadbackDiffers,
    RunDiffers as RunDiffers,
    RunGoesOn as RunGoesOn,
    TrialDisturbed as TrialDisturbed,
    TrialNotReady as TrialNotReady,
)
from ether.errors.saving import (
    NotSaved as NotSaved,
    OutboxFailed as OutboxFailed,
    OutboxFull as OutboxFull,
)
# isort: on


class ConfigError(EtherError, ValueError):
    """A configuration that cannot be used.

    `path` is the dotted place inside the configuration, `file` and `line` where it was written (1-based),
    both None where it did not come from a file. `nearest` is the valid key that was probably meant.
    """

    def __init__(
        self,
        problem: str,
        *,
        file: str | None = None,
        line: int | None = None,
        path: str | None = None,
        nearest: str | None = None,
    ) -> None:
        self.problem, self.file, self.line, self.path, self.nearest = problem, file, line, path, nearest
        where = f"{file}:{line}" if file and line else file or ""
        sentence = ": ".join(part for part in (where, path, problem) if part)
        super().__init__(sentence + (f" Did you mean {nearest!r}?" if nearest else ""))


class InvalidName(EtherError, ValueError):
    """A name that cannot be used; `kind` says for what, `rule` what would be valid."""

    def __init__(self, kind: str, name: object, rule: str) -> None:
        self.kind, self.name, self.rule = kind, name, rule
        shown = repr(name)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        super().__init__(f"{shown} cannot be the name of {'an' if kind[:1] in 'aeiou' else 'a'} {kind}: {rule}")


class MarkError(EtherError, TypeError):
    """A decorator or a registry entry that cannot apply to what it was put on."""


class PayloadError(EtherError, ValueError):
    """A value or a body that cannot cross the wire."""


class EncodeError(PayloadError):
    """A value that cannot be sent. `path` is the place inside the value, e.g. `images[3].mask`."""

    def __init__(self, path: str, problem: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(f"cannot send {path or 'the value'}: {problem}")


class DecodeError(PayloadError):
    """Bytes that arrived and cannot be understood."""


class PayloadTooLarge(PayloadError):
    """More bytes than the broker takes in one message. Sizes in bytes."""

    def __init__(self, topic: str, size: int, limit: int) -> None:
        self.topic, self.size, self.limit = topic, size, limit
        super().__init__(
            f"cannot publish {size:,} bytes to {topic!r}: this broker takes at most {limit:,} bytes in one message."
            " Send it in parts, or raise the broker's limit."
        )


@dataclass(frozen=True, slots=True)
class ArgumentProblem:
    """What is wrong with one argument: its name, what was given, what is accepted."""

    argument: str
    given: str
    accepted: str

    def __str__(self) -> str:
        return f"{self.argument}: {self.accepted} (given: {self.given})"


class ValidationFailed(EtherError, ValueError):
    """A payload that does not fit the arguments of the method that it was sent to."""

    def __init__(self, method: str, problems: Sequence[ArgumentProblem]) -> None:
        self.method, self.problems = method, tuple(problems)
        super().__init__(f"{method} does not accept this payload: " + "; ".join(map(str, self.problems)))


class ResultInvalid(EtherError, ValueError):
    """What a method returned does not fit its return hint; each problem's `argument` is a place in the result."""

    def __init__(self, method: str, problems: Sequence[ArgumentProblem]) -> None:
        self.method, self.problems = method, tuple(problems)
        listed = "; ".join(map(str, self.problems))
        super().__init__(f"{method} ran, but what it returned does not fit its return hint: {listed}")


class TransportError(EtherError, ConnectionError):
    """Something between this process and the broker."""


class BrokerUnreachable(TransportError):
    """Nobody answers at the broker's address within the time given."""

    def __init__(self, address: str, why: str) -> None:
        self.address, self.why = address, why
        super().__init__(f"cannot reach a broker at {address}: {why}. Is it running, and is the address right?")


class NotAuthorized(TransportError, PermissionError):
    """The broker answers, and refuses this user."""

    def __init__(self, address: str, why: str) -> None:
        self.address, self.why = address, why
        super().__init__(f"the broker at {address} refuses this connection: {why}. Check user name and password.")


class SubscribeRefused(TransportError):
    """The broker did not grant, or did not confirm, a subscription."""

    def __init__(self, topic_filter: str, why: str) -> None:
        self.topic_filter, self.why = topic_filter, why
        super().__init__(f"the broker did not confirm the subscription to {topic_filter!r}: {why}")


class TransportClosed(TransportError):
    """The connection was closed by this program, and then used."""


class PublishTimeout(TransportError, TimeoutError):
    """A message was not accepted or not acknowledged in time; `timeout_s` in seconds."""

    def __init__(self, topic: str, timeout_s: float, why: str) -> None:
        self.topic, self.timeout_s, self.why = topic, timeout_s, why
        super().__init__(f"publishing to {topic!r} did not complete within {timeout_s:g} s: {why}")


class StoreFailed(EtherError, OSError):
    """A file that has to outlive this process cannot be written, or read: `what` was attempted with `path`, and `why`
    it failed."""

    def __init__(self, what: str, path: str, why: str) -> None:
        self.what, self.path, self.why = what, path, why
        super().__init__(f"cannot {what} {path}: {why}. Is the disk full, or may this user not write there?")


class UnsupportedFeature(EtherError, NotImplementedError):
    """What this connection's protocol version cannot do."""

    def __init__(self, feature: str) -> None:
        self.feature = feature
        super().__init__(f"{feature} needs MQTT 5; this connection speaks MQTT 3.1.1")


class BrokerFailed(EtherError, RuntimeError):
    """The embedded broker did not start, or stopped by itself."""


class NotJoined(EtherError, RuntimeError):
    """A call that needs a session, made outside of one."""

    def __init__(self, call: str) -> None:
        self.call = call
        super().__init__(f"{call} needs a running session: call ether.tap() first")


class StartFailed(EtherError, RuntimeError):
    """Instances that are not ready; `reasons` maps each one's name to why, traceback included."""

    def __init__(self, session: str, reasons: Mapping[str, str]) -> None:
        self.session, self.reasons = session, dict(reasons)
        names = ", ".join(self.reasons)
        details = "\n".join(f"\n--- {name} ---\n{reason.rstrip()}" for name, reason in self.reasons.items())
        super().__init__(f"session {session!r} did not start; not ready: {names}\n{details}")


class LifecycleFailed(EtherError, RuntimeError):
    """A lifecycle step that somebody failed or did not finish; `reasons` maps instance to why."""

    def __init__(self, step: str, reasons: Mapping[str, str]) -> None:
        self.step, self.reasons = step, dict(reasons)
        listed = "; ".join(f"{name}: {reason}" for name, reason in self.reasons.items())
        super().__init__(f"{step} did not complete everywhere: {listed}")


class NotAllowedHere(EtherError, RuntimeError):
    """A call that cannot be made from where it was made; `why` says what to do instead."""

    def __init__(self, call: str, why: str) -> None:
        self.call, self.why = call, why
        super().__init__(f"{call} cannot be called here: {why}")


class NameTaken(EtherError, RuntimeError):
    """A session or an instance (`kind`) of this `name` is there already; `host`, `pid` and `since` (unix seconds) tell
    where its holder lives, None where that is not known. `responds`: whether the holder answers."""

    def __init__(
        self,
        kind: str,
        name: str,
        *,
        host: str | None = None,
        pid: int | None = None,
        since: float | None = None,
        responds: bool = True,
    ) -> None:
        self.kind, self.name, self.host, self.pid, self.since, self.responds = kind, name, host, pid, since, responds
        began = "" if since is None else time.strftime(", since %Y-%m-%d %H:%M:%S", time.localtime(since))
        where = f"on {host or 'an unknown host'}, pid {'unknown' if pid is None else pid}{began}"
        how = "" if responds else ", but does not answer"
        super().__init__(f"the {kind} name {name!r} is held {where}{how}; choose another, or take it over (takeover)")


class WrongLabKey(NotAuthorized):
    """A broker on the network refuses this machine's lab key, or wants one and there is none.

    `source` is where this machine's key was looked for: the file to copy from the machine that runs the session.
    """

    def __init__(self, address: str, host: str, source: str) -> None:
        self.host, self.source = host, source
        super().__init__(address, "it does not accept this machine's lab key")
        where = f"on {host}" if host else "on the machine that runs the session"
        self.args = (
            f"the broker at {address} refuses this machine's lab key ({source}). Both machines need the same one: copy"
            f" the file ~/.config/ether/key {where} to the same place on this one, or set ETHER_KEY to its content."
            " A broker that Ether did not start wants user and password in its URL.",
        )


class SeveralSessions(EtherError, LookupError):
    """Several sessions run and none was named. `sessions` lists name, host and since (seconds of the epoch or None)."""

    def __init__(self, sessions: Sequence[tuple[str, str, float | None]], where: Sequence[str] = ()) -> None:
        self.sessions, self.where = tuple(sessions), tuple(where)
        names = {name for name, _, _ in self.sessions}
        listed = "; ".join(_session_line(*session) for session in self.sessions)
        if len(names) > 1:
            advice = f"session={self.sessions[0][0]!r} or the environment variable ETHER_SESSION"
        else:
            advice = f"broker= or the environment variable ETHER_BROKER ({', '.join(self.where)})"
        super().__init__(f"several sessions run: {listed}. Choose one with {advice}.")


def _session_line(name: str, host: str, since: float | None) -> str:
    began = "" if since is None else time.strftime(", since %Y-%m-%d %H:%M:%S", time.localtime(since))
    return f"{name!r} on {host or 'an unknown host'}{began}"


class ServiceFailed(EtherError, RuntimeError):
    """A service of this machine that cannot be described, installed, started, looked at or removed."""
