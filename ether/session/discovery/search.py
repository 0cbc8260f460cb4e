"""Finds the running session, so that `ether.tap()` needs no argument.

A named broker (argument, then `ETHER_BROKER`) is the only place that is searched. Otherwise these places are searched
in order, and the first one with a session decides: the sessions of this user on this machine (records), the network
(mDNS), brokers that were joined before. A session's name (argument, then `ETHER_SESSION`) narrows each place down. To
find nothing is no error: the caller starts a session of its own.

From top to bottom: what is searched and found; the search (`running_session` for `tap`, `find`, `explore` for `ether
doctor`); the places; asking one broker and many.

Promises: a later place costs nothing where an earlier one has a session; several sessions without a name to choose by
are an error that lists them, never a guess; an announced or remembered session counts only after its broker has shown
it.

The trap: any machine on the network can announce anything. So nothing is sent to a broker before its certificate has
shown that it is a server of a lab that this machine is a member of; a session that is not encrypted is joined only
where `security: off`, or ETHER_SECURITY=off, was said here, too.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeVar

from ether.config import EtherConfig, changed
from ether.config.broker import EmbeddedBroker, ExternalBroker
from ether.config.broker_url import broker_address, complete_url, url_with
from ether.connection.deadline import Deadline
from ether.errors import (
    ConfigError,
    EtherError,
    NotAMember,
    NotAuthorized,
    NotEncrypted,
    SessionNotFound,
    SeveralSessions,
    WrongLabKey,
)
from ether.log import get_ether_logger
from ether.security.lab_key import USERNAME, LabKey, key_file, load_key
from ether.session.discovery import mdns
from ether.session.discovery.directory import Directory, read_directory
from ether.session.discovery.known_brokers import read_remembered, remember_broker, state_file
from ether.session.discovery.local_sessions import SessionRecord, read_records
from ether.session.leader_rules import RETURN_S, SILENT_S
from ether.session.recovery import recorded_at, sessions_returning
from ether.system.lab_folders import memberships
from ether.transport.endpoint import OVER_TLS, Endpoint
from ether.wire.topics import check_session_name

logger = get_ether_logger("Ether")

Answer = TypeVar("Answer")

BROKER_VARIABLE, SESSION_VARIABLE, SECURITY_VARIABLE = "ETHER_BROKER", "ETHER_SESSION", "ETHER_SECURITY"
ARGUMENT, ENVIRONMENT = "argument", "environment"
THIS_MACHINE, NETWORK, REMEMBERED = "this machine", "network", "remembered"

NAMED_BROKER_S = 5.0
"""How long a named broker may take to answer."""
TAP_PATIENCE_S = SILENT_S + 2 * RETURN_S
"""How long `ether.tap()` waits at a named broker for a leader that may be there: until that is certain."""
LOOK_PATIENCE_S = RETURN_S + 0.5
"""How long a command or an agent waits, which joins a session in doubt and never starts one."""
ATTEMPT_S = 1.0
"""How long the brokers of the network, or those joined before, may take together."""
MOST_ATTEMPTS = 32
"""How many brokers are asked at once; further ones are left out."""


@dataclass(frozen=True, slots=True)
class FoundSession:
    """A running session. `url` is its broker's, with credentials; `how` is the place where it was found; `host` and
    `pid` are those of the program that leads it; `since` is in unix seconds."""

    name: str
    url: str = field(repr=False)
    how: str
    host: str
    pid: int | None
    since: float | None
    doubtful: bool = field(default=False, compare=False)
    """Its leader was asked and has not answered yet; it may be dead."""
    configuration: str = field(default="", compare=False)
    """The digest of the configuration that its leader was started with; empty where that is not known here."""

    @property
    def address(self) -> str:
        """The broker's URL without user and password."""
        return Endpoint.from_url(self.url).address


@dataclass(frozen=True, slots=True)
class SearchStep:
    """The result of one place. `detail` is a sentence for people; `refused` maps the sessions whose broker refused this
    program to the error."""

    name: str
    found: tuple[FoundSession, ...] = ()
    detail: str = ""
    refused: Mapping[str, NotAuthorized] = field(default_factory=dict)

    def __str__(self) -> str:
        names = ", ".join(f"{session.name!r} on {session.host or '?'}" for session in self.found) or "nothing"
        return f"{self.name}: {names}" + (f" ({self.detail})" if self.detail else "")


@dataclass(frozen=True, slots=True)
class SearchTarget:
    """What is searched: a session's name and a broker's URL, or None; `how` says where the broker was named; `mdns_s`
    is the time for the network in seconds, 0 for none.

    With `patience_s`, sessions count only whose leaders live: a leader that does not answer is waited for for so long
    (`ether.session.leader_rules`), in places with many brokers for `ATTEMPT_S` together. Without it, entries are
    believed. `waits` tells whether to wait for sessions that are about to return to a broker that was restarted."""

    session: str | None
    broker: str | None
    how: str
    mdns_s: float
    environment: Mapping[str, str]
    patience_s: float | None = None
    waits: bool = True

    @classmethod
    def of(
        cls,
        session: str | None,
        broker: str | None,
        environment: Mapping[str, str],
        mdns_timeout_s: float | None,
        patience_s: float | None = None,
        *,
        waits: bool = True,
    ) -> SearchTarget:
        """Complete the arguments from the environment. Raises `InvalidName`, `ConfigError`."""
        name = session or environment.get(SESSION_VARIABLE) or None
        if name is not None:
            check_session_name(name)
        given = broker or environment.get(BROKER_VARIABLE) or None
        mdns_s = mdns.browse_seconds(environment) if mdns_timeout_s is None else mdns_timeout_s
        how = ARGUMENT if broker or not given else ENVIRONMENT
        url = None if given is None else complete_url(given)
        return cls(name, url, how, mdns_s, environment, patience_s, waits)


Look = Callable[[SearchTarget], SearchStep]


# -- the search


def may_be_plain(environment: Mapping[str, str]) -> bool:
    """Whether it was said here that a session on the network need not be encrypted."""
    return environment.get(SECURITY_VARIABLE, "").strip().lower() == "off"


def search_environment(config: EtherConfig, environment: Mapping[str, str]) -> Mapping[str, str]:
    """The environment, with what the configuration says of security."""
    off = isinstance(config.broker, EmbeddedBroker) and config.broker.security == "off"
    return {**environment, SECURITY_VARIABLE: "off"} if off else environment


def running_session(config: EtherConfig, environment: Mapping[str, str], *, again: bool = False) -> FoundSession | None:
    """The session to join; None where one is to be started, of a named one: where it does not run on this machine.
    `config` comes from `with_environment`. `again`: this is the second look, just after one that found nothing. Raises
    `SeveralSessions`, `BrokerUnreachable`, `WrongLabKey`."""
    environment = search_environment(config, environment)
    # A configuration without a session's name that describes instances, or the settings of an embedded broker, is meant
    # to start a session of its own.
    embedded = isinstance(config.broker, EmbeddedBroker)
    own = embedded and config.broker != EmbeddedBroker()
    if (own and config.session is None) or (config.session is None and config.instances):
        return None

    broker = config.broker.url if isinstance(config.broker, ExternalBroker) else None
    if broker is None and config.session is not None:
        # Other machines are asked while this program already starts (`ether.session.discovery.elsewhere`).
        target = SearchTarget.of(config.session, None, environment, 0.0, TAP_PATIENCE_S)
        step = look_here(target)
        logger.debug("discovery, %s", step)
        return choose(step.found, config.session)
    return find(
        session=config.session, broker=broker, environment=environment, patience_s=TAP_PATIENCE_S, waits=not again
    )


def only_running(config: EtherConfig, environment: Mapping[str, str]) -> FoundSession:
    """The session to join, wherever it is. Raises `SessionNotFound`, and as `find`."""
    environment = search_environment(config, environment)
    broker = config.broker.url if isinstance(config.broker, ExternalBroker) else None
    found = find(session=config.session, broker=broker, environment=environment, patience_s=TAP_PATIENCE_S)
    if found is None:
        raise SessionNotFound(config.session, [record.session for record in read_records(environment)])
    return found


def with_environment(config: EtherConfig, environment: Mapping[str, str]) -> EtherConfig:
    """The configuration, with session and broker from the environment where it has none."""
    added: dict[str, str] = {}
    if config.session is None and (session := environment.get(SESSION_VARIABLE)):
        added["session"] = session
    if config.broker == EmbeddedBroker() and (broker := environment.get(BROKER_VARIABLE)):
        added["broker"] = complete_url(broker)
    return changed(config, **added) if added else config


def find(
    *,
    session: str | None = None,
    broker: str | None = None,
    environment: Mapping[str, str],
    report: Callable[[str], None] = logger.debug,
    mdns_timeout_s: float | None = None,
    patience_s: float | None = None,
    waits: bool = True,
) -> FoundSession | None:
    """The session to join, None where there is none. `report` gets a line for each place that was searched;
    `patience_s` and `waits` are those of `SearchTarget`.

    Raises `SeveralSessions`, `ConfigError`; for a named broker `BrokerUnreachable` and `NotAuthorized`; where the
    broker of the session that was found, and no other one was, refuses this program `WrongLabKey`."""
    target = SearchTarget.of(session, broker, environment, mdns_timeout_s, patience_s, waits=waits)
    refused: dict[str, NotAuthorized] = {}
    for look in search_order(target):
        step = look(target)
        report(f"discovery, {step}")
        refused.update(step.refused)
        if (found := joinable(step, target)) is not None:
            return found
    if target.session in refused:
        raise refused[target.session]
    if refused and target.session is None:  # to start another one beside it is not what anybody means
        name, why = next(iter(refused.items()))
        raise why.of_session(name) if isinstance(why, WrongLabKey) else _of_session(why, name)
    return None


def _of_session(why: NotAuthorized, session: str) -> NotAuthorized:
    """The error, for a program that has named no session, and found this one."""
    why.args = (
        f"session {session!r} was found, but {why}"
        " To start a session of your own beside it, name it: session=…, --session, or ETHER_SESSION.",
    )
    return why


def joinable(step: SearchStep, target: SearchTarget) -> FoundSession | None:
    """The session of one place that is meant and has a leader; None where there is none. Raises `SeveralSessions`."""
    chosen = choose(step.found, target.session)
    return None if chosen is None or (chosen.doubtful and _is_dead(chosen, target)) else chosen


def _is_dead(found: FoundSession, target: SearchTarget) -> bool:
    """Ask the leader of a session again, which many brokers were asked for at the same time, with all patience."""
    patience_s = target.patience_s or 0.0
    if patience_s > ATTEMPT_S and found.how != target.how:
        directory = read_directory(Endpoint.from_url(found.url), NAMED_BROKER_S, found.name, patience_s)
        if found.name not in directory.sessions:
            return True
    logger.warning("the leader of session %r (%s, pid %s) does not answer", found.name, found.host, found.pid)
    return False


def explore(
    *,
    session: str | None = None,
    broker: str | None = None,
    environment: Mapping[str, str],
    mdns_timeout_s: float | None = None,
    patience_s: float | None = None,
) -> list[SearchStep]:
    """Search every place, whatever is found; a place that cannot be searched says why in its `detail`."""
    target = SearchTarget.of(session, broker, environment, mdns_timeout_s, patience_s)
    return [_guarded(name, look, target) for name, look in _PLACES.items()]


def search_order(target: SearchTarget) -> Sequence[Look]:
    """The places to search, in order."""
    return [look_at_named] if target.broker is not None else [look_here, look_around, look_back]


def choose(found: Sequence[FoundSession], name: str | None) -> FoundSession | None:
    """The session among these that is meant, None where there is none. Raises `SeveralSessions` where there are
    several."""
    # One session may be found at several addresses of its machine. Its leading process tells that they are the same
    # one; entries without a process id are told apart by their URLs.
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
    """Remember the broker for later searches, except for a session of this machine, whose broker ends with it."""
    if found.how != THIS_MACHINE:
        remember_broker(found.url, found.name, found.host, environment)


# -- the places


def look_at_named(target: SearchTarget) -> SearchStep:
    """Search the broker that was named by argument or environment. Raises its errors. Where it was restarted a moment
    ago, wait for the sessions that are about to return to it."""
    if target.broker is None:
        return SearchStep(target.how, detail="no broker was named")
    url, look = _look_at_named(target, target.broker)
    found = _as_found(look, url, target.how)
    if target.waits and not any(target.session in (None, session.name) for session in found):
        found = [*found, *_sessions_back_at(url, target, look.dead)]
    return SearchStep(target.how, tuple(found), f"at {Endpoint.from_url(target.broker).address}")


def look_here(target: SearchTarget) -> SearchStep:
    """Search the sessions that this user runs on this machine."""
    records = read_records(target.environment)
    found = (
        FoundSession(r.session, r.url, THIS_MACHINE, r.host, r.pid, r.since, configuration=r.configuration)
        for r in records
    )
    return SearchStep(THIS_MACHINE, tuple(found))


def look_around(target: SearchTarget) -> SearchStep:
    """Search the sessions that are announced on the network."""
    if target.mdns_s <= 0:
        return SearchStep(NETWORK, detail=f"mDNS is turned off ({mdns.MDNS_VARIABLE}=0)")
    try:
        announced = mdns.browse(target.mdns_s, session=target.session)
    except mdns.MdnsUnavailable as error:
        return SearchStep(NETWORK, detail=str(error))
    return ask_announced(announced, target)


def ask_announced(announced: Sequence[mdns.Announced], target: SearchTarget) -> SearchStep:
    """Ask the brokers of these announcements, all at the same time; those alone that are of a lab of this machine's, or
    need not be encrypted."""
    key, problem = _key_or_problem(target.environment) if may_be_plain(target.environment) else (None, "")
    labs = {known.lab for known in memberships(target.environment)}
    strange = {each.session: why for each in announced if (why := _why_not(each, labs, target)) is not None}
    wanted = [each for each in announced if _why_not(each, labs, target) is None]
    step = _ask_all(NETWORK, [attempt for each in wanted for attempt in _attempts_for(each, key)], target)
    parts = (f"{len(announced)} announced", problem, *map(str, strange.values()), step.detail)
    found = {session.name for session in step.found}
    # A member of some lab goes on, as if such an announcement were not there: else anybody could keep it out.
    refused = {} if labs else {name: why for name, why in strange.items() if name not in found}
    detail = "; ".join(part for part in parts if part)
    return SearchStep(NETWORK, step.found, detail, {**refused, **step.refused})


def _why_not(announced: mdns.Announced, labs: Collection[str], target: SearchTarget) -> NotAuthorized | None:
    """Why this announcement is not followed; None where it is."""
    scheme: Literal["tls", "tcp"] = "tls" if announced.lab else "tcp"
    address = Endpoint(scheme, announced.addresses[0], announced.port).address
    if announced.lab:
        return None if announced.lab in labs else NotAMember(address, announced.host, announced.session)
    plain = may_be_plain(target.environment)
    return None if plain else NotEncrypted(address, announced.host, announced.session)


def look_back(target: SearchTarget) -> SearchStep:
    """Search the brokers that were joined before."""
    attempts: dict[str, SearchAttempt] = {}
    for known in read_remembered(target.environment):
        try:
            url = known.full_url(target.environment)
        except ConfigError as error:
            return SearchStep(REMEMBERED, detail=str(error))
        if url is None:
            continue
        # One broker may be remembered for several sessions, and is asked once. Of the lab's own all sessions count
        # (None), otherwise those that were joined there.
        names = attempts[url].sessions if url in attempts else frozenset()
        encrypted = Endpoint.from_url(url).kind in OVER_TLS
        if known.by_key and not encrypted and not may_be_plain(target.environment):
            continue
        wanted = None if known.by_key or encrypted or names is None else names | {known.session}
        attempts.setdefault(url, SearchAttempt(url, known.host, wanted))
        attempts[url] = SearchAttempt(url, attempts[url].host, wanted)
    step = _ask_all(REMEMBERED, list(attempts.values()), target)
    parts = (f"{len(attempts)} in {state_file(target.environment)}", step.detail)
    # `refused` is left out: an old broker with another key now is nothing that the user has to know
    return SearchStep(REMEMBERED, step.found, "; ".join(part for part in parts if part))


_PLACES: Mapping[str, Look] = {
    "named": look_at_named,
    THIS_MACHINE: look_here,
    NETWORK: look_around,
    REMEMBERED: look_back,
}


def _guarded(name: str, look: Look, target: SearchTarget) -> SearchStep:
    try:
        return look(target)
    except EtherError as error:
        return SearchStep(name, detail=str(error))


# -- asking brokers


@dataclass(frozen=True, slots=True)
class SearchAttempt:
    """A broker to ask, and which of its sessions count (None: all). `key_source` names the file or variable of the lab
    key, where the URL's credentials follow from that."""

    url: str = field(repr=False)
    host: str
    sessions: frozenset[str] | None
    key_source: str | None = None

    @property
    def is_encrypted(self) -> bool:
        return Endpoint.from_url(self.url).kind in OVER_TLS


def _attempts_for(announced: mdns.Announced, key: LabKey | None) -> list[SearchAttempt]:
    """The brokers to ask for one announcement: one for each address, since not every address of a machine can be
    reached from here. Credentials go only to a broker that asks for the user name of lab keys."""
    scheme: Literal["tls", "tcp"] = "tls" if announced.lab else "tcp"
    urls = [Endpoint(scheme, address, announced.port).address for address in announced.addresses]
    if announced.lab or announced.user != USERNAME or key is None:
        return [SearchAttempt(url, announced.host, frozenset({announced.session})) for url in urls]
    credentials = key.credentials()
    return [
        SearchAttempt(
            url_with(url, credentials.username, credentials.password),
            announced.host,
            frozenset({announced.session}),
            key.source,
        )
        for url in urls
    ]


def _ask_all(how: str, attempts: Sequence[SearchAttempt], target: SearchTarget) -> SearchStep:
    """Ask all brokers at the same time, and sort their answers."""
    outcomes = in_parallel([_question(attempt, how, target) for attempt in attempts[:MOST_ATTEMPTS]], ATTEMPT_S)
    found: list[FoundSession] = []
    refused: dict[str, NotAuthorized] = {}
    problems: list[str] = []
    for attempt, outcome in zip(attempts, outcomes, strict=False):
        if isinstance(outcome, list):
            found.extend(outcome)
            continue
        problems.append(str(outcome))
        if isinstance(outcome, NotAMember):
            continue  # it only said that it is of a lab of ours: as if it were not there
        if isinstance(outcome, NotAuthorized) and attempt.is_encrypted:
            refused.update(dict.fromkeys(attempt.sessions or (), outcome))
        elif isinstance(outcome, NotAuthorized):
            source = attempt.key_source or f"none in {key_file(target.environment)}"
            refusal = WrongLabKey(outcome.address, attempt.host, source)
            refused.update(dict.fromkeys(attempt.sessions or (), refusal))
    for session in found:  # it let this program in at another address
        refused.pop(session.name, None)
    return SearchStep(how, tuple(found), "; ".join(problems), refused)


def _question(attempt: SearchAttempt, how: str, target: SearchTarget) -> Callable[[], list[FoundSession]]:
    def ask() -> list[FoundSession]:
        wanted = attempt.sessions if target.session is None else frozenset({target.session})
        patience_s = None if target.patience_s is None else min(target.patience_s, ATTEMPT_S / 2)
        look = read_directory(Endpoint.from_url(attempt.url), ATTEMPT_S, target.session, patience_s)
        found = _as_found(look, attempt.url, how)
        return [session for session in found if wanted is None or session.name in wanted]

    return ask


def _as_found(directory: Directory, url: str, how: str) -> list[FoundSession]:
    return [
        FoundSession(info.session, url, how, info.host, info.pid, info.since, info.session in directory.doubtful)
        for info in directory.sorted
    ]


def _sessions_back_at(url: str, target: SearchTarget, dead: Collection[str]) -> list[FoundSession]:
    """The sessions that come back to a broker within the time in which every living process does. A session whose
    program lives on this machine, but has not come back by then (it is stopped, or very busy), is joined all the same:
    a second leader would be worse."""
    endpoint = Endpoint.from_url(url)

    def recorded() -> list[SessionRecord]:
        records = read_records(target.environment)
        names = recorded_at(endpoint, target.session, records)
        return [record for record in records if record.session in names]

    expected = {record.session for record in recorded()}
    back = {info.session: info for info in sessions_returning(endpoint, target.session, expected, dead)}
    found = _as_found(Directory(back), url, target.how)
    for record in recorded() if expected else ():
        if record.session not in {session.name for session in found}:
            logger.warning("session %r is not back at its broker yet, but pid %d lives", record.session, record.pid)
            found.append(FoundSession(record.session, url, target.how, record.host, record.pid, record.since))
    return found


def _look_at_named(target: SearchTarget, url: str) -> tuple[str, Directory]:
    """What a named broker shows, and the URL that worked. A URL without a user may belong to a session that listens on
    the network and wants the lab key. The credentials are sent only to a broker that has refused a connection without
    them."""

    def look(at: str) -> Directory:
        return read_directory(Endpoint.from_url(at), NAMED_BROKER_S, target.session, target.patience_s)

    try:
        return url, look(url)
    except NotAuthorized as error:
        address = broker_address(url)
        if address.username is not None or address.tls:
            raise
        if not may_be_plain(target.environment):
            raise NotEncrypted(error.address, address.host or "", target.session or "?") from error
        key = load_key(target.environment)
        if key is None:
            raise WrongLabKey(error.address, address.host or "", f"none in {key_file(target.environment)}") from error
        credentials = key.credentials()
        with_key = url_with(url, credentials.username, credentials.password)
        try:
            return with_key, look(with_key)
        except NotAuthorized as again:
            raise WrongLabKey(again.address, address.host or "", key.source) from again


def _key_or_problem(environment: Mapping[str, str]) -> tuple[LabKey | None, str]:
    try:
        return load_key(environment), ""
    except ConfigError as error:
        logger.warning("sessions on the network cannot be joined: %s", error)
        return None, str(error)


# -- asking in parallel


def in_parallel(questions: Sequence[Callable[[], Answer]], timeout_s: float) -> list[Answer | Exception]:
    """Call all functions at the same time, each on a thread of its own. Returns their results in order; in place of a
    result the exception that the function raised, `TimeoutError` where it took longer than `timeout_s` seconds.

    A late thread is left to itself: it ends with its own time limit."""
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
    except Exception as error:  # noqa: BLE001 (the caller gets it as a result)
        answers.put((number, error))
