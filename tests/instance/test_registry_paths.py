"""Drivers of 21 shapes by YAML alone: paths, factories, objects as arguments, polls with arguments, outcomes, streams,
callbacks, context managers; and what is said where the YAML is wrong."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import foreign_shapes
import pytest
from patience import patience

from ether import Ether
from ether import ether as program
from ether.config import load_config
from ether.errors import ConfigError, MarkError, RemoteError, StartFailed, ValidationFailed
from ether.runs.plan.device_rights import source_topics
from ether.session.client import Subscription
from ether.spec.outcomes import OutcomeUnfit
from ether.testing import Lab

SHAPES = "foreign_shapes"


@contextmanager
def lab_of(folder: Path, cls: str, entry: str, instance: str = "") -> Iterator[Lab]:
    """A lab with one instance `it` of a class in `foreign_shapes`, described by YAML."""
    file = folder / "lab.yaml"
    told = textwrap.indent(textwrap.dedent(instance).strip(), "    ")
    said = textwrap.indent(textwrap.dedent(entry).strip(), "    ")
    file.write_text(
        f"instances:\n  it:\n    class_path: {SHAPES}.{cls}\n{told}\n"
        + (f"registry:\n  {SHAPES}.{cls}:\n{said}\n" if said else "")
    )
    with Lab(file) as lab:
        yield lab


def ask(method: str, params: object = None) -> Any:
    return program.get("it", method, params)


def test_channels_of_sub_objects(tmp_path: Path) -> None:
    entry = """
        properties:
          input_A.kelvin: {get: {topic: cryo/A, every: 1s}, unit: K}
          "ch[0].setpoint": {as: ch0_voltage, set: true, unit: V, max: 5}
          'by_name["ch 1"].heater': {set: true, min: 0, max: 1}
        methods:
          "ch[1].off": {ether_get: {}}
          "ch[1].ramp": {as: ramp, ether_get: {}, arguments: {target: {limits: [0, 10]}}}
    """
    with lab_of(tmp_path, "Thermometer", entry) as lab:
        lab.advance(2.5)
        assert lab.values("cryo/A") == [4.2] * 3
        ask("set_ch0_voltage", 4.5)
        assert ask("ch0_voltage") == 4.5
        with pytest.raises(ValidationFailed, match=r"value: a number of at most 5 V \(given: 5\.1\)"):
            ask("set_ch0_voltage", 5.1)
        assert lab["it"].ch[0].told == [4.5]
        ask("set_by_name_ch_1_heater", 0.5)
        assert lab["it"].by_name["ch 1"].heater == 0.5
        assert ask("ch1_off") == "soft"
        assert ask("ch1_off", {"how": "hard"}) == "hard"
        assert ask("ramp", {"target": 3, "rate": "2"}) == 2.0  # validated by the channel's own hints
        for wrong in ({"target": 11}, [11], {"args": [11]}, 11):
            with pytest.raises(ValidationFailed):
                ask("ramp", wrong)
        assert lab["it"].ch[1].told == [-1.0, -1.0, 3.0]
        lab["it"].ch[0] = foreign_shapes.Thermometer.Channel(9.0)  # the driver makes its channels anew
        ask("set_ch0_voltage", 1)
        assert lab["it"].ch[0].told == [1]


def test_parameters_made_at_run_time(tmp_path: Path) -> None:
    entry = """
        properties:
          v0: {get: {call: get, topic: dac/v0, every: 1s}, set: {call: set}, limits: [-1, 1], unit: V}
          v1: {get: {call: __call__}}
        methods:
          v1.set: {ether_get: {}, arguments: {value: {max: 2}}}
    """
    with lab_of(tmp_path, "Dac", entry, "kwargs: {channels: 2}") as lab:
        ask("set_v0", 0.5)
        lab.advance(0.5)
        assert lab.values("dac/v0") == [0.5]
        for wrong in (1.5, "much", float("nan"), True):
            with pytest.raises(ValidationFailed):
                ask("set_v0", wrong)
        ask("v1_set", {"value": 1.5})
        with pytest.raises(ValidationFailed):
            ask("v1_set", {"value": 2.5})
        with pytest.raises(ValidationFailed):
            ask("v1_set", 2.5)
        assert (ask("v0"), ask("v1")) == (0.5, 1.5)


def test_a_move_that_returns_an_object_of_the_drivers_own(tmp_path: Path) -> None:
    entry = """
        methods:
          set: {as: move, ether_get: {}, result: value.wait()}
        properties:
          position: {}
    """
    with lab_of(tmp_path, "Axis", entry) as lab:
        assert ask("move", {"value": 3}) is None
        assert ask("position") == 3
        assert lab["it"].last.waited


def test_arguments_that_are_objects(tmp_path: Path) -> None:
    instance = f"""
        kwargs:
          backend: {{build: {SHAPES}.Backend, kwargs: {{channels: 4}}}}
          deck: {{build: {SHAPES}.Deck, call: standard, args: [6]}}
    """
    entry = "properties: {backend.channels: {}, deck.slots: {as: slots}}"
    with lab_of(tmp_path, "Handler", entry, instance):
        assert (ask("backend_channels"), ask("slots")) == (4, 6)


def test_a_function_that_the_driver_calls_is_set(tmp_path: Path) -> None:
    entry = "{callbacks: {when_pressed: button/pressed}, methods: {press: {ether_get: {}}}}"
    with lab_of(tmp_path, "Button", entry, "args: [4]") as lab:
        ask("press")
        lab["it"].press()
        lab.settle()
        assert lab.values("button/pressed") == [None, None]
        button = lab["it"]
        lab.shutdown()
        button.press()  # the driver's thread calls it after the end: nothing happens


def test_a_function_that_the_driver_calls_is_handed_over(tmp_path: Path) -> None:
    entry = """
        callbacks:
          add_listener: {topic: can/frames, args: [$callback], kwargs: {first: true}, result: value.arbitration_id}
    """
    with lab_of(tmp_path, "VirtualBus", entry, "args: [vcan0]") as lab:
        [listener] = lab["it"].listeners
        listener(foreign_shapes.Message(7))
        lab.settle()
        assert lab.values("can/frames") == [7]
        listener(7)  # has no arbitration_id: reported, and no exception in the driver
        assert isinstance(lab.failures.pop(), OutcomeUnfit)


def test_a_class_that_makes_an_object_of_another_one(tmp_path: Path) -> None:
    entry = "methods: {recv: {ether_get: {}, result: {field: arbitration_id}}}"
    with lab_of(tmp_path, "Bus", entry, "args: [vcan0]"):
        assert ask("recv", {"timeout": 0}) == 1


@pytest.mark.parametrize(
    ("cls", "instance", "link"),
    [
        ("Supply", "{build: open_tcpip, args: [psu1]}", ("psu1", 5025)),
        ("Supply", "{build: {call: open_tcpip, args: [psu2], kwargs: {port: 1}}}", ("psu2", 1)),
        ("open_supply", "args: [psu3]", ("psu3", 0)),
        (
            "Supply",
            f"build: {{of: {{build: {SHAPES}.Manager, args: ['@sim']}}, call: open_resource, args: [GPIB0]}}",
            ("@sim", "GPIB0"),
        ),
    ],
)
def test_factories(tmp_path: Path, cls: str, instance: str, link: tuple[str, object]) -> None:
    instance = instance.strip("{}") if instance.startswith("{build: open") else instance
    instance = instance.replace(", args", "\nargs") if instance.startswith("build: open") else instance
    instance = instance[1:-1] if instance.startswith("{") else instance
    with lab_of(tmp_path, cls, "methods: {voltage: {ether_get: {}}}", instance) as lab:
        assert ask("voltage") == 5.0
        assert lab["it"].link == link


def test_nodes_that_are_asked_for_when_connected(tmp_path: Path) -> None:
    entry = """
        on_connect:
          - connect
          - {method: get_node, args: ["ns=2;s=oven"], as: oven}
        properties:
          oven: {get: {call: read_value, topic: oven/value, every: 1s}, set: {call: write_value}, max: 80}
    """
    with lab_of(tmp_path, "Server", entry, "args: ['opc.tcp://plc']") as lab:
        ask("set_oven", 60)
        with pytest.raises(ValidationFailed):
            ask("set_oven", 81)
        lab.advance(0.5)
        assert lab.values("oven/value") == [60]
        assert ask("oven") == 60


def test_polls_of_one_method_with_different_arguments(tmp_path: Path) -> None:
    entry = """
        methods:
          read_holding_registers:
            result: value.registers[0]
            ether_get: {}
            ether_pub:
              - {every: 1s, args: [4], as: temperature, topic: plc/temperature}
              - {every: 2s, kwargs: {address: 7, count: 2}, as: pressure}
          read_register: {ether_pub: {every: 1s, args: [215, 1], as: level}}
          write_register: {ether_get: {}, result: ignore, arguments: {value: {max: 100}}}
    """
    with lab_of(tmp_path, "Modbus", entry) as lab:
        lab.advance(2.5)
        assert lab.values("plc/temperature") == [40] * 3
        assert lab.values("Modbus.pressure") == [70] * 2
        assert lab.values("Modbus.level") == [21.5] * 3
        assert ask("read_holding_registers", {"address": 9}) == 90
        assert ask("write_register", {"address": 1, "value": 100}) is None
        with pytest.raises(ValidationFailed):
            ask("write_register", {"address": 1, "value": 101})
        assert lab["it"].told == [(1, 100)]


@pytest.mark.parametrize("cls", ["Camera", "AsyncCamera"])
def test_context_managers_and_tuples_with_names(tmp_path: Path, cls: str) -> None:
    entry = "{enter: true, methods: {read: {ether_get: {}, result: [ok, frame]}}}"
    if cls == "AsyncCamera":  # what it returns at entering is the device
        entry = "{enter: true, methods: {upper: {ether_get: {}}}}"
    with lab_of(tmp_path, cls, entry) as lab:
        if cls == "AsyncCamera":
            assert ask("upper") == "OPENED"
            return
        assert ask("read") == {"ok": True, "frame": [1, 2]}
        camera = lab["it"]
        assert camera.steps == ["enter"]
        lab.shutdown()
        assert camera.steps == ["enter", "exit"]


def test_quantities_become_numbers_in_the_declared_unit(tmp_path: Path) -> None:
    entry = "properties: {temperature: {unit: K, result: {unit: K}}}"
    with lab_of(tmp_path, "Oven", entry):
        assert ask("temperature") == pytest.approx(293.15)
    with lab_of(tmp_path, "Oven", "properties: {temperature: {result: value.magnitude}}"):
        assert ask("temperature") == 20.0
    with lab_of(tmp_path, "Oven", "properties: {temperature: {result: {unit: V}}}"):  # noqa: SIM117
        with pytest.raises(RemoteError, match=r"Oven\.temperature returned .*, which is no V: Cannot convert"):
            ask("temperature")


def test_enums_by_name(tmp_path: Path) -> None:
    instance = f"args: [{{use: {SHAPES}.Coupling.AC}}]"
    with lab_of(tmp_path, "Scope", "methods: {couple: {ether_get: {}}}", instance) as lab:
        assert lab["it"].coupling is foreign_shapes.Coupling.AC
        assert ask("couple", "DC") == "DC"
        assert ask("couple", "ac") == "AC"
        with pytest.raises(ValidationFailed, match="AC"):
            ask("couple", "GND")


def number_of(heard: Subscription) -> int:
    value = heard.get(patience(10.0)).value
    assert isinstance(value, int)
    return value


def test_streams_run_on_a_thread_of_their_own(tmp_path: Path) -> None:
    """Blocking reads, generators and asynchronous ones, in processes of their own."""
    file = tmp_path / "lab.yaml"
    file.write_text(
        textwrap.dedent(f"""
        instances:
          bus: {{class_path: {SHAPES}.Bus, args: [vcan0], env: {{CAN_SPEED: 500}}}}
          scope: {{class_path: {SHAPES}.Scope}}
        registry:
          {SHAPES}.Bus:
            methods:
              recv: {{result: value.arbitration_id, ether_pub: {{stream: true, topic: can}}}}
            properties: {{channel: {{}}, speed: {{}}}}
          {SHAPES}.Scope:
            methods:
              frames: {{ether_pub: {{stream: true, topic: frames}}}}
              packets: {{ether_pub: {{stream: true, topic: packets}}}}
              couple: {{ether_get: {{}}}}
    """)
    )
    own = Ether()
    own.tap(file)
    try:
        for topic in ("can", "frames", "packets"):
            heard = own.subscribe(topic)
            first = number_of(heard)
            while number_of(heard) <= first:
                pass
        assert own.get("bus", "channel") == "vcan0"  # the blocking read holds up no call
        assert own.get("bus", "speed") == "500"  # set before the class was imported
        assert own.get("scope", "couple", "AC") == "AC"
        states = {one["name"]: one["state"] for one in own.instances()}
        assert (states["bus"], states["scope"]) == ("ready", "ready")
    finally:
        own.shutdown()


@pytest.mark.parametrize(
    ("cls", "entry", "said"),
    [
        (
            "Thermometer",
            'properties: {"ch[2].setpoint": {}}',
            r"properties 'ch\[2\]\.setpoint': ch has no item 2, it has 2",
        ),
        (
            "Thermometer",
            "properties: {input_A.kelvni: {}}",
            "input_A, a Channel, has no 'kelvni'. Did you mean 'kelvin'",
        ),
        (
            "Thermometer",
            "methods: {input_C.off: {ether_get: {}}}",
            "a Thermometer, has no 'input_C'. Did you mean 'input_",
        ),
        ("Thermometer", "properties: {\"by_name['ch 2'].heater\": {}}", "no item 'ch 2'. Did you mean 'ch 1'"),
        (
            "Thermometer",
            'safe_state: {after: 2s, calls: "ch[4].off"}',
            "safe_state: the path 'ch\\[4\\].off' leads nowhere",
        ),
        ("Thermometer", "callbacks: {input_A.on: t}", "callbacks 'input_A.on': input_A, a Channel, has no 'on'"),
        (
            "Thermometer",
            'methods: {"ch[0].ramp": {ether_get: {}, arguments: {volts: {max: 1}}}}',
            "limits 'volts' of Thermometer.ch0_ramp, which has no such argument",
        ),
        ("Oven", "enter: true", "a Oven is no context manager"),
        (
            "Modbus",
            "methods: {read_register: {ether_get: {}, ether_pub: {every: 1s, args: [1], as: read_register}}}",
            "the name 'read_register' twice",
        ),
    ],
)
def test_what_is_wrong_is_said_at_the_start(tmp_path: Path, cls: str, entry: str, said: str) -> None:
    with pytest.raises((MarkError, ConfigError), match=said), lab_of(tmp_path, cls, entry):
        pass


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("properties: {t: {max: hot}}", "properties.t.max: found 'hot'; expected a number"),
        ("properties: {t: {max: true}}", "expected a number"),
        ("properties: {t: {min: .nan}}", "expected a number"),
        ("properties: {t: {min: 5, max: 4}}", "min 5 is higher than max 4"),
        ("properties: {t: {limits: [0, 1], max: 4}}", "both limits and min or max"),
        ('properties: {"ch[x]": {}}', r"not a name or a path, from '\[x\]' on"),
        ("properties: {__init__.__globals__: {}}", "goes through __init__"),
        ("methods: {'frames().gi_frame.f_builtins[\"eval\"]': {ether_get: {}}}", "goes through gi_frame"),
        ("methods: {snap: {ether_get: {}, result: {field: __dict__}}}", "goes through __dict__"),
        ("methods: {m: {result: .x, ether_get: {}}}", "a path that begins with value"),
        ("methods: {m: {ether_pub: {every: 1s, args: [1]}}}", "needs a name: as:"),
        ("methods: {m: {ether_pub: {every: 1s, stream: true}}}", "both every and stream"),
        ("methods: {m: {ether_pub: {stream: true, args: [{build: a.B}], as: x}}}", "an object \\(a.B\\) among"),
        ("properties: {t: {ass: x}}", "Did you mean 'as'"),
        ("callbacks: {t: {}}", "topic: this is missing"),
    ],
)
def test_what_is_wrong_in_the_file_names_the_line(tmp_path: Path, part: str, said: str) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(f"registry:\n  a.B:\n    {part}\n")
    with pytest.raises(ConfigError, match=said) as caught:
        load_config(file)
    assert caught.value.line == 3


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("kwargs: {backend: {build: Backend}}", "kwargs.backend.build: found 'Backend'; an object among the arguments"),
        ("args: [{of: 1, call: x}]", "args.0.of: found 1"),
        ("args: [{of: {build: a.B}}]", "lacks call"),
        ("build: {args: [1]}", "lacks call, the factory"),
        ("build: {call: 'ch[0]'}", "expected the name of a method"),
        ("env: {A: [1]}", "env.A: found a list"),
    ],
)
def test_what_is_wrong_in_an_instance_names_the_line(tmp_path: Path, part: str, said: str) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(f"instances:\n  it:\n    class_path: a.B\n    {part}\n")
    with pytest.raises(ConfigError, match=said) as caught:
        load_config(file)
    assert caught.value.line == 4


def test_a_plain_mapping_that_looks_like_an_object() -> None:
    from ether.instance.drivers.building import Builder

    given = {"options": {"plain": {"build": "a.B"}}, "other": {"build": "release", "number": 4}}
    assert Builder().plain(given, "kwargs") == {"options": {"build": "a.B"}, "other": given["other"]}


def test_a_path_that_vanishes_is_one_sentence_and_the_rest_goes_on(tmp_path: Path) -> None:
    entry = """
        properties: {"ch[0].setpoint": {set: true, max: 5}}
        methods: {drop: {ether_get: {}}}
    """
    with lab_of(tmp_path, "Vanishing", entry):
        ask("set_ch0_setpoint", 1)
        ask("drop")
        with pytest.raises(RemoteError, match=r"'ch\[0\]\.setpoint' leads nowhere: ch has no item 0, it has 0"):
            ask("set_ch0_setpoint", 2)
        assert ask("drop") is None


@pytest.mark.parametrize(
    "entry",
    [
        "methods: {set: {ether_get: {}, arguments: {value: {max: 2}}, ether_pub: {every: 1s, args: [3], as: far}}}",
        """
        methods: {'ch[1].ramp': {ether_get: {}, arguments: {target: {max: 2}}}}
        safe_state: {after: 2s, calls: [{method: 'ch[ 1 ].ramp', args: [3]}]}
        """,
    ],
)
def test_arguments_in_the_file_are_within_limits_however_the_path_is_written(tmp_path: Path, entry: str) -> None:
    cls = "Axis" if "far" in entry else "Thermometer"
    with pytest.raises(MarkError, match=r"a number of at most 2 \(given: 3\)"), lab_of(tmp_path, cls, entry):
        pass


def test_a_path_through_a_module_is_refused(tmp_path: Path) -> None:
    lab = {"instances": {"it": {"class_path": "argparse.ArgumentParser"}}}
    entry: dict[str, Any] = {"properties": {"formatter_class.__module__": {}}}
    with pytest.raises(ConfigError, match="goes through __module__"):
        load_config(lab | {"registry": {"argparse.ArgumentParser": entry}})
    with pytest.raises(MarkError, match="asyncio is a module, which is no part of the device"):
        Lab({"instances": {"it": {"class_path": f"{SHAPES}.HasModule"}},
             "registry": {f"{SHAPES}.HasModule": {"methods": {"asyncio.sleep": {"ether_get": {}}}}}})  # fmt: skip


def test_factories_that_raise_and_paths_that_lead_nowhere_name_their_line(tmp_path: Path) -> None:
    """In processes of their own: others are undisturbed, and the sentence names file and line."""
    file = tmp_path / "lab.yaml"
    file.write_text(
        textwrap.dedent(f"""
        instances:
          raises:
            class_path: {SHAPES}.Broken
            build: {{call: open, args: [COM7]}}
          misspelt:
            class_path: {SHAPES}.Supply
            build: open_tcp
          unfit:
            class_path: {SHAPES}.Handler
            kwargs:
              backend: {{build: {SHAPES}.Backnd}}
              deck: {{build: {SHAPES}.Deck}}
          nowhere:
            class_path: {SHAPES}.Thermometer
        registry:
          {SHAPES}.Thermometer:
            properties:
              input_A.kelvin: {{}}
              "ch[7].kelvin": {{}}
    """)
    )
    own = Ether()
    with pytest.raises(StartFailed) as caught:
        own.tap(file)
    own.shutdown()
    text = str(caught.value)
    assert "OSError: no answer on COM7" in text
    assert "lab.yaml:8: instances.misspelt.build" in text
    assert "Supply has no method 'open_tcp'. Did you mean 'open_tcpip'?" in text
    assert "lab.yaml:12: instances.unfit.kwargs.backend" in text
    assert "Did you mean 'Backend'?" in text
    assert f"lab.yaml:20: registry.{SHAPES}.Thermometer.properties.ch[7].kelvin" in text
    assert "ch has no item 7, it has 2" in text


def test_the_rights_of_another_machine_have_what_the_registry_publishes() -> None:
    entry = {
        "methods": {
            "ch[0].off": {"as": "off", "ether_pub": {}, "ether_sub": {}},
            "read": {"ether_pub": [{"every": "1s", "args": [1], "as": "level"}, {"topic": "own"}]},
        },
        "properties": {"a.b": {"get": {"every": "1s"}, "set": {"topic": "want"}}, "quiet": {}},
        "callbacks": {"on_event": "events"},
    }
    path = f"{SHAPES}.Thermometer"
    config = load_config({"instances": {"it": {"class_path": path}}, "registry": {path: entry}})
    topics = source_topics(config)("it", config.instances["it"])
    assert topics is not None
    assert sorted(topics[0]) == ["Thermometer.a_b", "Thermometer.level", "Thermometer.off", "events", "own"]
    assert sorted(topics[1]) == ["Thermometer.off", "want"]
