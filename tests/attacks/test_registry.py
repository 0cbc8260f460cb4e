"""A registry that comes over the network opens nothing that the machine's owner has not opened."""

from __future__ import annotations

from pathlib import Path

import pytest
from agent_parts import SESSION, Machine
from attack_parts import Attacker
from engine_params import EMBEDDED
from patience import patience
from running_brokers import running_broker

from ether import Ether
from ether.agents.allowed import NO_ROOTS, roots_of
from ether.agents.registry_rules import MarksNotAllowed, named_objects, permitted_registry
from ether.config.loading import load_config
from ether.config.models import EtherInstanceConfig
from ether.errors import EtherError

REPLY = f"ether/1/{SESSION}/reply/evil"
MARKS = {"instruments.Plain": {"methods": {"double": {"ether_get": {}}}}}
HIDDEN = {"instruments.Plain": {"methods": {"__getattribute__": {"ether_get": {}}}}}


@pytest.mark.attack("G19", "unmarked methods of an agent's class", "a registry that the asker sends")
@pytest.mark.parametrize("engine", EMBEDDED)
def test_a_registry_from_the_network_marks_nothing(engine: str, tmp_path: Path) -> None:
    own = Ether()
    with running_broker(engine) as broker:
        pi3 = Machine(tmp_path, "pi3", broker.url_tcp)
        own.tap({"session": SESSION}, broker=broker.url_tcp, timeout_s=patience(20))
        try:
            with pi3.agent(session=SESSION), Attacker(broker) as evil:
                for number, registry in enumerate((MARKS, HIDDEN)):
                    asked = {
                        "instances": ["pi3"], "do": "run", "name": "cam", "registry": registry,
                        "instance": {"class_path": "instruments.Plain"},
                    }  # fmt: skip
                    evil.publish(f"ether/1/{SESSION}/control/keep", asked, reply_to=REPLY, correlation=f"{number:032x}")
                    assert evil.wait_for(lambda it: it.topic.startswith(REPLY) and b"may not be marked" in it.payload)
                with pytest.raises(EtherError):
                    own.get("cam", "double", {"n": 2}, timeout_s=patience(1))
        finally:
            own.shutdown()


def permitted(registry: dict[str, object], *roots: str, **more: object) -> frozenset[str]:
    instance = EtherInstanceConfig(class_path="lab.cam.Camera", **more)
    allows = roots_of(roots)._covers_name if roots else NO_ROOTS.covers
    return permitted_registry("lab.cam.Camera", load_config({"registry": registry}).registry, instance, allows)


def test_what_a_registry_from_elsewhere_may_say() -> None:
    marked = {"lab.cam.Camera": {"methods": {"snap": {"ether_get": {}}}}}
    hidden = {"lab.cam.Camera": {"methods": {"_reset": {"ether_get": {}}}}}
    assert permitted({}) == frozenset()
    assert permitted(marked, "lab") == {"lab.cam.Camera"}
    assert permitted({"lab.pump.Pump": {"methods": {"run": {"ether_get": {}}}}}) == frozenset()
    for registry, roots, more in (
        (marked, (), {}),
        (marked, ("other",), {}),
        (hidden, ("lab",), {}),
        ({"lab.cam.Camera": {"properties": {"gain": {"get": {}}}}}, (), {}),
        ({"lab.cam.Camera": {"properties": {"_gain": {"get": {}}}}}, ("lab",), {}),
        ({}, (), {"on_connect": [{"method": "shell", "kwargs": {"command": "id"}}]}),
        ({}, ("lab",), {"on_stop": [{"method": "_wipe"}]}),
        ({}, (), {"safe_state": {"after": "2s", "calls": [{"method": "shell"}]}}),
        ({"lab.cam.Camera": {"properties": {"lens._bus.power": {}}}}, ("lab",), {}),
        ({"lab.cam.Camera": {"callbacks": {"on_frame": "t"}}}, (), {}),
        ({}, (), {"build": "open_any"}),
        ({}, ("lab",), {"build": "_open"}),
        ({}, ("lab",), {"kwargs": {"lens": {"build": "lab.cam.Lens", "call": "_raw"}}}),
        ({}, ("lab",), {"env": {"LD_PRELOAD": "/tmp/x.so"}}),
        ({}, ("lab",), {"on_connect": [{"method": "use", "args": [{"build": "lab.cam.Lens", "call": "_raw"}]}]}),
        ({"lab.cam.Camera": {"properties": {"lens": {"get": {"call": "_read"}}}}}, ("lab",), {}),
        ({"lab.cam.Camera": {"properties": {"lens": {"set": {"call": "_write"}}}}}, ("lab",), {}),
        ({"lab.cam.Camera": {"properties": {"lens": {"result": "value._raw"}}}}, ("lab",), {}),
        ({"lab.cam.Camera": {"methods": {"snap": {"ether_get": {}, "result": {"field": "_raw"}}}}}, ("lab",), {}),
    ):
        with pytest.raises(MarksNotAllowed):
            permitted(registry, *roots, **more)


def test_objects_among_arguments_are_found_wherever_they_stand() -> None:
    """Each of them is code that would run on the machine, so an agent asks its roots for each."""
    instance = EtherInstanceConfig(
        class_path="lab.cam.Camera",
        args=[[{"build": "a.A", "args": [{"use": "b.B"}]}]],
        kwargs={"deep": {"er": {"of": {"build": "c.C"}, "call": "d"}}, "plain": {"plain": {"build": "no.No"}}},
        build={"call": "open", "of": {"build": "e.E"}, "kwargs": {"x": {"use": "f.F"}}},
        on_connect=[{"method": "m", "args": [{"build": "g.G"}]}],
    )
    entry = {
        "callbacks": {"on": {"topic": "t", "args": [{"build": "h.H"}]}},
        "on_stop": {"method": "m", "args": [{"build": "i.I"}]},
    }
    registry = load_config({"registry": {"lab.cam.Camera": entry}}).registry
    assert named_objects(instance, registry) == {f"{name}.{name.upper()}" for name in "abcefghi"}


@pytest.mark.attack("G20", "a program on an agent's machine", "an object among the arguments of an allowed class")
@pytest.mark.parametrize("engine", EMBEDDED)
def test_an_object_from_the_network_is_not_built(engine: str, tmp_path: Path) -> None:
    own = Ether()
    mark = tmp_path / "run"
    with running_broker(engine) as broker:
        pi3 = Machine(tmp_path, "pi3", broker.url_tcp)
        own.tap({"session": SESSION}, broker=broker.url_tcp, timeout_s=patience(20))
        try:
            with pi3.agent(session=SESSION), Attacker(broker) as evil:
                asked = {
                    "instances": ["pi3"], "do": "run", "name": "cam", "registry": {},
                    "instance": {
                        "class_path": "instruments.Plain",
                        "kwargs": {"x": {"build": "subprocess.Popen", "args": [["touch", str(mark)]]}},
                    },
                }  # fmt: skip
                evil.publish(f"ether/1/{SESSION}/control/keep", asked, reply_to=REPLY, correlation=f"{7:032x}")
                assert evil.wait_for(lambda it: it.topic.startswith(REPLY) and b"may not run here" in it.payload)
                assert not mark.exists()
        finally:
            own.shutdown()
