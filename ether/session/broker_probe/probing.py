"""One probing of a broker from the first connection to the last: which probes, in which order, and how long each may
take.

Promise: it ends within its budget of seconds, whatever the broker does, and half a second for its end. A name that has
to be resolved is waited for like everything else, on a thread that is left to itself afterwards.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from functools import partial
from time import monotonic

from ether.errors import DecodeError, NotAuthorized
from ether.session.broker_probe import probes
from ether.session.broker_probe.bench import ConnectionCut, OutOfTime, ProbeBench
from ether.session.broker_probe.facts import EntryFact, NotSeen, ProbeFacts
from ether.session.discovery.search import in_parallel
from ether.transport.bare import BareConnection, EntryRefused
from ether.transport.base import ProtocolVersion
from ether.transport.endpoint import Endpoint

BUDGET_S = 9.0
_RESOLVE_S = 3.0
_OF_MQTT_5 = ("properties", "expiry begun", "expiry")

Probe = Callable[[ProbeBench], object]


def probe_broker(endpoint: Endpoint, session: str | None = None, *, budget_s: float = BUDGET_S) -> ProbeFacts:
    """Try what the broker at `endpoint` does. The rights are tried in the topics of `session`, if one is named, else in
    those of a session of our own. Nothing stays on the broker."""
    began = monotonic()
    unknown = _unresolved(endpoint)
    if unknown:
        return ProbeFacts(endpoint.address, unknown, took_s=monotonic() - began)
    bench = ProbeBench(endpoint, budget_s)
    try:
        entries, unreachable = _enter(bench)
        probed: dict[str, object] = {}
        software = ""
        if not unreachable and bench.accepted:
            _run_probes(bench, session, probed)
            named = probed.pop("software", "")
            software = named if isinstance(named, str) else ""
    finally:
        bench.close()
    if bench.left_behind:
        probed["left behind"] = tuple(sorted(bench.left_behind))
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


def _enter(bench: ProbeBench) -> tuple[tuple[EntryFact, ...], str]:
    """Try both versions, the newer one first; the first that is accepted is the one for what follows."""
    entries: list[EntryFact] = []
    unreachable = ""
    for version in (ProtocolVersion.V5, ProtocolVersion.V311):
        bench.begin_probe(3.0)
        try:
            connection = bench.connect(version)
        except EntryRefused as refused:
            entries.append(EntryFact(version.value, refused.words, refused.credentials))
            continue
        except NotAuthorized as error:  # from a WebSocket's HTTP server
            entries.append(EntryFact(version.value, str(error), credentials=True))
            continue
        except OSError as error:
            unreachable = unreachable or error.strerror or str(error)
            continue
        entries.append(EntryFact(version.value, announced=connection.announced))
        _accept(bench, connection)
    return tuple(entries), "" if entries else unreachable


def _accept(bench: ProbeBench, connection: BareConnection) -> None:
    if not bench.accepted:
        bench.adopt(connection)
    bench.accepted.append(connection.version)


def _run_probes(bench: ProbeBench, session: str | None, probed: dict[str, object]) -> None:
    if bench.main.announced.max_qos == 0:
        return  # every other probe needs QoS 1, as every session does
    for name, probe, at_most_s in _plan(session, probed):
        if name == "expiry begun" and all(isinstance(fact, NotSeen) for fact in probed.values()):
            return  # it answers neither a ping nor anything else
        if bench.version is ProtocolVersion.V5 or name not in _OF_MQTT_5:
            probed[name] = _tried(bench, probe, at_most_s)


def _plan(session: str | None, probed: Mapping[str, object]) -> tuple[tuple[str, Probe, float], ...]:
    """The probes, what matters most first, and the seconds that each may take. What may cost a connection, or much
    time, comes late."""

    def look_for_expired(bench: ProbeBench) -> object:
        begun = probed["expiry begun"]
        return begun(bench) if callable(begun) else begun

    return (
        ("distance", probes.probe_distance, 1.0),
        ("rights", partial(probes.probe_rights, session=session), 3.0),
        ("expiry begun", probes.begin_expiry, 1.0),
        ("retained", probes.probe_retained, 3.0),
        ("properties", probes.probe_properties, 1.0),
        ("small writes", probes.probe_small_writes, 2.5),
        ("burst", probes.probe_burst, 3.0),
        ("order", probes.probe_order, 1.5),
        ("wildcards", probes.probe_wildcards, 1.5),
        ("many filters", probes.probe_many_filters, 1.5),
        ("will", probes.probe_will, 1.5),
        ("nobody", probes.probe_nobody, 1.0),
        ("names", probes.probe_topic_names, 2.0),
        ("expiry", look_for_expired, probes.EXPIRED_S + 1),
        ("size", probes.probe_size, 2.0),
        ("shared", probes.probe_shared, 1.0),
        ("software", probes.read_software, 1.0),
    )


def _tried(bench: ProbeBench, probe: Probe, at_most_s: float) -> object:
    """What a probe saw, or why it saw nothing."""
    if not bench.begin_probe(at_most_s):
        return NotSeen("no time was left")
    try:
        return probe(bench)
    except ConnectionCut as cut:
        return NotSeen(str(cut), cut=True)
    except OutOfTime as late:
        return NotSeen(str(late))
    except EntryRefused as refused:
        return NotSeen(f"another connection was refused: {refused}")
    except OSError as error:
        return NotSeen(f"another connection was not possible: {error.strerror or error}")
    except DecodeError as error:
        return NotSeen(f"what came back is malformed: {error}")
    finally:
        bench.leave_others()
