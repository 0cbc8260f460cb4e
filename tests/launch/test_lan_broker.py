"""A session's own broker that other machines reach with `security: off`: plain, with the lab key, on an address beside
loopback. With certificates: test_encrypted_broker.py."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine_params import engine_params
from patience import patience
from running_brokers import engines, mosquitto_missing, soon

from ether.cli.machines.probe import _websocket_check
from ether.config.broker import EmbeddedBroker as Config
from ether.connection.deadline import Deadline
from ether.errors import BrokerFailed, BrokerUnreachable, NotAuthorized, TransportClosed, WrongLabKey
from ether.launch.broker import BrokerProcess, private_folder
from ether.launch.process_group import make_group
from ether.security.credentials import Credentials
from ether.security.lab_key import LabKey, load_key
from ether.session.discovery.search import SearchTarget, find, look_back, remember
from ether.transport import open_transport
from ether.transport.endpoint import Endpoint

NEEDS_MORE_LOOPBACK = pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no 127.0.0.2 unless told to")
BESIDE = "127.0.0.2"
AT_ONE_ADDRESS = pytest.mark.parametrize("start", ["amqtt"], indirect=True)
"""Mosquitto opens WebSockets at every address, and is refused for that (the test below)."""

Start = Callable[..., BrokerProcess]


@pytest.fixture(params=engine_params(engines))
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Start]:
    """Starts a session's broker, for a user of this test alone."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ETHER_MDNS", "0")
    monkeypatch.setenv("ETHER_SECURITY", "off")
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "ETHER_KEY", "ETHER_BROKER", "ETHER_SESSION"):
        monkeypatch.delenv(name, raising=False)
    folder = private_folder()
    group = make_group(folder)
    started: list[BrokerProcess] = []

    def start(**settings: object) -> BrokerProcess:
        settings = {"engine": request.param, "security": "off", **settings}
        started.append(BrokerProcess(Config(**settings), group, folder))
        started[-1].wait_ready(15)
        return started[-1]

    yield start
    for broker in started:
        broker.stop(5)
    shutil.rmtree(folder, ignore_errors=True)
    group.close()


def enter(host: str, port: int, who: Credentials | None) -> None:
    """Connect, or raise why not."""
    endpoint = Endpoint("tcp", host, port, username=who and who.username, password=who and who.password)
    transport = open_transport(endpoint, client_id="guest")
    try:
        transport.connect(5)
    finally:
        transport.close()


def key() -> LabKey:
    known = load_key(os.environ)
    assert known is not None
    return known


@NEEDS_MORE_LOOPBACK
def test_the_right_key_gets_in_and_no_other(start: Start) -> None:
    broker = start(listen=BESIDE)
    assert broker.lan_host == BESIDE
    assert broker.entry["security"] == "off", "ps and doctor say so"
    assert broker.lan_port is not None
    assert broker.lan_url == f"mqtt://{BESIDE}:{broker.lan_port}"
    enter(BESIDE, broker.lan_port, key().credentials())
    for stranger in (None, LabKey("0" * 32, "").credentials(), Credentials("ether", ""), Credentials.random()):
        with pytest.raises(NotAuthorized):
            enter(BESIDE, broker.lan_port, stranger)


@NEEDS_MORE_LOOPBACK
def test_another_machine_needs_only_the_address_and_the_key(start: Start, tmp_path: Path) -> None:
    broker = start(listen=BESIDE)
    transport = open_transport(broker.endpoint, client_id="owner")
    transport.connect(5)
    transport.publish("ether/1/bench/session", b'{"host": "pc1"}', retain=True).wait(patience(5))
    found = find(broker=f"{BESIDE}:{broker.lan_port}", environment=os.environ)
    assert found is not None
    assert (found.name, found.host) == ("bench", "pc1")
    transport.close()
    stranger = {"HOME": str(tmp_path / "stranger"), "ETHER_KEY": "f" * 32, "ETHER_SECURITY": "off"}
    with pytest.raises(WrongLabKey, match=r"\(ETHER_KEY\)"):
        find(broker=broker.lan_url, environment=stranger)


@NEEDS_MORE_LOOPBACK
def test_the_sessions_own_ways_stay(start: Start) -> None:
    broker = start(listen=BESIDE)
    own = Endpoint.from_url(broker.url)
    assert own.host == "127.0.0.1"
    for endpoint in (own, broker.endpoint):
        transport = open_transport(endpoint, client_id="own")
        transport.connect(5)
        transport.close()


@NEEDS_MORE_LOOPBACK
def test_the_usual_port_where_it_is_free(start: Start) -> None:
    for _ in range(3):
        if not usual_port_is_free():
            pytest.skip("port 1883 is in use on this machine")
        broker = start(listen=BESIDE)
        if broker.lan_port == 1883:
            return
        broker.stop(5)  # somebody else, such as another worker's test, has taken it in between
    pytest.fail("it took another port three times, where 1883 was free")


def usual_port_is_free() -> bool:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a connection in TIME_WAIT is no owner
        try:
            taken.bind((BESIDE, 1883))
        except OSError:
            return False
    return True


@NEEDS_MORE_LOOPBACK
def test_another_port_where_it_is_not(start: Start) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

        def is_ours() -> bool:
            try:
                taken.bind((BESIDE, 1883))
            except OSError:
                return False
            taken.listen()
            return True

        soon(
            is_ours, 5
        )  # another test's broker may have it for a while; where another program keeps it, that is as good
        broker = start(listen=BESIDE)
        assert broker.lan_port is not None
        assert broker.lan_port != 1883
        enter(BESIDE, broker.lan_port, key().credentials())


@NEEDS_MORE_LOOPBACK
def test_a_port_that_was_asked_for_and_is_taken_is_an_error(start: Start) -> None:
    with socket.create_server((BESIDE, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BrokerFailed, match=f"Cannot listen on {BESIDE}:{port}"):
            start(listen=BESIDE, port=port)


def test_an_address_of_another_machine_is_an_error(start: Start) -> None:
    with pytest.raises(BrokerFailed, match=r"Cannot listen on 192\.0\.2\.77: .* Is it an address of this machine\?"):
        start(listen="192.0.2.77")


@NEEDS_MORE_LOOPBACK
def test_on_every_network(start: Start) -> None:
    broker = start(listen="lan")
    assert broker.lan_host == "0.0.0.0"
    assert broker.lan_url == f"mqtt://{socket.gethostname()}:{broker.lan_port}"
    assert broker.lan_port is not None
    enter("127.0.0.3", broker.lan_port, key().credentials())


@NEEDS_MORE_LOOPBACK
@pytest.mark.skipif(sys.platform != "linux", reason="looks for the engine's process in /proc")
def test_a_broker_that_died_comes_back_at_the_same_address(start: Start) -> None:
    broker = start(listen=BESIDE)
    port = broker.lan_port
    assert port is not None
    first = broker._child
    first.terminate()

    def back() -> bool:
        try:
            enter(BESIDE, port, key().credentials())
        except BrokerUnreachable:
            return False
        return True

    assert soon(lambda: broker._child is not first, 10)
    assert soon(back, 10)
    assert broker.lan_port == port


def free_port() -> int:
    with socket.create_server((BESIDE, 0)) as taken:
        return int(taken.getsockname()[1])


@NEEDS_MORE_LOOPBACK
@AT_ONE_ADDRESS
def test_through_a_websocket_with_the_address_and_the_key(start: Start, tmp_path: Path) -> None:
    port = free_port()
    broker = start(listen=BESIDE, websocket_port=port)
    url = f"ws://{BESIDE}:{port}/mqtt"
    assert broker.websocket_url == broker.entry["websocket"] == url
    transport = open_transport(broker.endpoint, client_id="owner")
    transport.connect(5)
    transport.publish("ether/1/bench/session", b'{"host": "pc1"}', retain=True).wait(patience(5))
    for named in ({"broker": url, "environment": os.environ}, {"environment": {**os.environ, "ETHER_BROKER": url}}):
        found = find(**named)
        assert found is not None
        assert (found.name, found.host, found.address) == ("bench", "pc1", url)
    remember(found, os.environ)
    assert look_back(SearchTarget.of(None, None, os.environ, 0)).found[0].url == found.url
    transport.close()
    with pytest.raises(WrongLabKey, match=rf"{url}"):
        find(
            broker=url, environment={"HOME": str(tmp_path / "stranger"), "ETHER_KEY": "f" * 32, "ETHER_SECURITY": "off"}
        )


@NEEDS_MORE_LOOPBACK
@AT_ONE_ADDRESS
def test_a_websocket_port_that_is_taken_is_an_error(start: Start) -> None:
    with socket.create_server((BESIDE, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BrokerFailed, match=f"Cannot listen on {BESIDE}:{port}"):
            start(listen=BESIDE, websocket_port=port)


@NEEDS_MORE_LOOPBACK
@AT_ONE_ADDRESS
def test_what_doctor_says_of_it(start: Start) -> None:
    broker = start(listen=BESIDE, websocket_port=free_port())
    assert broker.websocket_url is not None
    assert _websocket_check(broker.websocket_url)[:2] == ("websocket", "ok")
    for url in (f"ws://{BESIDE}:{broker.lan_port}", f"ws://me:hush@{BESIDE}:{free_port()}", "ws://me:hush@h/?x"):
        check = _websocket_check(url)
        assert check[:2] == ("websocket", "fail")
        assert "hush" not in check.detail


@pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
@pytest.mark.parametrize("start", ["mosquitto"], indirect=True)
def test_a_mosquitto_that_would_open_it_to_everybody_is_refused(start: Start) -> None:
    with pytest.raises(BrokerFailed, match=f"at every address of this machine, not at {BESIDE} alone; take the engine"):
        start(listen=BESIDE, websocket_port=free_port())


@NEEDS_MORE_LOOPBACK
def test_by_default_nobody_else_reaches_it(start: Start) -> None:
    broker = start()
    assert broker.lan_url is broker.lan_host is broker.lan_port is broker.websocket_url is None
    assert "websocket" not in broker.entry
    assert load_key(os.environ) is None, "no key is made where none is needed"
    with pytest.raises(BrokerUnreachable):
        enter(BESIDE, Endpoint.from_url(broker.url).port, None)


def test_a_broker_that_ends_while_one_connects_is_waited_for() -> None:
    folder = private_folder()
    group = make_group(folder)
    broker = BrokerProcess(Config(engine="amqtt"), group, folder)
    tried: list[int] = []

    def connect() -> int:
        tried.append(broker.wait_ready(0).port)
        if len(tried) == 1:
            os.kill(broker._child.pid, signal.SIGKILL)
            raise TransportClosed("reset by peer")
        socket.create_connection(("127.0.0.1", tried[-1]), 5).close()
        return len(tried)

    try:
        broker.wait_ready(15)
        assert broker.connected(connect, Deadline(15)) == 2
        assert tried[0] == tried[1]
        with pytest.raises(TransportClosed):
            broker.connected(refuse, Deadline(0.1))
    finally:
        broker.stop(5)
        shutil.rmtree(folder, ignore_errors=True)
        group.close()


def refuse() -> None:
    raise TransportClosed("it lives, and refuses")
