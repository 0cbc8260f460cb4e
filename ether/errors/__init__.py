"""Every error that Ether raises, in one tree.

    EtherError
    ├── ConfigError (ValueError)            the YAML, dict or settings cannot be used
    ├── InvalidName (ValueError)            a session, instance or topic name breaks the rule
    ├── WrongCall (TypeError)               a call that does not fit a function of Ether's
    ├── MarkError (TypeError)               a decorator or registry entry marks what cannot be marked
    ├── PayloadError (ValueError)           a value or body that cannot be sent or read
    │   ├── EncodeError                     … this value cannot be encoded
    │   ├── DecodeError                     … these bytes cannot be decoded
    │   └── PayloadTooLarge                 … more bytes than the broker accepts
    │       └── TooLargeForBroker           … it refused them, or closes the connection at them (also PublishRefused)
    ├── ValidationFailed (ValueError)       a payload does not fit the method's arguments
    ├── ResultInvalid (ValueError)          a returned value does not fit the method's return hint
    ├── TransportError (ConnectionError)    between this process and the broker
    │   ├── BrokerUnreachable               … no broker answers at the address
    │   │   └── BrokerRefuses               … one answers, and no session can use it
    │   ├── NotAuthorized (PermissionError) … the broker refuses this user
    │   │   ├── NotAMember                  … this machine is no device of the broker's lab
    │   │   ├── NotEncrypted                … a session on the network that is not encrypted
    │   │   ├── CertificateRefused          … the broker refuses this device's certificate
    │   │   └── WrongLabKey                 … the broker refuses this machine's lab key
    │   ├── NotDelivered (PermissionError)  … the broker does not let this program read a topic
    │   ├── SubscribeRefused                … a subscription was not granted
    │   ├── PublishRefused                  … the broker will not take this message
    │   ├── TransportClosed                 … used after close()
    │   └── PublishTimeout (TimeoutError)   … not accepted, or not acknowledged, in time
    ├── StoreFailed (OSError)               a file that must outlive this process cannot be written or read
    ├── UnsupportedFeature (NotImplementedError)  MQTT 3.1.1 does not have the feature
    ├── BrokerFailed (RuntimeError)         the embedded broker did not start
    ├── SeveralSessions (LookupError)       several sessions run, and none was named
    ├── SessionNotFound (LookupError)       none is in reach, and none was to be started
    ├── SessionRuns (RuntimeError)          one that was to be started runs already
    ├── ServiceFailed (RuntimeError)        a service of this machine: not installed, started or removed
    ├── OutboxFailed (OSError)              the file of unsaved records cannot be written or read
    ├── OutboxFull (TimeoutError)           no room for a record within the time, and the policy is to wait
    ├── NotSaved (OSError)                  a value is not on disk: not yet, or never
    ├── NotJoined (RuntimeError)            a call that needs a session, before `ether.tap()`
    ├── NotAllowedHere (RuntimeError)       a call that is not possible from this place, or twice
    ├── NotAllowed (PermissionError)        an instance on another device does what its rights do not say
    ├── StartFailed (RuntimeError)          `ether.tap()`: which instances are not ready, and why
    ├── NotReloaded (RuntimeError)          `ether.reload()`: the instance goes on with its code of before
    ├── NameTaken (RuntimeError)            a session or instance of this name exists already
    ├── LedgerError (OSError)               the folder in which results are recorded
    │   ├── LedgerFull                      … no space is left on its disk
    │   ├── LedgerFailed                    … an I/O error, or a wrong folder
    │   ├── LedgerLocked                    … another program is writing to it
    │   ├── LedgerDamaged                   … the content differs from what was written
    │   └── SchemaTooNew                    … a newer version of Ether wrote it
    ├── NoLedger (LookupError)              nothing is recorded under this name
    ├── SeveralLedgers (LookupError)        one session is recorded in several folders
    ├── NotRecorded (LookupError)           no record of this ledger is meant, or several are
    ├── NotAnInput (TypeError)              `ether.made_of()`: what is given as an input has no id
    ├── NoSuchRun (LookupError)             … the ledger has no such run
    ├── QueryMistake (ValueError)           `ether.data()`: a condition or a point in time that cannot be parsed
    ├── ExportFailed (ValueError)           records cannot be written in this format
    ├── ExportUnwritable (OSError)          … the file cannot be written
    ├── MissingExtra (ImportError)          a needed library is not installed
    ├── DeviceOffline (ConnectionError)     the instance's device is gone, and is being brought back
    ├── InSafeState (RuntimeError)          the instance's device is in its safe state, the method does not run
    ├── ReplayRefused (RuntimeError)        it could move a device, and its cause is a replay of a recording
    ├── RunGoesOn (RuntimeError)            `ether.run()`: another run goes on in this session
    ├── RunDiffers (ValueError)             … the run to be resumed had other conditions
    ├── RunStopped (RuntimeError)           … another program has ended the run
    ├── TrialNotReady (TimeoutError)        … an instance is not ready for the trial, or for its end
    ├── TrialDisturbed (ConnectionError)    … an instance died during the trial
    ├── ReadbackDiffers (ValueError)        … the value read back is not the value set
    ├── NotPlanned (LookupError)            … `run.planned()`: the configuration does not plan this run
    ├── NoRunHere (LookupError)             … no run goes on in this session
    ├── ConditionNotMet (TimeoutError)      `ether.wait_for()`: no message met the condition
    ├── LifecycleFailed (RuntimeError)      save_all, cleanup or shutdown failed at some instances
    └── CallError                           a call to another instance that returns no value
        ├── RemoteError                     … the method raised; also an instance of the builtin that it raised
        │   └── AnswerNotSent               … it ran, but what it returned cannot be sent (`ran` is True)
        ├── NoResponder (LookupError)       … no such instance, or no such method
        ├── InstanceLost (ConnectionError)  … the instance died while it worked on the call
        ├── InstanceLeased (BlockingIOError) … another program holds a lease of the instance
        ├── LeaseEnded (ConnectionError)    `ether.lease()`: the lease ended before it was given back
        ├── RequestTimeout (TimeoutError)   … no answer by the deadline
        ├── Cancelled (RuntimeError)        … the call was cancelled
        ├── Interrupted (RuntimeError)      … the instance died during a save, which is not repeated
        └── SyncError (RuntimeError)        `ether.sync()`: some instances failed, died or are missing

Each class builds its own sentence (what was attempted, with which thing, what happened, what to do) and keeps its
arguments as attributes. Each inherits the builtin exception that a caller would catch already.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# isort: off
from ether.errors.base import EtherError as EtherError
from ether.errors.rights import NotAllowed as NotAllowed
from ether.errors.calls import (
    AnswerNotSent as AnswerNotSent,
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
from ether.errors.tracebacks import sentence_of_traceback
from ether.errors.devices import InSafeState as InSafeState
from ether.errors.devices import ReplayRefused as ReplayRefused
from ether.errors.ledger import (
    LedgerDamaged as LedgerDamaged,
    LedgerError as LedgerError,
    LedgerFailed as LedgerFailed,
    LedgerFull as LedgerFull,
    LedgerLocked as LedgerLocked,
    SchemaTooNew as SchemaTooNew,
)
from ether.errors.reason_codes import TOO_LARGE, advice_for, reason_text
from ether.errors.keywords import WrongCall as WrongCall
from ether.errors.lineage import (
    NoSuchRun as NoSuchRun,
    NotAnInput as NotAnInput,
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
    RunStopped as RunStopped,
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

    `path` is the dotted place inside the configuration; `file` and `line` (1-based) say where it is written, both None
    where it did not come from a file. `nearest` is the valid key that was probably meant.
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
    """A name that cannot be used. `kind` is the thing to be named, `rule` says what would be valid."""

    def __init__(self, kind: str, name: object, rule: str) -> None:
        self.kind, self.name, self.rule = kind, name, rule
        shown = repr(name)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        super().__init__(f"{shown} cannot be the name of {'an' if kind[:1] in 'aeiou' else 'a'} {kind}: {rule}")


class MarkError(EtherError, TypeError):
    """A decorator or a registry entry on something that it cannot mark."""


class PayloadError(EtherError, ValueError):
    """A value or a body that cannot be sent or read."""


class EncodeError(PayloadError):
    """A value that cannot be sent. `path` is the place inside the value, e.g. `images[3].mask`; `what` says which value
    it is, e.g. `the arguments of cam.snap`, where that is known."""

    def __init__(self, path: str, problem: str, what: str = "") -> None:
        self.path, self.problem, self.what = path, problem, what
        named = f"{what}, at {path}" if what and path else what or path or "the value"
        super().__init__(f"cannot send {named}: {problem}")

    def of(self, what: str) -> EncodeError:
        """The same error, of a value that is known by now; itself where it was known before."""
        return self if self.what else EncodeError(self.path, self.problem, what)


class DecodeError(PayloadError):
    """Bytes that arrived and cannot be decoded."""


class PayloadTooLarge(PayloadError):
    """A message with more bytes (`size`) than the broker accepts in one (`limit`). `why` says how the limit is known
    where the broker has not announced it."""

    def __init__(self, topic: str, size: int, limit: int, why: str = "") -> None:
        self.topic, self.size, self.limit = topic, size, limit
        known = why or f"this broker takes at most {limit:,} bytes in one message"
        super().__init__(
            f"cannot publish {size:,} bytes to {topic!r}: {known}. Send it in parts, or raise the broker's limit."
        )


@dataclass(frozen=True, slots=True)
class ArgumentProblem:
    """The fault of one argument: its name, the value given, the values accepted."""

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
    """A returned value that does not fit the method's return hint; each problem's `argument` is a place in the
    value."""

    def __init__(self, method: str, problems: Sequence[ArgumentProblem]) -> None:
        self.method, self.problems = method, tuple(problems)
        listed = "; ".join(map(str, self.problems))
        super().__init__(f"{method} ran, but what it returned does not fit its return hint: {listed}")


class DeviceOffline(EtherError, ConnectionError):
    """The device of an instance is gone, so the method was not run. `why` says since when, and what the driver said."""

    def __init__(self, instance: str, why: str) -> None:
        self.instance, self.why = instance, why
        super().__init__(f"{instance}: its device is offline, {why}. It is tried again and again; nothing was run.")


class TransportError(EtherError, ConnectionError):
    """A fault between this process and the broker."""


class BrokerUnreachable(TransportError):
    """No broker answers at the address within the given time."""

    def __init__(self, address: str, why: str) -> None:
        self.address, self.why = address, why
        super().__init__(f"cannot reach a broker at {address}: {why}. Is it running, and is the address right?")


class BrokerRefuses(BrokerUnreachable):
    """A broker answers, and refuses the connection, or lacks what a session needs. `why` is its answer, `advice` says
    what to do."""

    def __init__(self, address: str, why: str, advice: str) -> None:
        self.address, self.why, self.advice = address, why, advice
        TransportError.__init__(self, f"the broker at {address} answers, but no session can use it: {why}. {advice}")


class NotAuthorized(TransportError, PermissionError):
    """The broker answers and refuses this user."""

    def __init__(self, address: str, why: str) -> None:
        self.address, self.why = address, why
        super().__init__(f"the broker at {address} refuses this connection: {why}. Check user name and password.")


class NotDelivered(TransportError, PermissionError):
    """The broker takes messages on a topic that a session needs, and does not let this program read them. `why` says
    how that showed; `advice` is for a case that has a way out other than the broker's rights."""

    def __init__(self, topic: str, why: str, advice: str = "") -> None:
        self.topic, self.why = topic, why
        self.advice = advice or "The rights that a session needs are listed in docs/brokers.md, under Rights."
        super().__init__(f"the broker does not let this program read {topic!r}: {why}. {self.advice}")


class SubscribeRefused(TransportError):
    """The broker did not grant, or did not confirm, a subscription."""

    def __init__(self, topic_filter: str, why: str) -> None:
        self.topic_filter, self.why = topic_filter, why
        super().__init__(f"the broker did not confirm the subscription to {topic_filter!r}: {why}")


class PublishRefused(TransportError):
    """The broker will never take this message of `size` bytes. `why` is its answer; `code` is MQTT's reason code, None
    where the broker closes the connection instead of giving one; `advice` says what to do."""

    def __init__(self, topic: str, size: int, why: str, code: int | None = None, advice: str = "") -> None:
        self.topic, self.size, self.why, self.code = topic, size, why, code
        self.advice = advice or advice_for(code)
        Exception.__init__(self, f"the broker refused the message of {size:,} bytes to {topic!r}: {why}. {self.advice}")

    def __str__(self) -> str:
        return str(self.args[0])


class TooLargeForBroker(PublishRefused, PayloadTooLarge):
    """The broker will never take this message, because it is too large for it. The broker has announced no limit; it is
    below `size`."""

    def __init__(self, topic: str, size: int, why: str, code: int | None = None, advice: str = "") -> None:
        super().__init__(topic, size, why, code, advice or advice_for(TOO_LARGE))
        self.limit = size - 1


def publish_refused(topic: str, size: int, code: int) -> PublishRefused:
    """The error for a message that the broker has answered with a reason code of 0x80 or above."""
    kind = TooLargeForBroker if code == TOO_LARGE else PublishRefused
    return kind(topic, size, reason_text(code), code)


class TransportClosed(TransportError):
    """A connection that is used after this program closed it."""


class PublishTimeout(TransportError, TimeoutError):
    """A message that was not accepted, or not acknowledged, within `timeout_s` seconds."""

    def __init__(self, topic: str, timeout_s: float, why: str) -> None:
        self.topic, self.timeout_s, self.why = topic, timeout_s, why
        super().__init__(f"publishing to {topic!r} did not complete within {timeout_s:g} s: {why}")


class StoreFailed(EtherError, OSError):
    """A file that must outlive this process cannot be written or read. `what` was attempted with `path`; `why` says how
    it failed."""

    def __init__(self, what: str, path: str, why: str) -> None:
        self.what, self.path, self.why = what, path, why
        super().__init__(f"cannot {what} {path}: {why}. Is the disk full, or may this user not write there?")


class UnsupportedFeature(EtherError, NotImplementedError):
    """A feature that the protocol version of this connection does not have."""

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
    """Instances that did not become ready; `reasons` maps the name of each to the reason, with its traceback. With
    `instance` one was to be added to, or restarted in, a session that runs on without it."""

    def __init__(self, session: str, reasons: Mapping[str, str], *, instance: bool = False) -> None:
        self.session, self.reasons = session, dict(reasons)
        names = ", ".join(self.reasons)
        details = "\n".join(f"\n--- {name} ---\n{reason.rstrip()}" for name, reason in self.reasons.items())
        what = (
            f"instance {names} did not start; session {session!r} runs on without it"
            if instance
            else f"session {session!r} did not start; not ready: {names}"
        )
        super().__init__(f"{what}\n{details}")


class NotReloaded(EtherError, RuntimeError):
    """An instance that did not get its new code, and goes on with the one it has. `reason` is why, with the traceback
    where the new code raised."""

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason
        super().__init__(f"{name} goes on with its code of before: {sentence_of_traceback(reason)}")


class LifecycleFailed(EtherError, RuntimeError):
    """A lifecycle step that some instances failed or did not finish; `reasons` maps the name of each to the reason."""

    def __init__(self, step: str, reasons: Mapping[str, str]) -> None:
        self.step, self.reasons = step, dict(reasons)
        listed = "; ".join(f"{name}: {reason}" for name, reason in self.reasons.items())
        super().__init__(f"{step} did not complete everywhere: {listed}")


class NotAllowedHere(EtherError, RuntimeError):
    """A call that is not possible from the place where it was made; `why` says what to do instead."""

    def __init__(self, call: str, why: str) -> None:
        self.call, self.why = call, why
        super().__init__(f"{call} cannot be called here: {why}")


class NameTaken(EtherError, RuntimeError):
    """A session or an instance (`kind`) of this `name` exists already. `host`, `pid` and `since` (unix seconds)
    describe the process that holds the name, each None where it is not known; `responds` says whether that process
    answers."""

    def __init__(
        self,
        kind: str,
        name: str,
        *,
        host: str | None = None,
        pid: int | None = None,
        since: float | None = None,
        responds: bool = True,
        advice: str = "choose another, or take it over (takeover)",
    ) -> None:
        self.kind, self.name, self.host, self.pid, self.since, self.responds = kind, name, host, pid, since, responds
        began = "" if since is None else time.strftime(", since %Y-%m-%d %H:%M:%S", time.localtime(since))
        where = f"on {host or 'an unknown host'}, pid {'unknown' if pid is None else pid}{began}"
        how = "" if responds else ", but does not answer"
        super().__init__(f"the {kind} name {name!r} is held {where}{how}; {advice}")


class SessionNotFound(EtherError, LookupError):
    """No session is in reach that could be joined, and none was to be started. `session` is the name that was asked
    for, None where none was; `running` are the names of those that run on this machine."""

    def __init__(self, session: str | None, running: Sequence[str] = ()) -> None:
        self.session, self.running = session, tuple(running)
        what = "no session is running" if session is None else f"no session named {session!r} is running"
        super().__init__(f"{what} here or in reach{running_sessions(session, running)}")


class SessionRuns(EtherError, RuntimeError):
    """A session that was to be started runs already. `pid` is that of the program that leads it; `why` says more."""

    def __init__(self, session: str, host: str, pid: int | None, why: str = "") -> None:
        self.session, self.host, self.pid = session, host, pid
        more = f" ({why})" if why else ""
        super().__init__(
            f"session {session} runs already, on {host}, pid {pid}{more}: `ether down -s {session}` ends it, or join it"
            f" by ether.tap(session={session!r})"
        )


def running_sessions(session: str | None, running: Sequence[str]) -> str:
    """For the end of a sentence: which sessions run instead of this one, and which of them may be meant."""
    if not running:
        return ""
    import difflib

    nearest = difflib.get_close_matches(session or "", running, n=1)
    hint = f". Did you mean {nearest[0]!r}?" if nearest else ""
    return f"; there {'is' if len(running) == 1 else 'are'}: {', '.join(running)}{hint}"


class NotAMember(NotAuthorized):
    """The broker belongs to a lab of which this machine is no device, so nothing was sent to it. `host` is the machine
    that runs it, where that is known."""

    def __init__(self, address: str, host: str = "", session: str = "") -> None:
        self.host, self.session = host, session
        super().__init__(address, "this machine is no member of its lab")
        what = f"session {session!r}, at {address}," if session else f"the broker at {address}"
        where = f"on {host}" if host else "on the machine that runs it"
        self.args = (
            f"{what} is for the members of a lab, and this machine is none of them: type `ether pair NAME` {where},"
            " and here the `ether join …` that it shows. A broker that Ether did not start needs a certificate that"
            " this system trusts (SSL_CERT_FILE names another authority).",
        )


class NotEncrypted(NotAuthorized):
    """A session on the network that says of itself that it is not encrypted; this program has not said that it may
    be."""

    def __init__(self, address: str, host: str, session: str) -> None:
        self.host, self.session = host, session
        super().__init__(address, "it is not encrypted")
        self.args = (
            f"session {session!r} on {host or 'another machine'} ({address}) is not encrypted, and nothing was sent to"
            " it: start it without `security: off`, or join it all the same with ETHER_SECURITY=off.",
        )


_ALERTS = {
    "revoked": "it was taken back by `ether revoke`",
    "expired": "it ended more than a year ago",
    "unknown ca": "it is of another lab",
    "required": "none was shown",
}
"""What a broker's alert means, by a word of it."""


class CertificateRefused(NotAuthorized):
    """The broker does not accept the certificate of this device; `why` in the words of TLS."""

    def __init__(self, address: str, why: str, name: str = "") -> None:
        self.why, self.name = why, name
        text = why.lower().replace("_", " ")
        meaning = next((said for word, said in _ALERTS.items() if word in text), text)
        super().__init__(address, meaning)
        device = name or "NAME"
        self.args = (
            f"the broker at {address} does not accept this device's certificate: {meaning}. To let this device in"
            f" again, type `ether pair {device}` on the machine that runs the session, and here the `ether join …` that"
            " it shows.",
        )


class WrongLabKey(NotAuthorized):
    """A broker on the network refuses this machine's lab key, or asks for one and this machine has none.

    `source` is the place where this machine's key was searched: a file, or the environment variable.
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

    def of_session(self, session: str) -> WrongLabKey:
        """This error, for a program that has named no session, and found this one."""
        self.args = (
            f"session {session!r} was found, but {self.args[0]} To start a session of your own beside it, name it:"
            " session=…, --session, or ETHER_SESSION.",
        )
        return self


class SeveralSessions(EtherError, LookupError):
    """Several sessions run and none was named. `sessions` lists name, host and start (unix seconds, or None) of
    each."""

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
    """A service of this machine that cannot be described, installed, started, queried or removed."""
