"""A device that holds no certificate has a password of its own, at a port of its own, over TLS alone, and may do what
the configuration says of it. On both engines."""

from __future__ import annotations

import json
import os
import queue
import socket
import ssl
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from commands_here import ether_here
from engine_params import EMBEDDED
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from patience import patience
from running_brokers import soon

from broker.listeners.probe import connect_packet
from ether import Ether
from ether.cli.machines.probe import _password_checks
from ether.config import load_config
from ether.errors import ConfigError
from ether.security import certificates as certs
from ether.session.trust.lab import PASSWORDS, LabAuthority
from ether.session.trust.pairing import Pairing
from ether.system.clock import wall_time

BESIDE = "127.0.0.2"
ROOT = "ether/1/passwords"
pytestmark = pytest.mark.skipif(not Path("/proc").exists(), reason="only Linux has 127.0.0.2 without being told to")


class Lab(NamedTuple):
    own: Ether
    authority: LabAuthority
    port: int
    certificate_port: int
    password: str
    home: Path


def free_port() -> int:
    with socket.create_server((BESIDE, 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module", params=EMBEDDED)
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    home = tmp_path_factory.mktemp("pc")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("ETHER_MDNS", "0")
        for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "ETHER_BROKER", "ETHER_SESSION", "ETHER_SECURITY"):
            patch.delenv(name, raising=False)
        shown = json.loads(ether_here(home, "pair", "esp1", "--password", "--json").out)
        authority = LabAuthority.load(dict(os.environ))
        assert authority is not None
        own, port = Ether(), free_port()
        security = {"devices": {"esp1": {"publishes": ["esp/+", "mqtt:esp1/alive"], "hears": ["to/esp"]}}}
        own.tap(
            {
                "session": "passwords",
                "broker": {"engine": request.param, "listen": BESIDE, "password_port": port},
                "security": security,
            },
            timeout_s=patience(30),
        )
        broker = own._launch._broker  # type: ignore[union-attr]
        assert broker is not None
        assert broker.lan_port is not None
        try:
            yield Lab(own, authority, port, broker.lan_port, shown["password"], home)
        finally:
            own.shutdown()


class Device:
    """A microcontroller: MQTT 3.1.1 or 5, TLS 1.2, a user and a password, and no Ether."""

    def __init__(self, lab: Lab, user: str, password: str, *, protocol: int = 3) -> None:
        version = MQTTProtocolVersion.MQTTv5 if protocol == 5 else MQTTProtocolVersion.MQTTv311
        self.client = Client(CallbackAPIVersion.VERSION2, protocol=version, reconnect_on_failure=False)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=lab.authority.authority_pem.decode())
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        self.client.tls_set_context(context)
        self.client.username_pw_set(user, password)
        self.answered, self.ended = threading.Event(), threading.Event()
        self.reason: object = None
        self.heard: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.client.on_connect = self._on_connect
        self.client.on_disconnect = lambda *_: self.ended.set()
        self.client.on_message = self._on_message
        self.client.connect(BESIDE, lab.port)
        self.client.loop_start()
        assert soon(lambda: self.answered.is_set() or self.ended.is_set(), 10)

    def _on_connect(self, client: Client, userdata: object, flags: object, reason: object, given: object) -> None:
        self.reason = reason
        self.answered.set()

    def _on_message(self, client: Client, userdata: object, message: MQTTMessage) -> None:
        self.heard.put(f"{message.topic} {message.payload.decode()}")

    @property
    def is_in(self) -> bool:
        return self.answered.is_set() and str(self.reason) == "Success" and not self.ended.is_set()

    def say(self, topic: str, text: str) -> None:
        self.client.publish(topic, text, 1)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()
        if (left := self.client.socket()) is not None:
            left.close()
        self.client._reset_sockets(sockpair_only=True)  # type: ignore[no-untyped-call, unused-ignore]


@pytest.mark.attack(
    "D1", "a device with a password in others' names",
    "data, state, commands, calls, answers, batches, another session, other topics",
)  # fmt: skip
@pytest.mark.parametrize("protocol", [3, 5])
def test_it_says_and_hears_what_the_configuration_says(lab: Lab, protocol: int) -> None:
    device = Device(lab, "esp1", lab.password, protocol=protocol)
    assert device.is_in, device.reason
    stray: list[str] = []
    with lab.own.subscribe("#") as heard, lab.own.subscribe("mqtt:esp1/#") as outside:
        device.client.subscribe([("#", 1), (f"{ROOT}/data/#", 1), (f"{ROOT}/data/to/esp", 1)])
        for topic in (
            "data/other", "data/esp/x/y", "data/to/esp", "state/main", "session", "control/stop", "control/stop/main",
            "call/main/x", "reply/main/main", "record/recorder/esp1", "ack/0123456789abcdef/recorder", "log/main",
        ):  # fmt: skip
            device.say(f"{ROOT}/{topic}", '"forged"')
        device.say("ether/1/other/data/esp/x", '"forged"')
        device.say("esp1/dead", '"forged"')
        device.say(f"{ROOT}/data/esp/temperature", "21.5")
        device.say("esp1/alive", '"yes"')
        while (message := heard.get(timeout_s=patience(10))).topic != "esp/temperature":
            stray.append(message.topic)
        assert message.value == 21.5
        assert outside.get(timeout_s=patience(10)).value == "yes"
        lab.own.pub({"celsius": 3}, topic="secret")
        lab.own.pub({"on": True}, topic="to/esp")
        told = device.heard.get(timeout=patience(10))
    assert stray == []
    device.close()
    rest = []  # Mosquitto sends a message once for each subscription that it matches
    while not device.heard.empty():
        rest.append(device.heard.get())
    assert {each.partition(" ")[0] for each in (told, *rest)} == {f"{ROOT}/data/to/esp"}


def answer_to_connect(lab: Lab, port: int, *, tls: bool) -> bytes:
    """What a CONNECT of esp1 with its password is answered at a port, without a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=lab.authority.authority_pem.decode())
    with socket.create_connection((BESIDE, port), patience(5)) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=BESIDE) if tls else plain as sock:
                sock.sendall(connect_packet("esp1", lab.password, "esp"))
                return sock.recv(4)
        except OSError:
            return b""


@pytest.mark.attack(
    "D2", "in without its password",
    "a wrong, an empty one, that of another, a machine's name, at the port for certificates, without TLS",
)  # fmt: skip
def test_nobody_enters_otherwise(lab: Lab) -> None:
    other = lab.authority.admit_by_password("esp2", wall_time())
    owner = lab.own._launch._broker._credentials.username  # type: ignore[union-attr]
    own_name = next(iter(lab.authority.members()))
    tries = [
        Device(lab, "esp1", lab.password[:-1]), Device(lab, "esp1", ""), Device(lab, "esp1", other),
        Device(lab, own_name, lab.password), Device(lab, own_name, ""), Device(lab, owner, lab.password),
        Device(lab, "", ""),
    ]  # fmt: skip
    assert [each.is_in for each in tries] == [False] * len(tries)
    assert answer_to_connect(lab, lab.port, tls=True) == b"\x20\x02\x00\x00", "as a comparison"
    assert answer_to_connect(lab, lab.certificate_port, tls=True) == b""
    assert answer_to_connect(lab, lab.port, tls=False) == b""
    for each in tries:
        each.close()


@pytest.mark.attack(
    "D5", "all rights through the port for passwords", "this machine's own name, the session's own user"
)
def test_no_password_opens_everything_from_outside(lab: Lab) -> None:
    own_name = next(name for name in lab.authority.members() if not name.startswith("esp"))
    refused = ether_here(lab.home, "pair", own_name, "--password")
    assert refused.code != 0
    assert "is this machine itself" in refused.err
    for let_in in (
        lambda: Pairing(lab.authority, own_name, port=0),
        lambda: lab.authority.admit(certs.signing_request(certs.make_key()), own_name, "pi", wall_time()),
    ):
        with pytest.raises(ConfigError, match="is this machine itself"):
            let_in()
    assert lab.authority.members()[own_name].revoked is None
    launched = lab.own._launch
    assert launched is not None
    assert launched._broker is not None
    owner = launched._broker._credentials
    embedded = launched._broker.wait_ready(0).engine == "amqtt"
    device = Device(lab, owner.username, owner.password)
    assert device.is_in is not embedded, "mosquitto has one file of passwords for all of its listeners"
    device.close()
    (check,) = _password_checks(launched._broker.entry)
    assert check.status == ("ok" if embedded else "warn"), "and `ether doctor` says so"
    assert str(lab.port) in check.detail


@pytest.mark.attack("D3", "a password that was taken back", "`ether revoke`, and a new password for the same name")
def test_who_is_revoked_or_has_a_password_of_before_is_out(lab: Lab) -> None:
    first = lab.authority.admit_by_password("esp3", wall_time())
    entered: list[Device] = []

    def enter(password: str) -> bool:
        device = Device(lab, "esp3", password)
        if not device.is_in:
            device.close()
            return False
        entered.append(device)
        return True

    assert soon(lambda: enter(first), 10), "let in while the session runs"
    second = lab.authority.admit_by_password("esp3", wall_time())
    # Mosquitto reads its files a moment later than it puts out: who was in meanwhile is put out, too.
    assert soon(lambda: not enter(first), 5)
    assert all(each.ended.wait(patience(2)) for each in entered), "who has the password of before is out"
    assert soon(lambda: enter(second), 10)
    assert ether_here(lab.home, "revoke", "esp3").code == 0
    assert soon(lambda: not enter(second), 5)
    assert all(each.ended.wait(patience(2)) for each in entered)
    for each in entered:
        each.close()


@pytest.mark.attack("D4", "a device's password on disk", "every file of the machine, and what commands print")
def test_a_password_is_in_one_private_file(lab: Lab) -> None:
    told = "".join(ether_here(lab.home, *words).out for words in (("members",), ("members", "--json")))
    assert "esp1" in told
    assert lab.password not in told
    found = [path for path in lab.home.rglob("*") if path.is_file() and lab.password.encode() in path.read_bytes()]
    assert [path.name for path in found] == [PASSWORDS]
    assert stat.S_IMODE(found[0].stat().st_mode) == 0o600


def test_a_password_is_asked_for_over_tls_alone(lab: Lab) -> None:
    for broker in (
        {"password_port": 8885}, {"listen": "lan", "security": "off", "password_port": 8885},
        {"listen": "lan", "port": 8885, "password_port": 8885},
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="password_port"):
            load_config({"broker": broker})


def test_a_device_has_either_a_password_or_a_certificate(lab: Lab) -> None:
    authority, now = lab.authority, wall_time()
    authority.admit_by_password("esp4", now)
    assert "esp4" in authority.passwords()
    assert "esp4" not in authority.due(now + 4000 * 86_400)
    authority.admit(certs.signing_request(certs.make_key()), "esp4", "pi", now)
    assert "esp4" not in authority.passwords()
    serials = authority.members()["esp4"].serials
    authority.admit_by_password("esp4", now)
    assert set(serials) <= set(authority._read()[1]), "its certificate is taken back"
    with pytest.raises(ConfigError, match="as the name of a device"):
        authority.admit_by_password("ether-x", now)
