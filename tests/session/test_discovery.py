"""How a program finds the running session: each place with real brokers, their order, and what is decided."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from engine_params import EMBEDDED
from multicast import multicast_alone
from paired import pair
from patience import patience
from running_brokers import RunningBroker, engines, mosquitto_missing, running_broker

from ether.errors import (
    BrokerUnreachable,
    ConfigError,
    InvalidName,
    NotAMember,
    NotAuthorized,
    NotEncrypted,
    SeveralSessions,
    WrongLabKey,
)
from ether.security.lab_key import load_key, load_or_make_key
from ether.session.discovery import mdns
from ether.session.discovery import search as discovery
from ether.session.discovery.directory import SessionInfo, sessions_at
from ether.session.discovery.known_brokers import MOST, read_remembered, remember_broker, state_file
from ether.session.discovery.local_sessions import SessionRecord, write_record
from ether.session.discovery.search import FoundSession, choose, explore, find, in_parallel, remember
from ether.transport import Transport, open_transport
from ether.transport.base import Delivery
from ether.transport.endpoint import Endpoint

NEEDS_MOSQUITTO = pytest.mark.skipif(mosquitto_missing is not None, reason=mosquitto_missing or "")
ENGINES = [pytest.param(name, marks=NEEDS_MOSQUITTO if name == "mosquitto" else ()) for name in engines]
LOOPBACK = ["127.0.0.1"]
DEVICE = "pi-of-the-second-bench"
"""Of a name as short as `pi` the two letters are found by chance in the random bytes of a TLS handshake."""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A user of this test alone, without mDNS, who has said that sessions need not be encrypted."""
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    return {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(runtime), "ETHER_MDNS": "0", "ETHER_SECURITY": "off"}


pytestmark = pytest.mark.in_turn("broker")


@pytest.fixture(params=ENGINES)
def broker(request: pytest.FixtureRequest) -> Iterator[RunningBroker]:
    with running_broker(request.param) as running:
        yield running


@pytest.fixture
def any_broker() -> Iterator[RunningBroker]:
    with running_broker("auto") as running:
        yield running


@contextmanager
def connected(url: str) -> Iterator[Transport]:
    transport = open_transport(Endpoint.from_url(url), client_id="test")
    transport.connect(5)
    try:
        yield transport
    finally:
        transport.close()


def announce(url: str, *names: str, pid: int = 7) -> None:
    """Let the broker carry sessions of these names."""
    with connected(url) as transport:
        for name in names:
            info = {
                "session": name,
                "host": "pc1",
                "pid": pid,
                "since": 1000.0,
                "version": "0.1",
                "engine": "x",
                "wire": 2,
            }
            transport.publish(f"ether/1/{name}/session", json.dumps(info).encode(), retain=True).wait(patience(5))


def record(environment: dict[str, str], name: str, url: str = "mqtt://127.0.0.1:1") -> SessionRecord:
    """A session of this process, as its launcher notes it."""
    folder = Path(environment["XDG_RUNTIME_DIR"]) / f"ether-{name}"
    folder.mkdir(mode=0o700)
    made = SessionRecord.of_this_process(name, url)
    write_record(folder, made)
    return made


def nobody_listens() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"mqtt://127.0.0.1:{free.getsockname()[1]}"


# ---- the directory of a broker


def test_the_directory_lists_every_session(broker: RunningBroker) -> None:
    endpoint = Endpoint.from_url(broker.url_tcp)
    assert sessions_at(endpoint, 5) == []
    announce(broker.url_tcp, "bench", "zwei ü")
    listed = sessions_at(endpoint, 5)
    assert listed == [SessionInfo(name, "pc1", 7, 1000.0, "0.1", "x") for name in ("bench", "zwei ü")]


def test_the_directory_believes_only_the_form_of_an_entry(any_broker: RunningBroker) -> None:
    entries = {
        "text": b"hello", "number": b"5", "broken": b"{", "list": b"[]", "empty-object": b"{}", "binary": b"\xff\xfe",
        "types": b'{"host": 5, "pid": "x", "since": [], "session": "bench"}', " space ": b"{}",
    }  # fmt: skip
    with connected(any_broker.url_tcp) as transport:
        for name, payload in entries.items():
            transport.publish(f"ether/1/{name}/session", payload, retain=True).wait(patience(5))
    listed = sessions_at(Endpoint.from_url(any_broker.url_tcp), 5)
    assert listed == [SessionInfo("empty-object"), SessionInfo("types")]


def test_a_session_that_left_is_not_listed(broker: RunningBroker) -> None:
    announce(broker.url_tcp, "bench")
    with connected(broker.url_tcp) as transport:
        transport.publish("ether/1/bench/session", b"", retain=True).wait(patience(5))
    assert sessions_at(Endpoint.from_url(broker.url_tcp), 5) == []


def test_a_broker_that_says_nothing_is_unreachable_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(BrokerUnreachable):
            sessions_at(Endpoint("tcp", "127.0.0.1", silent.getsockname()[1]), 0.4)
        assert time.monotonic() - began < patience(2)


# ---- a broker that was named


def test_the_argument_comes_before_the_environment(broker: RunningBroker, environment: dict[str, str]) -> None:
    announce(broker.url_tcp, "bench")
    record(environment, "local")
    environment["ETHER_BROKER"] = nobody_listens()
    found = find(broker=broker.url_tcp, environment=environment)
    assert found == FoundSession("bench", broker.url_tcp, "argument", "pc1", 7, 1000.0)
    environment["ETHER_BROKER"] = broker.url_tcp
    from_environment = find(environment=environment)
    assert from_environment is not None
    assert (from_environment.name, from_environment.how) == ("bench", "environment")
    assert broker.password not in repr(found) + found.address


def test_a_named_broker_that_does_not_answer_is_an_error(environment: dict[str, str]) -> None:
    record(environment, "local")
    with pytest.raises(BrokerUnreachable, match=r"127\.0\.0\.1"):
        find(broker=nobody_listens(), environment=environment)


def test_a_named_broker_without_sessions_gives_none(any_broker: RunningBroker, environment: dict[str, str]) -> None:
    assert find(broker=any_broker.url_tcp, environment=environment) is None
    announce(any_broker.url_tcp, "bench")
    assert find(broker=any_broker.url_tcp, session="other", environment=environment) is None


def test_several_sessions_at_a_named_broker(any_broker: RunningBroker, environment: dict[str, str]) -> None:
    announce(any_broker.url_tcp, "bench", "other")
    with pytest.raises(
        SeveralSessions, match=r"'bench' on pc1, since .*'other' on pc1.*session='bench'.*ETHER_SESSION"
    ):
        find(broker=any_broker.url_tcp, environment=environment)
    for way in ({"session": "other"}, {"environment": {**environment, "ETHER_SESSION": "other"}}):
        found = find(**{"broker": any_broker.url_tcp, "environment": environment, **way})  # type: ignore[arg-type]
        assert found is not None
        assert found.name == "other"


def test_sessions_of_dead_leaders_do_not_count(any_broker: RunningBroker, environment: dict[str, str]) -> None:
    """Where leaders are asked, one whose process has ended here is none, and its entry is cleared."""
    url, dead = any_broker.url_tcp, {"host": socket.gethostname(), "pid": 2**22 - 1, "since": 1000.0}
    with connected(url) as transport:
        transport.publish("ether/1/ghost/session", json.dumps(dead).encode(), retain=True).wait(patience(5))
        transport.subscribe(["ether/1/bench/session", "ether/1/bench/control/leader/probe"])
        lead(transport)
        answering = threading.Thread(target=answer_probes, args=(transport, ended := threading.Event()))
        answering.start()
        try:
            assert find(broker=url, session="bench", environment=environment, patience_s=10.0) is not None
            with pytest.raises(SeveralSessions):
                find(broker=url, environment=environment)
            found = find(broker=url, environment=environment, patience_s=10.0)
            assert found == FoundSession("bench", url, "argument", "pc1", 7, 1000.0)
            assert not found.doubtful
            assert [info.session for info in sessions_at(Endpoint.from_url(url), 5)] == ["bench"]
        finally:
            ended.set()
            answering.join(patience(5))


def lead(transport: Transport) -> None:
    info = {"host": "pc1", "pid": 7, "since": 1000.0, "wire": 2}
    transport.publish("ether/1/bench/session", json.dumps(info).encode(), retain=True).wait(patience(5))


def answer_probes(transport: Transport, ended: threading.Event) -> None:
    while not ended.is_set():
        item = transport.receive(0.1)
        if isinstance(item, Delivery):
            transport.consumed(item)
            if item.topic.endswith("/probe"):
                lead(transport)


@pytest.mark.parametrize("host", [socket.gethostname(), "pc1"], ids=["here", "elsewhere"])
def test_a_leader_of_before_is_asked_as_it_knows_it(
    any_broker: RunningBroker, environment: dict[str, str], host: str
) -> None:
    """It knows no probe, so the broker says of that that nobody subscribes to it. Called by its name it answers, also
    where a machine of the same name has no such process."""
    url, entry = any_broker.url_tcp, "ether/1/bench/session"
    info = {"host": host, "pid": 2**22 - 1, "since": 1000.0, "program": "main", "run": "r"}
    with connected(url) as transport:
        transport.publish(entry, json.dumps(info).encode(), retain=True).wait(patience(5))
        transport.subscribe(["ether/1/bench/control/announce"])
        called: list[object] = []

        def answer() -> None:
            if isinstance(item := transport.receive(patience(10)), Delivery):
                called.append(json.loads(item.payload))
                transport.publish(entry, json.dumps(info).encode(), retain=True).wait(patience(5))

        answering = threading.Thread(target=answer)
        answering.start()
        found = find(broker=url, session="bench", environment=environment, patience_s=10.0)
        answering.join(patience(10))
    assert called == [{"instances": ["main"]}]
    assert found == FoundSession("bench", url, "argument", host, 2**22 - 1, 1000.0)
    assert not found.doubtful


def test_a_remembered_session_in_doubt_is_asked_again_with_patience(environment: dict[str, str]) -> None:
    """Several brokers are asked at the same time, within a second: too short for a leader that may come back."""
    with running_broker("auto") as broker:
        announce(broker.url_tcp, "bench")
        remember(FoundSession("bench", broker.url_tcp, "argument", "pc1", 7, 1000.0), environment)
        in_doubt = find(environment=environment, patience_s=0.5)
        assert in_doubt is not None
        assert in_doubt.doubtful
        if "5" in broker.protocols:  # over 3.1.1 the broker does not say that nobody is there
            assert find(environment=environment, patience_s=10.0) is None
            assert sessions_at(Endpoint.from_url(broker.url_tcp), 5) == []


@pytest.mark.parametrize("typed", ["127.0.0.1:{port}", "localhost:{port}", "mqtt://127.0.0.1:{port}"])
def test_an_address_is_enough_where_the_lab_key_opens_it(environment: dict[str, str], typed: str) -> None:
    who = load_or_make_key(environment).credentials()
    with running_broker("auto", username=who.username, password=who.password) as broker:
        announce(broker.url_tcp, "bench")
        found = find(broker=typed.format(port=broker.port), environment=environment)
        assert found is not None
        assert [info.session for info in sessions_at(Endpoint.from_url(found.url), 5)] == ["bench"]


def test_a_wrong_lab_key_says_which_file_to_copy(any_broker: RunningBroker, environment: dict[str, str]) -> None:
    with pytest.raises(WrongLabKey, match=r"none in .*/ether/key\).*copy the file ~/.config/ether/key"):
        find(broker=f"127.0.0.1:{any_broker.port}", environment=environment)
    key = load_or_make_key(environment)
    with pytest.raises(NotAuthorized) as caught:
        find(broker=f"127.0.0.1:{any_broker.port}", environment=environment)
    assert key.source in str(caught.value)
    assert key.digits not in str(caught.value)
    assert key.credentials().password not in str(caught.value)


def test_wrong_credentials_in_a_url_are_not_the_keys_fault(
    any_broker: RunningBroker, environment: dict[str, str]
) -> None:
    with pytest.raises(NotAuthorized) as caught:
        find(broker=f"mqtt://me:wrong@127.0.0.1:{any_broker.port}", environment=environment)
    assert not isinstance(caught.value, WrongLabKey)


# ---- this machine


def test_the_session_of_this_machine(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("looked at the network")

    monkeypatch.setattr(mdns, "browse", never)
    del environment["ETHER_MDNS"]
    made = record(environment, "bench", "mqtt://u:p@127.0.0.1:9")
    said: list[str] = []
    found = find(environment=environment, report=said.append)
    assert found == FoundSession("bench", made.url, "this machine", made.host, os.getpid(), made.since)
    assert said == [f"discovery, this machine: 'bench' on {made.host}"]


def test_several_on_this_machine_and_none_named(environment: dict[str, str]) -> None:
    record(environment, "one")
    record(environment, "two")
    with pytest.raises(SeveralSessions) as caught:
        find(environment=environment)
    assert sorted(name for name, _, _ in caught.value.sessions) == ["one", "two"]
    found = find(session="two", environment=environment)
    assert found is not None
    assert found.name == "two"
    assert find(session="three", environment=environment) is None


# ---- the network


@contextmanager
def announced(session: str, port: int, user: str = "ether", host: str = "pc1", lab: str = "") -> Iterator[None]:
    handle = mdns.announce(session, port, LOOPBACK, "0.1", user=user, lab=lab, host=host, interfaces=LOOPBACK)
    assert handle is not None
    try:
        assert handle.wait_announced(patience(20)), "this machine does not let multicast through on loopback"
        yield
    finally:
        handle.close()


@pytest.fixture
def on_loopback(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """mDNS on, through the loopback interface only."""
    pytest.importorskip("zeroconf", reason="zeroconf is not installed: pip install zeroconf")
    if sys.platform != "linux":
        pytest.skip("multicast on the loopback interface: tested on Linux only")
    real = mdns.browse
    monkeypatch.setattr(mdns, "browse", lambda s, *, session=None: real(s, session=session, interfaces=LOOPBACK))
    environment["ETHER_MDNS"] = "2"
    with multicast_alone():
        yield environment


def test_an_announced_session_is_found_with_the_lab_key(on_loopback: dict[str, str]) -> None:
    who = load_or_make_key(on_loopback).credentials()
    with running_broker("auto", username=who.username, password=who.password) as broker, announced("bé", broker.port):
        announce(broker.url_tcp, "bé", "not announced")
        for name in (None, "bé"):
            found = find(session=name, environment=on_loopback)
            assert found is not None
            assert (found.name, found.how, found.host, found.pid) == ("bé", "network", "pc1", 7)
            assert found.url == broker.url_tcp


def test_what_is_announced_and_not_there_is_not_found(on_loopback: dict[str, str]) -> None:
    with announced("bench", int(nobody_listens().rpartition(":")[2])):
        assert find(environment=on_loopback) is None
        [step] = [step for step in explore(environment=on_loopback) if step.name == "network"]
        assert "1 announced" in step.detail
        assert "cannot reach a broker at mqtt://127.0.0.1" in step.detail


@pytest.mark.parametrize("engine", EMBEDDED)
def test_i10_an_announced_session_that_refuses_us(engine: str, on_loopback: dict[str, str]) -> None:
    load_or_make_key(on_loopback)
    with running_broker(engine) as broker, announced("bench", broker.port):
        announce(broker.url_tcp, "bench")
        with pytest.raises(WrongLabKey, match=r"copy the file ~/\.config/ether/key on pc1"):
            find(session="bench", environment=on_loopback)
        assert find(session="other", environment=on_loopback) is None
        with pytest.raises(WrongLabKey, match=r"session 'bench' was found, but the broker at .* name it: session="):
            find(environment=on_loopback)


class Trap:
    """What somebody who announces anything gets: everything that is sent to it, and whether anybody came."""

    def __init__(self, listener: socket.socket) -> None:
        self.heard, self.visitors, self._listener = b"", 0, listener
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                visitor, _ = self._listener.accept()
            except OSError:
                return
            with visitor, suppress(OSError):
                self.visitors += 1
                visitor.settimeout(0.5)
                while more := visitor.recv(4_096):
                    self.heard += more

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def trap() -> Iterator[Trap]:
    trap = Trap(socket.create_server(("127.0.0.1", 0)))
    yield trap
    trap.close()


def test_who_announces_a_plain_session_gets_nothing(on_loopback: dict[str, str], trap: Trap) -> None:
    del on_loopback["ETHER_SECURITY"]
    load_or_make_key(on_loopback)
    with announced("bench", trap._listener.getsockname()[1]):
        for name in ("bench", None):
            with pytest.raises(NotEncrypted, match=r"session 'bench' on pc1 .* is not encrypted.*ETHER_SECURITY=off"):
                find(session=name, environment=on_loopback)
        assert find(session="other", environment=on_loopback) is None
    assert trap.visitors == 0


@pytest.mark.parametrize("lab", ["another", "ours"])
def test_who_announces_a_lab_gets_nothing_secret_and_hides_nobody(
    on_loopback: dict[str, str], trap: Trap, lab: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another lab nothing is asked. One that says it is ours is asked, and cannot show that it is."""
    del on_loopback["ETHER_SECURITY"]
    ours = pair(on_loopback, on_loopback, DEVICE)
    for variable in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(variable, on_loopback["HOME"] + ("/.config" if variable != "HOME" else ""))
    with announced("bench", trap._listener.getsockname()[1], lab=ours.lab if lab == "ours" else "a" * 26):
        assert find(session="bench", environment=on_loopback) is None, "a member starts or finds its own"
    assert (trap.visitors > 0) is (lab == "ours")
    assert b"MQTT" not in trap.heard
    assert DEVICE.encode() not in trap.heard


def test_a_stranger_is_told_to_pair(on_loopback: dict[str, str]) -> None:
    with announced("bench", 1, lab="a" * 26), pytest.raises(NotAMember, match=r"`ether pair NAME` on pc1"):
        find(session="bench", environment=on_loopback)


def test_mdns_takes_no_longer_than_it_may(on_loopback: dict[str, str]) -> None:
    on_loopback["ETHER_MDNS"] = "0.1"
    began = time.monotonic()
    assert find(environment=on_loopback) is None
    assert 0.1 <= time.monotonic() - began < mdns.BROWSE_S - 0.1  # what it takes where nothing is said


def test_a_session_that_ends_is_announced_no_more(on_loopback: dict[str, str]) -> None:
    with announced("bench", 1):
        [heard] = mdns.browse(patience(10))
        assert heard == mdns.Announced("bench", "pc1", "0.1", "ether", ("127.0.0.1",), 1)
    assert mdns.browse(0.3) == []


def test_no_password_and_nothing_too_long_is_announced(caplog: pytest.LogCaptureFixture) -> None:
    assert mdns.announce("ü" * 64 + "x" * 200, 1, LOOPBACK, "1", user="ether") is None
    assert mdns.announce("bench", 1, [], "1", user="ether") is None
    assert "its session is too long for mDNS" in caplog.text
    assert "its machine has no address" in caplog.text


def test_without_zeroconf_everything_else_works(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zeroconf", None)
    del environment["ETHER_MDNS"]
    assert find(environment=environment) is None
    [step] = [step for step in explore(environment=environment) if step.name == "network"]
    assert "zeroconf is not installed" in step.detail
    assert mdns.announce("bench", 1, LOOPBACK, "1", user="ether") is None


def test_own_addresses_are_not_loopback() -> None:
    assert not [address for address in mdns.own_addresses() if address.startswith("127.")]


@pytest.mark.parametrize("given", ["x", "-1", "61", "nan"])
def test_a_bad_time_for_mdns(environment: dict[str, str], given: str) -> None:
    with pytest.raises(ConfigError, match="ETHER_MDNS"):
        find(environment={**environment, "ETHER_MDNS": given})


def test_a_name_that_no_session_can_have(environment: dict[str, str]) -> None:
    with pytest.raises(InvalidName):
        find(session="a/b", environment=environment)


# ---- brokers joined before


def test_a_remembered_broker_is_found(broker: RunningBroker, environment: dict[str, str]) -> None:
    announce(broker.url_tcp, "bench", "somebody else's")
    joined = find(broker=broker.url_tcp, session="bench", environment=environment)
    assert joined is not None
    remember(joined, environment)
    again = find(environment=environment)
    assert again == replace(joined, how="remembered")
    other = find(session="somebody else's", environment=environment)
    assert other is not None


def test_unreachable_ones_are_tried_together(any_broker: RunningBroker, environment: dict[str, str]) -> None:
    announce(any_broker.url_tcp, "bench")
    remember_broker(any_broker.url_tcp, "bench", "pc1", environment)
    with socket.create_server(("127.0.0.1", 0), backlog=128) as silent:
        for number in range(8):
            remember_broker(f"mqtt://u{number}:p@127.0.0.1:{silent.getsockname()[1]}", "bench", "pc2", environment)
        began = time.monotonic()
        found = find(environment=environment)
        assert time.monotonic() - began < patience(3.9)  # one after the other takes 8
    assert found is not None
    assert found.url == any_broker.url_tcp


def test_the_lab_keys_password_is_not_written_down(environment: dict[str, str]) -> None:
    who = load_or_make_key(environment).credentials()
    with running_broker("auto", username=who.username, password=who.password) as broker:
        announce(broker.url_tcp, "bench")
        remember_broker(broker.url_tcp, "bench", "pc1", environment)
        path = Path(state_file(environment))
        assert who.password not in path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        announce(broker.url_tcp, "a new name")
        assert find(session="a new name", environment=environment) is not None
        with pytest.raises(SeveralSessions):  # whatever runs at a broker of this lab counts
            find(environment=environment)
        Path(environment["HOME"], ".config/ether/key").unlink()
        assert find(session="bench", environment=environment) is None


def test_the_newest_comes_first_and_the_oldest_is_forgotten(environment: dict[str, str]) -> None:
    for number in range(MOST + 5):
        remember_broker(f"mqtt://host{number}", "bench", "", environment)
    remember_broker("mqtt://host10", "bench", "", environment)
    known = [entry.url for entry in read_remembered(environment)]
    assert len(known) == MOST
    assert known[:2] == ["mqtt://host10", f"mqtt://host{MOST + 4}"]
    assert len(set(known)) == MOST


def test_a_session_of_this_machine_is_not_remembered(environment: dict[str, str]) -> None:
    remember(FoundSession("bench", "mqtt://127.0.0.1:9", "this machine", "pc1", 1, 1.0), environment)
    assert not os.path.exists(state_file(environment))


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"url": 5}]', "[" * 5000])
def test_a_damaged_memory_is_no_memory(environment: dict[str, str], text: str) -> None:
    path = Path(state_file(environment))
    path.parent.mkdir(parents=True)
    path.write_text(text)
    path.chmod(0o600)
    assert find(environment=environment) is None
    remember_broker("mqtt://host", "bench", "pc1", environment)
    assert [entry.url for entry in read_remembered(environment)] == ["mqtt://host"]


def test_a_state_folder_that_cannot_be_made_is_no_error(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    remember_broker("mqtt://host", "bench", "pc1", {**environment, "XDG_STATE_HOME": str(tmp_path / "file")})


# ---- order and choice


def test_the_order_of_the_places(any_broker: RunningBroker, environment: dict[str, str]) -> None:
    announce(any_broker.url_tcp, "bench")
    remember_broker(any_broker.url_tcp, "bench", "pc1", environment)
    assert find(environment=environment).how == "remembered"  # type: ignore[union-attr]
    record(environment, "bench")
    assert find(environment=environment).how == "this machine"  # type: ignore[union-attr]
    assert find(broker=any_broker.url_tcp, environment=environment).how == "argument"  # type: ignore[union-attr]
    steps = explore(broker=any_broker.url_tcp, environment=environment)
    assert [(step.name, len(step.found)) for step in steps] == [
        ("argument", 1),
        ("this machine", 1),
        ("network", 0),
        ("remembered", 1),
    ]
    assert any_broker.password not in "".join(map(str, steps)) + repr(steps)


def test_exploring_never_fails(environment: dict[str, str]) -> None:
    steps = explore(broker=nobody_listens(), environment=environment)
    assert "cannot reach" in steps[0].detail
    assert len(steps) == 4


def found(name: str, url: str = "mqtt://a", pid: int | None = 1, host: str = "h") -> FoundSession:
    return FoundSession(name, url, "network", host, pid, 1.0)


def test_one_session_at_two_addresses_is_one() -> None:
    both = [found("bench"), found("bench", "mqtt://b")]
    assert choose(both, None) == both[0]
    assert choose([], None) is None
    assert choose(both, "other") is None


def test_two_of_one_name_are_told_apart_by_their_brokers() -> None:
    with pytest.raises(SeveralSessions, match=r"broker= .*mqtt://a:1883, mqtt://b:1883"):
        choose([found("bench"), found("bench", "mqtt://b", host="other")], "bench")
    with pytest.raises(SeveralSessions):
        choose([found("bench", pid=None), found("bench", "mqtt://b", pid=None)], None)


def test_questions_in_parallel() -> None:
    import threading

    stuck = threading.Event()

    def fail() -> int:
        raise KeyError("x")

    try:
        one, two, three = in_parallel([lambda: 1, fail, lambda: stuck.wait(patience(10))], 1.0)
    finally:
        stuck.set()
    assert one == 1
    assert isinstance(two, KeyError)
    assert isinstance(three, TimeoutError)


def test_what_discovery_does_not_import() -> None:
    heavy = {"zeroconf", "asyncio", "ssl", "paho"}
    code = f"import sys, ether.session.discovery.search; print(*({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_plan() -> None:
    wish = discovery.SearchTarget.of(None, None, {"ETHER_MDNS": "0", "ETHER_SESSION": "x"}, None)
    assert (wish.session, wish.broker, wish.mdns_s) == ("x", None, 0.0)
    assert discovery.search_order(wish) == [discovery.look_here, discovery.look_around, discovery.look_back]
    named = discovery.SearchTarget.of("y", "::1", {"ETHER_SESSION": "x"}, 0.5)
    assert (named.session, named.broker, named.mdns_s) == ("y", "mqtt://[::1]", 0.5)
    assert discovery.search_order(named) == [discovery.look_at_named]


def test_the_key_of_nobody(environment: dict[str, str]) -> None:
    assert load_key(environment) is None
