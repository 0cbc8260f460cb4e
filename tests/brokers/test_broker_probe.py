"""`probe_broker` over brokers as they come and as admins limit them: what it finds, that it ends, and that it leaves
nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from distance import Distance
from limited_mosquitto import limited_mosquitto
from patience import patience
from running_brokers import STOCK, engines, mosquitto_missing, running_broker, soon

from ether.session.broker_probe import BrokerFindings, CapabilityVerdict, judge, probe_broker
from ether.transport import Endpoint, ProtocolVersion
from ether.transport.bare import BareConnection, serve
from tests.brokers.broker_table import THREE_LINES
from tests.transport.fake_broker import PINGREQ, SUBSCRIBE, FakeConnection

YES, LIMITED, NO, UNKNOWN = (
    CapabilityVerdict.YES,
    CapabilityVerdict.LIMITED,
    CapabilityVerdict.NO,
    CapabilityVerdict.UNKNOWN,
)
needs_mosquitto = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))

MOST_S = 10.0
"""What `ether doctor --broker` may take; here bare, not through `patience`: the budget is a promise to a person."""


def found_at(url: str, session: str | None = None) -> BrokerFindings:
    """Everything about the broker, within the promised time, and with nothing left on it."""
    began = time.monotonic()
    found = judge(probe_broker(Endpoint.from_url(url), session))
    assert time.monotonic() - began < MOST_S
    return found


def retained_at(url: str) -> list[str]:
    """The topics below Ether's root that have a retained message, as any later client sees them."""
    endpoint = Endpoint.from_url(url)
    connection = BareConnection(endpoint, ProtocolVersion.V311, "looks-behind")
    deadline = time.monotonic() + patience(5)
    connection.open(deadline)
    try:
        asked = connection.subscribe(["ether/#"])
        serve([connection], lambda: asked in connection.granted, deadline)
        connection.ping()  # what is retained comes before the answer
        assert serve([connection], lambda: connection.pongs == 1, deadline)
        return [each.topic for each in connection.take() if each.retained and each.payload]
    finally:
        connection.cut()


def verdicts(found: BrokerFindings) -> dict[str, CapabilityVerdict]:
    """Those that are not yes."""
    return {each.name: each.verdict for each in found.findings if each.verdict is not YES}


@needs_mosquitto
def test_a_stock_mosquitto() -> None:
    with running_broker(STOCK) as broker:
        found = found_at(broker.url_tcp)
        assert retained_at(broker.url_tcp) == []
    assert verdicts(found) == {
        "overlapping filters": LIMITED,
        "a burst to a slow receiver": NO,
        "small writes": LIMITED,
        "messages under way": LIMITED,
    }
    assert found.carries_a_session
    assert set(found.settings) == {
        "set_tcp_nodelay true",
        "max_queued_messages 0",
        "max_inflight_messages 1000",
    }
    assert found.software.startswith("mosquitto version")


@needs_mosquitto
def test_its_advice_helps() -> None:
    """With the lines that it names for a stock Mosquitto, nothing is left that a line could mend."""
    with running_broker(STOCK, **THREE_LINES) as broker:
        found = found_at(broker.url_tcp)
    assert verdicts(found) == {"overlapping filters": LIMITED}
    assert found.settings == ()


@pytest.mark.parametrize(
    "engine", [pytest.param(engine, marks=needs_mosquitto if engine == "mosquitto" else ()) for engine in engines]
)
def test_the_embedded_engines(engine: str) -> None:
    with running_broker(engine) as broker:
        found = found_at(broker.url_tcp)
        assert retained_at(broker.url_tcp) == []
    assert found.carries_a_session
    needed = ("rights", "retained messages", "retained by wildcard", "wildcards", "wills",
              "order on a topic", "order across topics", "a burst to a slow receiver", "small writes", "topic names",
              "largest message", "messages under way")  # fmt: skip
    assert not verdicts(found).keys() & set(needed)


@needs_mosquitto
@pytest.mark.parametrize("address", ["url_unix", "url_ws"])
def test_every_way_to_a_broker(address: str) -> None:
    with running_broker("mosquitto", lan_host="0.0.0.0", websocket_port=0) as broker:
        found = found_at(getattr(broker, address))
    assert found.carries_a_session
    # Through its WebSocket a Mosquitto is slow, so that not everything is tried in time.
    assert {name for name, verdict in verdicts(found).items() if verdict is not UNKNOWN} == {"overlapping filters"}


LIMITS = [
    ("max_packet_size 200000", "largest message", LIMITED, "announced"),
    ("message_size_limit 200000", "largest message", LIMITED, "more is refused"),
    ("retain_available false", "retained messages", NO, "none"),
    ("max_qos 0", "QoS 1", NO, "QoS 0 only"),
    ("max_queued_messages 100", "a burst to a slow receiver", NO, "about 300 wait"),
    ("max_inflight_messages 7", "messages under way", LIMITED, "7 from each process"),
    ("max_topic_alias 0", "topic aliases", NO, "none"),
]


@needs_mosquitto
@pytest.mark.parametrize(("lines", "name", "verdict", "value"), LIMITS, ids=[line.split()[0] for line, *_ in LIMITS])
def test_a_limit_of_an_admin_is_found(lines: str, name: str, verdict: CapabilityVerdict, value: str) -> None:
    with limited_mosquitto(lines) as broker:
        found = found_at(broker.url_tcp)
        assert retained_at(broker.url_tcp) == []
    finding = found.finding(name)
    assert finding.verdict is verdict, finding
    assert value in finding.value
    assert finding.consequence


@needs_mosquitto
def test_the_largest_message_is_found_by_halving() -> None:
    limit = 300_000
    with limited_mosquitto(f"message_size_limit {limit}") as broker:
        facts = probe_broker(Endpoint.from_url(broker.url_tcp)).probes["size"]
    assert facts.passed_bytes <= limit < facts.failed_bytes  # type: ignore[attr-defined]
    assert facts.failed_bytes - facts.passed_bytes < limit / 10  # type: ignore[attr-defined]


@needs_mosquitto
def test_rights_of_one_session() -> None:
    """An ACL that allows one session: only with its name does everything work. Mosquitto 2.0 grants every subscription
    and delivers nothing, so the SUBACK does not tell."""
    with limited_mosquitto(acl="topic readwrite ether/1/bench/#\n") as broker:
        foreign = found_at(broker.url_tcp).finding("rights")
        own = found_at(broker.url_tcp, "bench").finding("rights")
    assert foreign.verdict is NO
    assert foreign.prevents
    assert "--session NAME" in foreign.advice
    assert own.verdict is not NO, own


@needs_mosquitto
def test_what_is_forbidden_is_named_plane_by_plane() -> None:
    acl = "topic readwrite ether/#\ntopic deny ether/1/+/control/#\n"
    with limited_mosquitto(acl=acl) as broker:
        rights = found_at(broker.url_tcp).finding("rights")
    assert rights.verdict is NO
    assert "control (" in rights.measured
    assert "data (" not in rights.measured


@needs_mosquitto
def test_a_broker_that_wants_a_user() -> None:
    with running_broker("mosquitto") as broker:
        found = found_at(f"mqtt://{broker.host}:{broker.port}")
    assert not found.entered
    assert "user:password@" in found.findings[0].advice


# -- far away, silent, rude


@needs_mosquitto
def test_100_ms_away_all_that_matters_is_found_in_time() -> None:
    with running_broker(STOCK) as broker, Distance(broker.host, broker.port, 0.05) as way:
        found = found_at(way.url)
        assert retained_at(broker.url_tcp) == []
    assert found.finding("distance").verdict is LIMITED
    assert found.finding("a burst to a slow receiver").verdict is NO
    assert "per second" in found.finding("messages under way").measured
    for name in ("rights", "retained messages", "retained by wildcard", "properties", "order across topics"):
        assert found.finding(name).verdict is YES, found.finding(name)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    found = found_at(f"mqtt://127.0.0.1:{port}")
    assert not found.entered
    assert "refused" in found.findings[0].measured.lower()


@pytest.mark.slow("waits until a broker counts as silent")
def test_a_broker_that_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = found_at(f"mqtt://127.0.0.1:{listener.getsockname()[1]}")
    assert not found.entered
    assert "does not answer a CONNECT" in found.findings[0].measured


@contextmanager
def rude_broker(answer: Callable[[FakeConnection], None]) -> Iterator[str]:
    """The URL of a broker that lets everybody in, and then does what `answer` says, with each on its own thread."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            connection = FakeConnection(0, self.request)
            with suppress(OSError):
                connection.accept()
                answer(connection)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"mqtt://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def read_on(connection: FakeConnection) -> None:
    while True:
        connection.read_packet()


def cut_at_a_message(connection: FakeConnection) -> None:
    while True:
        kind, _, body = connection.read_packet()
        if kind == SUBSCRIBE:
            rest = b"\0" if connection.v5 else b""
            filters = 14  # more codes than filters: whoever asks for fewer ignores the rest
            connection.send(bytes((0x90, 2 + len(rest) + filters)) + body[:2] + rest + b"\1" * filters)
        elif kind == PINGREQ:
            connection.send(b"\xd0\x00")
        else:
            return


@pytest.mark.parametrize("answer", [read_on, cut_at_a_message])
def test_one_that_lets_in_and_then_answers_nothing_or_cuts(answer: Callable[[FakeConnection], None]) -> None:
    with rude_broker(answer) as url:
        found = found_at(url)
    assert found.entered
    assert not found.carries_a_session
    assert found.finding("rights").verdict in ((NO, UNKNOWN) if answer is cut_at_a_message else (UNKNOWN,))


# -- it leaves nothing behind


PROBE = """
import sys
from ether.session.broker_probe import probe_broker
from ether.transport import Endpoint
probe_broker(Endpoint.from_url(sys.argv[1]))
"""


@contextmanager
def retained_by_a_probing(url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that probes the broker, in the moment in which it has retained something."""
    watcher = BareConnection(Endpoint.from_url(url), ProtocolVersion.V5, "watcher")
    deadline = time.monotonic() + patience(10)
    watcher.open(deadline)
    asked = watcher.subscribe(["ether/1/+/state/retained"])
    assert serve([watcher], lambda: asked in watcher.granted, deadline)
    with subprocess.Popen([sys.executable, "-c", PROBE, url], stderr=subprocess.DEVNULL) as process:
        try:
            assert serve([watcher], lambda: bool(watcher.deliveries), deadline)
            yield process
        finally:
            watcher.cut()
            process.kill()


@needs_mosquitto
@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process there")
def test_ctrl_c_leaves_nothing_behind() -> None:
    with running_broker(STOCK) as broker:
        with retained_by_a_probing(broker.url_tcp) as process:
            os.kill(process.pid, signal.SIGINT)
            assert process.wait(patience(5)) != 0
        # A message that another probe retained in that very moment is over after a second.
        assert soon(lambda: retained_at(broker.url_tcp) == [], 5)


@needs_mosquitto
def test_what_a_killed_probing_leaves_is_over_after_a_minute(tmp_path: Path) -> None:
    with running_broker(STOCK) as broker:
        with retained_by_a_probing(broker.url_tcp) as process:
            process.kill()
            process.wait(patience(5))
        watcher = BareConnection(Endpoint.from_url(broker.url_tcp), ProtocolVersion.V5, "later")
        deadline = time.monotonic() + patience(5)
        watcher.open(deadline)
        asked = watcher.subscribe(["ether/1/+/state/retained"])
        serve([watcher], lambda: asked in watcher.granted and bool(watcher.deliveries), deadline)
        for left in watcher.take():
            assert b"\x02\x00\x00\x00" in left.properties, "it has no Message Expiry"
            assert left.properties[left.properties.index(b"\x02") + 4] <= 60
        watcher.cut()
