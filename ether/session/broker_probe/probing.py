"""One probing of a broker from the first connection to the last: which probes, in which order, and how long each may
take.

Promise: it ends within its budget of seconds, whatever the broker does, and half a second for its end. A name that has
to be resolved is waited for like everything else, on a thread that is left to itself afterwards.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from time import monotonic

from ether.errors import DecodeError, NotAuthorized
from ether.session.broker_probe import probes
from ether.session.broker_probe.bench import ConnectionCut, OutOfTime, ProbeBench, Probing
from ether.session.broker_probe.facts import EntryFact, NotSeen, ProbeFacts
from ether.session.discovery.search import in_parallel
from ether.transport.bare import EntryRefused
from ether.transport.base import ProtocolVersion
from ether.transport.endpoint import Endpoint

BUDGET_S = 9.0
_RESOLVE_S = 3.0
_CONNECT_S = 3.0

_AT_A_TIME = 4
"""So many probes run at once where they do not disturb each other. Far away they mostly wait. A few, because a broker
may have a limit of connections, and each needs one or two."""

Probe = Callable[[ProbeBench], object]


@dataclass(frozen=True, slots=True)
class Step:
    """One probe, and the seconds that it may take. `of_mqtt_5`: 3.1.1 does not have what it tries."""

    name: str
    probe: Probe
    at_most_s: float
    of_mqtt_5: bool = False


def probe_broker(endpoint: Endpoint, session: str | None = None, *, budget_s: float = BUDGET_S) -> ProbeFacts:
    """Try what the broker at `endpoint` does. The rights are tried in the topics of `session`, if one is named, else in
    those of a session of our own. Nothing stays on the broker."""
    began = monotonic()
    unknown = _unresolved(endpoint)
    if unknown:
        return ProbeFacts(endpoint.address, unknown, took_s=monotonic() - began)
    probing = Probing(endpoint, budget_s)
    try:
        entries, unreachable = _enter(probing)
        probed: dict[str, object] = {}
        if probing.accepted:
            _run_steps(probing, session, probed)
    finally:
        probing.close()
    named = probed.pop("software", "")
    if probing.retained:
        probed["left behind"] = tuple(sorted(probing.retained))
    software = named if isinstance(named, str) else ""
    return ProbeFacts(endpoint.address, unreachable, entries, software, probed, monotonic() - began)


def _unresolved(endpoint: Endpoint) -> str:
    """Why the host's name has no address; empty where it has one, or needs none."""
    if endpoint.kind == "unix":
        return ""
    (outcome,) = in_parallel([partial(socket.getaddrinfo, endpoint.host, endpoint.port)], _RESOLVE_S)
    if isinstance(outcome, TimeoutError):
        return f"the name {endpoint.host} was not resolved within {_RESOLVE_S:g} s"
    if isinstance(outcome, OSError):
        return f"the name {endpoint.host} has no address ({outcome.strerror or outcome})"
    return ""


def _enter(probing: Probing) -> tuple[tuple[EntryFact, ...], str]:
    """Try both versions, the newer one first; the first that is accepted is the one for what follows."""
    entries: list[EntryFact] = []
    unreachable = ""
    for version in (ProtocolVersion.V5, ProtocolVersion.V311):
        connection = probing.connection(version)
        try:
            probing.open(connection, min(monotonic() + _CONNECT_S, probing.end))
        except EntryRefused as refused:
            entries.append(EntryFact(version.value, refused.words, refused.credentials))
        except NotAuthorized as error:  # from a WebSocket's HTTP server
            entries.append(EntryFact(version.value, str(error), credentials=True))
        except OSError as error:
            unreachable = unreachable or error.strerror or str(error)
        else:
            entries.append(EntryFact(version.value, announced=connection.announced))
    return tuple(entries), "" if entries else unreachable


def _run_steps(probing: Probing, session: str | None, probed: dict[str, object]) -> None:
    """Run every probe. What may be disturbed, or disturbs, runs alone; what matters most comes first."""
    if probing.accepted[probing.version].announced.max_qos == 0:
        return  # every other probe needs QoS 1, as every session does
    _run(probing, Step("distance", probes.probe_distance, 1.0), probed)
    if isinstance(probed["distance"], NotSeen):
        return  # it does not even answer a ping
    _run_together(
        probing,
        [
            Step("rights", partial(probes.probe_rights, session=session), 3.0),
            Step("retained", probes.probe_retained, 3.0),
            Step("expiry begun", probes.begin_expiry, 1.0, of_mqtt_5=True),
            Step("order", probes.probe_order, 2.0),
            Step("properties", probes.probe_properties, 1.5, of_mqtt_5=True),
            Step("wildcards", probes.probe_wildcards, 2.0),
            Step("names", probes.probe_topic_names, 2.5),
            Step("will", probes.probe_will, 2.0),
            Step("nobody", probes.probe_nobody, 1.0),
            Step("many filters", probes.probe_many_filters, 1.5),
            Step("shared", probes.probe_shared, 2.0),
            Step("software", probes.read_software, 1.5),
        ],
        probed,
    )
    _run(probing, Step("small writes", probes.probe_small_writes, 2.5), probed)
    _run(probing, Step("burst", probes.probe_burst, 3.5), probed)
    begun = probed.get("expiry begun")
    look = begun if callable(begun) else lambda _: begun
    _run(probing, Step("expiry", look, probes.EXPIRED_S + 1, of_mqtt_5=True), probed)
    _run(probing, Step("size", probes.probe_size, 2.5), probed)


def _run_together(probing: Probing, steps: Sequence[Step], probed: dict[str, object]) -> None:
    waiting: SimpleQueue[Step] = SimpleQueue()
    for step in steps:
        waiting.put(step)

    def work() -> None:
        while not probing.stopped:
            try:
                step = waiting.get_nowait()
            except Empty:
                return
            _run(probing, step, probed)

    threads = [threading.Thread(target=work, name=f"ether-probe-{number}", daemon=True) for number in range(_AT_A_TIME)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    finally:
        probing.stopped = any(thread.is_alive() for thread in threads)  # by Ctrl-C: they end at once
        for thread in threads:
            thread.join()


def _run(probing: Probing, step: Step, probed: dict[str, object]) -> None:
    """Enter what a probe saw, or why it saw nothing."""
    if step.of_mqtt_5 and probing.version is not ProtocolVersion.V5:
        return
    try:
        bench = probing.bench(step.at_most_s)
    except OutOfTime as late:
        probed[step.name] = NotSeen(str(late))
        return
    try:
        probed[step.name] = step.probe(bench)
    except ConnectionCut as cut:
        probed[step.name] = NotSeen(str(cut), cut=True)
    except OutOfTime as late:
        probed[step.name] = NotSeen(str(late))
    except EntryRefused as refused:
        probed[step.name] = NotSeen(f"another connection was refused: {refused}")
    except OSError as error:
        probed[step.name] = NotSeen(f"another connection was not possible: {error.strerror or error}")
    except DecodeError as error:
        probed[step.name] = NotSeen(f"what came back is malformed: {error}")
    finally:
        bench.close()
