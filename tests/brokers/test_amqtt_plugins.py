"""amqtt's plugins over our own core: who enters, who may do what, what takes its time, what fails, what is refused."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from amqtt.contexts import Action
from amqtt.plugins.base import BaseAuthPlugin, BasePlugin, BaseTopicPlugin
from amqtt.session import Session
from patience import patience
from raw_client import packet, text
from running_brokers import running_broker
from sans_io import Bench, Peer, connect

from broker.core.rule import Rule
from broker.engines.amqtt_plugins import PluginLogins, Plugins
from broker.failures import SettingsRefused

HERE = "test_amqtt_plugins"
ACL = "amqtt.plugins.topic_checking.TopicAccessControlListPlugin"
FILE = "amqtt.plugins.authentication.FileAuthPlugin"


class Door(BaseAuthPlugin):
    """Lets in who has the password `open`, after a moment; `None` for a guest, an error for the unlucky."""

    @dataclass
    class Config:
        after_s: float = 0.01

    async def authenticate(self, *, session: Session) -> bool | None:
        await asyncio.sleep(self.config.after_s)
        if session.username == "unlucky":
            raise ZeroDivisionError("planted")
        if session.username == "guest":
            return None
        session.attributes["floor"] = session.username
        return session.password == "open"


class Floors(BaseTopicPlugin):
    """Everybody may go to the floor that is called like them; what waits or fails is planted."""

    @dataclass
    class Config:
        seen: list[str] = field(default_factory=list)

    async def topic_filtering(
        self, *, session: Session | None = None, topic: str | None = None, action: Action | None = None
    ) -> bool | None:
        assert session is not None
        assert topic is not None
        self.config.seen.append(f"{action} {topic}")
        if topic == "wait":
            await asyncio.sleep(0)
        if topic == "fail":
            raise ZeroDivisionError("planted")
        return topic.startswith(f"{session.attributes.get('floor', session.username)}/")


class Idle(BasePlugin[Any]):
    """Neither one nor the other."""


@dataclass
class House:
    """Plugins, and a bench whose errands are run by `run`."""

    plugins: Plugins
    bench: Bench
    errands: queue.SimpleQueue[Callable[[], None]]

    def run(self) -> None:
        """Run the next errand that a plugin's thread has given."""
        self.errands.get(timeout=patience(5))()


@pytest.fixture
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    chosen = getattr(request, "param", {f"{HERE}.Door": {}, f"{HERE}.Floors": {}})
    bench = Bench()
    errands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    plugins = Plugins(chosen, bench.warnings.append, errands.put)
    rules = {"listed": Rule(("listed/a",), ("listed/a",), ("listed/a",))}
    bench.exchange.logins = PluginLogins("owner", {"owner": "p", "listed": "p"}, rules, plugins)
    yield House(plugins, bench, errands)
    plugins.close()


def enter(house: House, user: str, password: str = "open", level: int = 5) -> Peer:
    peer = house.bench.plug(level)
    peer.connect(user, login=(user, password))
    assert peer.packets() == [], "its plugin is being asked"
    house.run()
    return peer


@pytest.mark.parametrize("level", [4, 5])
def test_a_login_waits_for_its_plugin_and_nobody_else_does(house: House, level: int) -> None:
    slow, owner = house.bench.plug(level), house.bench.client(login=("owner", "p"))
    owner.subscribe("ann/t")
    more = b"\x00" * (level == 5)
    slow.send(connect(level, "ann", login=("ann", "open")) + packet(0x30, text("ann/t") + more + b"behind"))
    slow.send(packet(0x30, text("ann/t") + more + b"the CONNECT")[:9])
    owner.publish("ann/t", b"meanwhile")
    assert (owner.payloads(), slow.packets()) == ([b"meanwhile"], [])
    house.run()
    slow.send(packet(0x30, text("ann/t") + more + b"the CONNECT")[9:])
    assert slow.packet().body[1] == 0
    assert owner.payloads() == [b"behind", b"the CONNECT"]


def test_who_is_not_let_in(house: House) -> None:
    for user, password in (("ann", "wrong"), ("guest", "open"), ("unlucky", "open")):
        refused = enter(house, user, password)
        assert (refused.over, refused.reason()) == (True, 0x86)
    assert any("ZeroDivisionError" in text_ for text_ in house.bench.warnings)
    gone = house.bench.plug()
    gone.connect("ann", login=("ann", "open"))
    gone.drop()
    house.run()
    assert gone.packets() == []
    flood = house.bench.plug()
    flood.connect("ann", login=("ann", "open"))
    for _ in range(10):
        flood.send(bytes(60_000))
    assert flood.over, "what is kept of somebody who has not been let in is bounded"


def test_what_a_plugin_allows(house: House) -> None:
    ann, bob = enter(house, "ann"), enter(house, "bob")
    for each in (ann, bob):
        assert each.packet().first == 0x20
    assert ann.subscribe("ann/#", "bob/#", "#", "$share/g/ann/x") == [1, 0x87, 0x87, 1]
    ann.publish("bob/t", b"x", 1)
    assert ann.packet().body[2:] == b"\x87"
    bob.subscribe("bob/#")
    house.bench.client(login=("owner", "p")).publish("bob/t", b"from the owner, who may do everything")
    assert len(bob.payloads()) == 1
    seen = house.plugins.topics[0].config.seen
    assert {"subscribe ann/#", "subscribe ann/x", "publish bob/t", "receive bob/t"} <= set(seen)


def test_the_table_counts_too(house: House) -> None:
    listed = house.bench.client(login=("listed", "p"))
    assert listed.subscribe("listed/a", "listed/b", "other") == [1, 0x87, 0x87]


def test_a_plugin_that_waits_or_fails_at_a_topic_has_refused_and_is_named(house: House) -> None:
    ann = enter(house, "ann")
    ann.packets()
    for topic, said in (("wait", "waits"), ("fail", "ZeroDivisionError")):
        for _ in range(2):
            ann.publish(topic, b"x", 1)
            assert ann.packet().body[2:] == b"\x87"
        assert len([text_ for text_ in house.bench.warnings if "Floors" in text_ and said in text_]) == 1


@pytest.mark.parametrize("house", [{f"{HERE}.Door": {}}], indirect=True)
def test_who_enters_by_a_plugin_and_is_in_no_table_may_do_nothing_without_a_topic_plugin(house: House) -> None:
    ann = enter(house, "ann")
    ann.packets()
    assert ann.subscribe("ann/#") == [0x87]


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"no.such.Plugin": {}}, "no"),
        ({f"{HERE}.Idle": {}}, "Idle is no auth and no topic plugin"),
        ({f"{HERE}.Door": {"before_s": 1}}, "before_s"),
        ({FILE: {"password_file": "/no/such/file"}}, "/no/such/file"),
    ],
)
def test_plugins_that_cannot_be_run_are_refused(chosen: dict[str, dict[str, Any]], said: str) -> None:
    with pytest.raises(SettingsRefused, match=said):
        Plugins(chosen, print, print)


def test_amqtts_own_plugins_in_the_broker_process(tmp_path: Path) -> None:
    """A password file with a hash that takes its time, and its access control list."""
    from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv5
    from pwdlib import PasswordHash
    from pwdlib.hashers.argon2 import Argon2Hasher

    secret = "secret"
    (tmp_path / "users").write_text(f"ann:{PasswordHash((Argon2Hasher(),)).hash(secret)}\n")
    acl = {"acl": {"ann": ["ann/#"]}, "publish_acl": {"ann": ["ann/#"]}}
    plugins = {FILE: {"password_file": str(tmp_path / "users")}, ACL: acl}
    with running_broker("amqtt", plugins=plugins) as broker:
        entered: queue.SimpleQueue[str] = queue.SimpleQueue()
        granted: queue.SimpleQueue[list[int]] = queue.SimpleQueue()
        for password, answer in ((secret, "Success"), ("wrong", "Bad user name or password")):
            client = Client(CallbackAPIVersion.VERSION2, "ann", protocol=MQTTv5)
            client.username_pw_set("ann", password)
            client.on_connect = lambda *came: entered.put(str(came[3]))
            client.on_subscribe = lambda *came: granted.put([code.value for code in came[3]])
            client.connect(broker.host, broker.port)
            client.loop_start()
            assert entered.get(timeout=patience(10)) == answer
            if answer == "Success":
                client.subscribe([("ann/t", 1), ("bob/t", 1)])  # type: ignore[list-item]  # paho takes pairs
                assert granted.get(timeout=patience(5)) == [1, 0x87]
            client.disconnect()
            client.loop_stop()
