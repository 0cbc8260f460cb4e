"""Finds the running session, so that `ether.tap()` needs no argument.

In this order, and the first place where one is found counts: the broker that was named (argument, then `ETHER_BROKER`);
the sessions of this user on this machine (records); the network (mDNS); brokers joined before. A name (argument, then
`ETHER_SESSION`) narrows each of them down. Nothing found is no error: the caller starts a session of its own.

Promises: later places cost nothing where an earlier one has it; several sessions and none named is an error that lists
them, never a guess; what is announced or remembered counts only after its broker has shown it. `explore()` looks
everywhere and tells what it found, for `ether doctor`.

The trap: anybody on the network can announce anything, and who joins sends what follows from the lab key to whoever
announced it (docs/discovery.md says what that key can and cannot do).
"""

from __future__ import annotations

import os
import queue
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from ether.config import EtherConfig, changed
from ether.config.broker import EmbeddedBroker, ExternalBroker
from ether.config.broker_url import broker_address, complete_url, url_with
from ether.connection.deadline import Deadline
from ether.errors import ConfigError, EtherError, NotAuthorized, SeveralSessions, WrongLabKey
from ether.log import get_ether_logger
from ether.security.lab_key import USERNAME, LabKey, key_file, load_key
from ether.session.discovery import mdns
from ether.session.discovery.directory import SessionInfo, sessions_at
from ether.session.discovery.known_brokers import read_remembered, remember_broker, state_file
from ether.session.discovery.local_sessions import read_records
from ether.session.recovery import recorded_at, sessions_returning
from ether.transport.endpoint import Endpoint
from ether.wire.topics import check_session_name

Answer = TypeVar("Answer")


def in_parallel(questions: Sequence[Callable[[], Answer]], timeout_s: float) -> list[Answer | Exception]:
    """The answers in the order of the questions; instead of one the exception that it raised, `TimeoutError` where none
    came in time."""
    answers: queue.SimpleQueue[tuple[int, Answer | Exception]] = queue.SimpleQueue()
    for number, question in enumerate(questions):
        ask = partial(_ask, number, question, answers)
        threading.Thread(target=ask, name=f"ether-ask-{number}", daemon=True).start()
    deadline = Deadline(timeout_s)
    given: dict[int, Answer | Exception] = {}
    while len(given) < len(questions):
        try:
            number, answer = answers.get(timeout=deadline.left())
        except queue.Empty:
            break
        given[number] = answer
    late = TimeoutError(f"no answer within {timeout_s:g} s")
    return [given.get(number, late) for number in range(len(questions))]


def _ask(
    number: int,
    question: Callable[[], Answer],
    answers: queue.SimpleQueue[tuple[int, Answer | Exception]],
) -> None:
    try:
        answers.put((number, question()))
    except Exception as error:  # noqa: BLE001 (whatever it is, it belongs to who asked)
        answers.put((number, error))


logger = get_ether_logger("Ether")

BROKER_VARIABLE, SESSION_VARIABLE = "ETHER_BROKER", "ETHER_SESSION"
ARGUMENT, ENVIRONMENT = "argument", "environment"
THIS_MACHINE, NETWORK, REMEMBERED = "this machine", "network", "remembered"

NAMED_BROKER_S = 5.0
TRIAL_S = 1.0
MOST_TRIALS = 32


@dataclass(frozen=True, slots=True)
class FoundSession:
    """A running session. `url` is its broker's with the credentials, `how` the place where it was found, `since` in
    seconds of the epoch."""

    name: str
    url: str = field(repr=False)
    how: str
    host: str
    pid: int | None
    since: float | None

    @property
    def address(self) -> str:
        """The broker's URL without user and password."""
        return Endpoint.from_url(self.url).address


@dataclass(frozen=True, slots=True)
class SearchStep:
    """One place where was looked. `detail` is a sentence for people; `refused` maps sessions that would not let us in
    to why."""

    name: str
    found: tuple[FoundSession, ...] = ()
    detail: str = ""
    refused: Mapping[str, NotAuthorized] = field(default_factory=dict)

    def __str__(self) -> str:
        names = ", ".join(f"{session.name!r} on {session.host or '?'}" for session in self.found) or "nothing"
        return f"{self.name}: {names}" + (f" ({self.detail})" if self.detail else "")


@dataclass(frozen=True, slots=True)
class SearchTarget:
    """What is looked for: names as they were given, argument before environment."""

    session: str | None
    broker: str | None
    how: str
    mdns_s: float
    environment: Mapping[str, str]

    @classmethod
    def of(
        cls, session: str | None, broker: str | None, environment: Mapping[str, str], mdns_timeout_s: float | None
    ) -> SearchTarget:
        name = session or environment.get(SESSION_VARIABLE) or None
        if name is not None:
            check_session_name(name)
        given = broker or environment.get(BROKER_VARIABLE) or None
        mdns_s = mdns.browse_seconds(environment) if mdns_timeout_s is None else mdns_timeout_s
        how = ARGUMENT if broker or not given else ENVIRONMENT
        return cls(name, None if given is None else complete_url(given), how, mdns_s, environment)


Look = Callable[[SearchTarget], SearchStep]


def find(
    *,
    session: str | None = None,
    broker: str | None = None,
    environment: Mapping[str, str],
    report: Callable[[str], None] = logger.debug,
    mdns_timeout_s: float | None = None,
) -> FoundSession | None:
    """The session to join, None where there is none. Raises `SeveralSessions`, `ConfigError`; for a broker that was
    named `BrokerUnreachable` and `NotAuthorized`; for a session that was named and refuses us `WrongLabKey`."""
    wish = SearchTarget.of(session, broker, environment, mdns_timeout_s)
    refused: dict[str, NotAuthorized] = {}
    for look in plan(wish):
        step = look(wish)
        report(f"discovery, {step}")
        refused.update(step.refused)
        if (chosen := choose(step.found, wish.session)) is not None:
            return chosen
    if wish.session in refused:
        raise refused[wish.session]
    for name, why in refused.items():
        logger.warning("session %r was found, but %s", name, why)
    return None


def explore(
    *,
    session: str | None = None,
    broker: str | None = None,
    environment: Mapping[str, str],
    mdns_timeout_s: float | None = None,
) -> list[SearchStep]:
    """Look everywhere, whatever is found; a place that cannot be looked at says why in its `detail`."""
    wish = SearchTarget.of(session, broker, environment, mdns_timeout_s)
    return [_guarded(name, look, wish) for name, look in _PLACES.items()]


def plan(wish: SearchTarget) -> Sequence[Look]:
    """Where to look, in order: a broker that was named is the only place."""
    return [look_at_named] if wish.broker is not None else [look_here, look_around, look_back]


def choose(found: Sequence[FoundSession], name: str | None) -> FoundSession | None:
    """The one session among these that was meant; None where none is, `SeveralSessions` where that cannot be told."""
    distinct: dict[object, FoundSession] = {}
    for session in found:
        if name in (None, session.name):
            known = session.url if session.pid is None else (session.host, session.pid, session.since)
            distinct.setdefault((session.name, known), session)
    candidates = list(distinct.values())
    if len(candidates) > 1:
        listed = [(session.name, session.host, session.since) for session in candidates]
        raise SeveralSessions(listed, [session.address for session in candidates])
    return candidates[0] if candidates else None


def remember(found: FoundSession, environment: Mapping[str, str]) -> None:
    """Note the broker for later; nothing for a session of this machine, whose broker ends with it."""
    if found.how != THIS_MACHINE:
        remember_broker(found.url, found.name, found.host, environment)


# -- the places


def look_at_named(wish: SearchTarget) -> SearchStep:
    """The broker that was named, by argument or environment. Raises what is wrong with it. Where it has just been
    started again, the session is waited for that is about to be back on it."""
    if wish.broker is None:
        return SearchStep(wish.how, detail="no broker was named")
    url, found = _sessions_of_named(wish, wish.broker)
    if not any(wish.session in (None, session.name) for session in found):
        found = [*found, *_sessions_back_at(url, wish)]
    return SearchStep(wish.how, tuple(found), f"at {Endpoint.from_url(wish.broker).address}")


def look_here(wish: SearchTarget) -> SearchStep:
    """The sessions that this user runs on this machine."""
    records = read_records(wish.environment)
    found = (FoundSession(r.session, r.url, THIS_MACHINE, r.host, r.pid, r.since) for r in records)
    return SearchStep(THIS_MACHINE, tuple(found))


def look_around(wish: SearchTarget) -> SearchStep:
    """The sessions that are announced on the network."""
    if wish.mdns_s <= 0:
        return SearchStep(NETWORK, detail=f"mDNS is turned off ({mdns.MDNS_VARIABLE}=0)")
    try:
        announced = mdns.browse(wish.mdns_s, session=wish.session)
    except mdns.MdnsUnavailable as error:
        return SearchStep(NETWORK, detail=str(error))
    key, problem = _key_or_problem(wish.environment)
    trials = [trial for said in announced for trial in _trials_of(said, key)]
    step = _tried(NETWORK, trials, wish)
    parts = (f"{len(announced)} announced", problem, step.detail)
    return SearchStep(NETWORK, step.found, "; ".join(part for part in parts if part), step.refused)


def look_back(wish: SearchTarget) -> SearchStep:
    """Brokers that were joined before."""
    trials: dict[str, SearchAttempt] = {}
    for known in read_remembered(wish.environment):
        try:
            url = known.full_url(wish.environment)
        except ConfigError as error:
            return SearchStep(REMEMBERED, detail=str(error))
        if url is None:
            continue
        names = trials[url].sessions if url in trials else frozenset()
        wanted = None if known.by_key or names is None else names | {known.session}
        trials.setdefault(url, SearchAttempt(url, known.host, wanted))
        trials[url] = SearchAttempt(url, trials[url].host, wanted)
    step = _tried(REMEMBERED, list(trials.values()), wish)
    parts = (f"{len(trials)} in {state_file(wish.environment)}", step.detail)
    # one that refuses us is no session that somebody looks for now
    return SearchStep(REMEMBERED, step.found, "; ".join(part for part in parts if part))


_PLACES: Mapping[str, Look] = {
    "named": look_at_named,
    THIS_MACHINE: look_here,
    NETWORK: look_around,
    REMEMBERED: look_back,
}


def _guarded(name: str, look: Look, wish: SearchTarget) -> SearchStep:
    try:
        return look(wish)
    except EtherError as error:
        return SearchStep(name, detail=str(error))


# -- asking brokers


@dataclass(frozen=True, slots=True)
class SearchAttempt:
    """A broker to ask, and which of its sessions count: None for all. `key_source` where the lab key opens it."""

    url: str = field(repr=False)
    host: str
    sessions: frozenset[str] | None
    key_source: str | None = None


def _trials_of(said: mdns.Announced, key: LabKey | None) -> list[SearchAttempt]:
    """A machine announces all its addresses, and not all of them lead there from here."""
    urls = [Endpoint("tcp", address, said.port).address for address in said.addresses]
    if said.user != USERNAME or key is None:
        return [SearchAttempt(url, said.host, frozenset({said.session})) for url in urls]
    who = key.credentials()
    return [
        SearchAttempt(url_with(url, who.username, who.password), said.host, frozenset({said.session}), key.source)
        for url in urls
    ]


def _tried(how: str, trials: Sequence[SearchAttempt], wish: SearchTarget) -> SearchStep:
    """Ask every broker at the same time."""
    outcomes = in_parallel([_asking(trial, how, wish) for trial in trials[:MOST_TRIALS]], TRIAL_S)
    found: list[FoundSession] = []
    refused: dict[str, NotAuthorized] = {}
    problems: list[str] = []
    for trial, outcome in zip(trials, outcomes, strict=False):
        if isinstance(outcome, list):
            found.extend(outcome)
            continue
        problems.append(str(outcome))
        if isinstance(outcome, NotAuthorized):
            source = trial.key_source or f"none in {key_file(wish.environment)}"
            told = WrongLabKey(outcome.address, trial.host, source)
            refused.update(dict.fromkeys(trial.sessions or (), told))
    for session in found:
        refused.pop(session.name, None)
    return SearchStep(how, tuple(found), "; ".join(problems), refused)


def _asking(trial: SearchAttempt, how: str, wish: SearchTarget) -> Callable[[], list[FoundSession]]:
    def ask() -> list[FoundSession]:
        wanted = trial.sessions if wish.session is None else frozenset({wish.session})
        found = _sessions_of(trial.url, how, TRIAL_S)
        return [session for session in found if wanted is None or session.name in wanted]

    return ask


def _sessions_of(url: str, how: str, timeout_s: float) -> list[FoundSession]:
    return _as_found(sessions_at(Endpoint.from_url(url), timeout_s), url, how)


def _as_found(infos: Iterable[SessionInfo], url: str, how: str) -> list[FoundSession]:
    return [FoundSession(info.session, url, how, info.host, info.pid, info.since) for info in infos]


def _sessions_back_at(url: str, wish: SearchTarget) -> list[FoundSession]:
    endpoint = Endpoint.from_url(url)
    recorded = recorded_at(endpoint, wish.session, read_records(wish.environment))
    return _as_found(sessions_returning(endpoint, wish.session, recorded), url, wish.how)


def _sessions_of_named(wish: SearchTarget, url: str) -> tuple[str, list[FoundSession]]:
    """With the URL that let us in. One without a user may be that of a session which listens on the network: then the
    lab key opens it. It is shown only to who refuses us without it."""
    try:
        return url, _sessions_of(url, wish.how, NAMED_BROKER_S)
    except NotAuthorized as error:
        address = broker_address(url)
        if address.username is not None:
            raise
        key = load_key(wish.environment)
        if key is None:
            raise WrongLabKey(error.address, address.host or "", f"none in {key_file(wish.environment)}") from error
        who = key.credentials()
        with_key = url_with(url, who.username, who.password)
        try:
            return with_key, _sessions_of(with_key, wish.how, NAMED_BROKER_S)
        except NotAuthorized as again:
            raise WrongLabKey(again.address, address.host or "", key.source) from again


def _key_or_problem(environment: Mapping[str, str]) -> tuple[LabKey | None, str]:
    try:
        return load_key(environment), ""
    except ConfigError as error:
        logger.warning("sessions on the network cannot be joined: %s", error)
        return None, str(error)


def running_session(config: EtherConfig, environment: Mapping[str, str]) -> FoundSession | None:
    """The session to join; None where one is to be started. `config` has what the environment adds. Raises
    `SeveralSessions`, `BrokerUnreachable`, `WrongLabKey`."""
    embedded = isinstance(config.broker, EmbeddedBroker)
    own = embedded and config.broker != EmbeddedBroker()  # it says how the broker is to be: it wants one of its own
    if (own and config.session is None) or (config.session is None and config.instances):
        return None

    broker = config.broker.url if isinstance(config.broker, ExternalBroker) else None
    return find(session=config.session, broker=broker, environment=environment)


def with_environment(config: EtherConfig, environment: Mapping[str, str]) -> EtherConfig:
    """The configuration, with session and broker from the environment where it names none."""
    added: dict[str, str] = {}
    if config.session is None and (session := environment.get("ETHER_SESSION")):
        added["session"] = session
    if config.broker == EmbeddedBroker() and (broker := environment.get("ETHER_BROKER")):
        added["broker"] = complete_url(broker)
    return changed(config, **added) if added else config


@contextmanager
def starting_alone(session: str | None, timeout_s: float) -> Iterator[None]:
    """Within the block no other program of this user on this machine starts a session of this name; where one does so
    already, the block begins when that is over, or after `timeout_s`."""
    lock = None if session is None or sys.platform != "linux" else _lock(_address(session), Deadline(timeout_s))
    try:
        yield
    finally:
        if lock is not None:
            lock.close()


def _address(session: str) -> bytes:
    """In Linux's own name space for sockets: it needs no file, and vanishes with its process however that ends."""
    return b"\0ether-start-%d-" % os.getuid() + session.encode("utf-8", "surrogatepass")[:80]


def _lock(address: bytes, deadline: Deadline) -> socket.socket | None:
    while True:
        lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            lock.bind(address)
            lock.listen(128)
            return lock
        except OSError as error:
            lock.close()
            logger.debug("another program starts this session: %s", error)
        if deadline.passed:
            return None
        _wait_for_release(address, deadline)


def _wait_for_release(address: bytes, deadline: Deadline) -> None:
    """The holder never accepts; its kernel tells us when it closes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as waiting:
        waiting.settimeout(max(deadline.left(), 0.01))
        try:
            waiting.connect(address)
            waiting.recv(1)
        except OSError:
            return  # closed, or the time is over
