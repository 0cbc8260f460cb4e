"""What `load_config` accepts, and that every refusal names file, line, what was found and the nearest key."""

from __future__ import annotations

import fractions
import json
import pathlib
import textwrap
from collections.abc import Callable

import pytest

from ether.config import EmbeddedBroker, EtherConfig, EtherInstanceConfig, ExternalBroker, load_config
from ether.errors import ConfigError

Refuse = Callable[[str], ConfigError]
A_CLASS = "instances: {a: {class_path: a.B}}"


@pytest.fixture
def write(tmp_path: pathlib.Path) -> Callable[[str], pathlib.Path]:
    def write(text: str) -> pathlib.Path:
        path = tmp_path / "lab.yaml"
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return write


@pytest.fixture
def refuse(write: Callable[[str], pathlib.Path]) -> Refuse:
    def refuse(text: str) -> ConfigError:
        path = write(text)
        with pytest.raises(ConfigError) as caught:
            load_config(path)
        assert caught.value.file == str(path)
        assert str(caught.value).startswith(f"{path}:{caught.value.line}: ")
        return caught.value

    return refuse


def test_the_whole_schema(write: Callable[[str], pathlib.Path]) -> None:
    config = load_config(
        write("""\
            session: bench
            broker: embedded
            instances:
              generator:
                class_path: dual_processors.DataGenerator
                keep: 10
                args: [1, two]
                kwargs: {multiplier: 2, limits: {low: .inf, "on": off_axis}}
              second:
                class_path: package.module.Outer.Inner
                kwargs: {ether_name: camera, gain: 3}
                autorun: false
            registry:
              external.Processor:
                methods:
                  process:
                    ether_sub: {topic: data, keep: latest, max_age: 0.5s}
                    ether_pub: [{topic: result}, {topic: copy, qos: 0}]
                    ether_init: {}
                    ether_cleanup:
        """)
    )
    assert config.session == "bench"
    assert config.broker == EmbeddedBroker()
    generator, camera = config.named_instances().values()
    assert list(config.named_instances()) == ["generator", "camera"]
    assert (generator.keep, generator.max_age, camera.keep) == (10, None, None)
    assert generator.args == (1, "two")
    assert generator.kwargs == {"multiplier": 2, "limits": {"low": float("inf"), "on": "off_axis"}}
    assert generator.autorun
    assert not camera.autorun
    assert camera.constructor_kwargs == {"gain": 3}
    marks = list(config.registry["external.Processor"].methods["process"].marks())
    assert marks == [
        ("ether_pub", {"topic": "result", "qos": 1, "save": False, "every": None, "on": None, "dead_band": None}),
        ("ether_pub", {"topic": "copy", "qos": 0, "save": False, "every": None, "on": None, "dead_band": None}),
        ("ether_sub", {"topic": "data", "qos": 1, "keep": "latest", "max_age": "0.5s"}),
        ("ether_init", {}),
        ("ether_cleanup", {}),
    ]


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "instances:\nregistry:\nbroker:\nsession:\n"])
def test_an_empty_file_has_no_instances(write: Callable[[str], pathlib.Path], text: str) -> None:
    assert load_config(write(text)) == EtherConfig() == load_config(None) == load_config({})


def test_a_path_may_be_a_string_and_a_config_stays_itself(write: Callable[[str], pathlib.Path]) -> None:
    config = load_config(str(write(A_CLASS)))
    assert load_config(config) is config


def test_a_class_becomes_its_path() -> None:
    config = load_config(
        {"instances": {"a": {"class_path": fractions.Fraction}, "b": EtherInstanceConfig(class_path=dict)}}
    )
    assert [one.class_path for one in config.instances.values()] == ["fractions.Fraction", "builtins.dict"]


def test_a_class_inside_a_function_is_refused() -> None:
    class Local:
        pass

    with pytest.raises(ConfigError, match="top of a module") as caught:
        load_config({"instances": {"a": {"class_path": Local}}})
    assert caught.value.path == "instances.a.class_path"


@pytest.mark.parametrize(
    ("text", "line", "path", "nearest"),
    [
        ("sesion: x", 1, "sesion", "session"),
        ("instances:\n  cam:\n    clas_path: a.B", 3, "instances.cam.clas_path", "class_path"),
        ("instances:\n  cam:\n    class_path: a.B\n    Autorun: true", 4, "instances.cam.Autorun", "autorun"),
        ("broker:\n  engin: amqtt", 2, "broker.engin", "engine"),
        ("registry:\n  a.B:\n    method: {}", 3, "registry.a.B.method", "methods"),
        (
            "registry:\n  a.B:\n    methods:\n      f:\n        ether_sb: {}",
            5,
            "registry.a.B.methods.f.ether_sb",
            "ether_sub",
        ),
        (
            "registry:\n  a.B:\n    methods:\n      f:\n        ether_sub:\n          topik: x",
            6,
            "registry.a.B.methods.f.ether_sub.topik",
            "topic",
        ),
        (
            "registry:\n  a.B:\n    methods:\n      f:\n        ether_sub:\n        - topic: x\n        - qs: 1",
            7,
            "registry.a.B.methods.f.ether_sub[1].qs",
            "qos",
        ),
    ],
)
def test_unknown_keys_at_every_level(refuse: Refuse, text: str, line: int, path: str, nearest: str) -> None:
    error = refuse(text)
    assert (error.line, error.path, error.nearest) == (line, path, nearest)
    assert f"unknown key {path.rpartition('.')[2]!r}; valid here: " in str(error)
    assert str(error).endswith(f"Did you mean {nearest!r}?")


def test_an_unknown_key_far_from_any_names_no_nearest(refuse: Refuse) -> None:
    error = refuse("zzz: 1")
    assert error.nearest is None
    valid = "session, broker, instances, registry, record, security, begin_within_s, end, preload, plan, simulate"
    assert f"valid here: {valid}." in str(error)


def test_a_decorator_without_options_says_so(refuse: Refuse) -> None:
    error = refuse("registry: {a.B: {methods: {f: {ether_init: {topic: x}}}}}")
    assert (error.path, error.problem) == (
        "registry.a.B.methods.f.ether_init.topic",
        "unknown key 'topic'; this takes no options.",
    )


@pytest.mark.parametrize(
    ("text", "line", "path", "says"),
    [
        ("\nsession: 12", 2, "session", "found 12 (a number); expected text; put it in quotes"),
        ("session: a#b", 1, "session", "'a#b' cannot be the name of a session: a name has 1 to 64"),
        ("instances: [a]", 1, "instances", "found a list; expected a mapping"),
        ("instances:\n  a: 3", 2, "instances.a", "found 3 (a number); expected a mapping"),
        ("instances:\n  a:", 2, "instances.a", "found nothing (null); expected a mapping"),
        ("instances:\n  a: {}", 2, "instances.a.class_path", "this is missing; expected the class as package"),
        ("instances:\n  a: {class_path: Thing}", 2, "instances.a.class_path", "found 'Thing'; a class path is"),
        ("instances:\n  a: {class_path: 3}", 2, "instances.a.class_path", "found 3 (int); a class path is"),
        ("instances:\n  a/b: {class_path: a.B}", 2, "instances.a/b", "'a/b' cannot be the name of"),
        ("instances:\n  1: {class_path: a.B}", 2, "instances.1", "found the key 1 (a number); a name is text"),
        ("instances:\n  true: {}", 2, "instances.true", "found the key true (a true/false value); a name is"),
        ("instances:\n  ~: {}", 2, "instances.null", "found the key nothing (null); a name is text"),
        ("2: x", 1, "2", "found the key 2 (a number); a name is text: put it in quotes."),
        (
            "instances:\n  a:\n    class_path: a.B\n    kwargs:\n      3: x",
            5,
            "instances.a.kwargs.3",
            "found the key 3 (a number)",
        ),
        (
            "instances:\n  a:\n    class_path: a.B\n    args: x",
            4,
            "instances.a.args",
            "found 'x' (text); expected a list",
        ),
        (
            "instances:\n  a:\n    class_path: a.B\n    autorun: 1",
            4,
            "instances.a.autorun",
            "found 1 (a number); expected true or false.",
        ),
        (
            "instances:\n  a:\n    class_path: a.B\n    kwargs:\n      ether_name: $x",
            5,
            "instances.a.kwargs.ether_name",
            "'$x' cannot be the name of",
        ),
        ("registry: {a: {methods: {}}}", 1, "registry.a", "found 'a'; a class path is written"),
        ("registry:\n  a.B: {methods: {f-g: {ether_pub: {}}}}", 2, "registry.a.B.methods.f-g", "not a name or a path"),
        ("registry:\n  a.B: {methods: {f: {}}}", 2, "registry.a.B.methods.f", "expected at least one of ether_pub"),
        (
            "registry:\n  a.B: {methods: {f: {ether_sub: {qos: 2}}}}",
            2,
            "registry.a.B.methods.f.ether_sub.qos",
            "found 2 (a number); expected one of: 0, 1.",
        ),
        (
            "registry:\n  a.B: {methods: {f: {ether_init: [{}, {}]}}}",
            2,
            "registry.a.B.methods.f.ether_init",
            "once only",
        ),
        ("registry:\n  a.B: {methods: {f: {ether_sub: []}}}", 2, "registry.a.B.methods.f.ether_sub", "stands for"),
        (
            "registry:\n  a.B:\n    methods:\n      f:\n        ether_sub:\n          keep: newest",
            6,
            "registry.a.B.methods.f.ether_sub.keep",
            "found 'newest'; expected all, latest, or how many of the newest to keep: a whole number from 1, such as",
        ),
        (
            "registry:\n  a.B:\n    methods:\n      f:\n        ether_sub:\n        - topic: x\n        - keep: 0",
            7,
            "registry.a.B.methods.f.ether_sub[1].keep",
            "found 0; expected all, latest, or how many",
        ),
        (
            "registry:\n  a.B: {methods: {f: {ether_start: {max_age: 0.5}}}}",
            2,
            "registry.a.B.methods.f.ether_start.max_age",
            "found 0.5; write a number and its unit (ms, s, min, h, d), such as 0.5s.",
        ),
        (
            "registry:\n  a.B: {properties: {power: {set: {topic: p, keep: true}}}}",
            2,
            "registry.a.B.properties.power.set.keep",
            "found True; expected all, latest",
        ),
        ("instances:\n  a:\n    class_path: a.B\n    max_age: soon", 4, "instances.a.max_age", "found 'soon'; write"),
        (
            "instances:\n  a:\n    class_path: a.B\n    keep: lates",
            4,
            "instances.a.keep",
            "found 'lates'; expected all, latest, or how many of the newest to keep: a whole number from 1, such as 10."
            " Did you mean 'latest'?",
        ),
    ],
)
def test_wrong_values(refuse: Refuse, text: str, line: int, path: str, says: str) -> None:
    error = refuse(text)
    assert (error.line, error.path) == (line, path)
    assert f": {path}: " in str(error)
    assert says in str(error)


def test_a_colon_in_a_class_path_is_mended(refuse: Refuse) -> None:
    assert refuse("instances: {a: {class_path: 'pkg.mod:Cls'}}").nearest == "pkg.mod.Cls"


def test_two_instances_of_one_name(refuse: Refuse) -> None:
    error = refuse("instances:\n  a: {class_path: a.B}\n  b:\n    class_path: a.B\n    kwargs: {ether_name: a}")
    assert (error.line, error.path) == (3, "instances.b")
    assert "instances 'a' and 'b' are both named 'a'" in str(error)


def test_several_problems_are_one_error(refuse: Refuse) -> None:
    error = refuse("sesion: x\ninstances:\n  a: {class_path: B}\n  b: {clas_path: a.B}")
    assert (error.line, error.path, error.nearest) == (1, "sesion", "session")
    first, second, third = str(error).splitlines()
    assert first.endswith("Did you mean 'session'?")
    assert f"{error.file}:3: instances.a.class_path: found 'B'" in second
    assert f"{error.file}:4: instances.b.clas_path: unknown key" in third


def test_at_most_ten_problems_are_listed(refuse: Refuse) -> None:
    error = refuse("instances:\n" + "".join(f"  a{i}: {i}\n" for i in range(25)))
    assert len(str(error).splitlines()) == 11
    assert str(error).endswith("and 15 more.")


def test_a_dict_gives_the_same_error_without_file() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({"instances": {"cam": {"clas_path": "a.B"}}})
    error = caught.value
    assert (error.file, error.line, error.path, error.nearest) == (None, None, "instances.cam.clas_path", "class_path")
    assert str(error).startswith("instances.cam.clas_path: unknown key 'clas_path'; valid here: class_path, ")


def test_a_model_built_by_hand_raises_the_same_error() -> None:
    with pytest.raises(ConfigError) as caught:
        EtherInstanceConfig(clas_path="a.B")  # type: ignore[call-arg]
    assert (caught.value.path, caught.value.nearest) == ("clas_path", "class_path")


def test_models_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        EtherConfig().session = "x"  # type: ignore[misc]


def test_the_json_schema_describes_every_setting() -> None:
    schema = json.dumps(EtherConfig.model_json_schema())
    for name in ("class_path", "autorun", "keep", "max_age", "ether_pub", "max_message_bytes", "engine"):
        assert f'"{name}"' in schema


# ---- the broker


@pytest.mark.parametrize(
    "url", ["mqtt://localhost", "mqtt://u:p%40@[::1]:1885", "mqtt://host:1883/", "unix:///run/mosquitto/m.sock"]
)
def test_a_broker_url_is_kept_verbatim(url: str) -> None:
    for spelling in (url, {"url": url}, {"kind": "external", "url": url}, ExternalBroker(url=url)):
        assert load_config({"broker": spelling}).broker == ExternalBroker(url=url)


def test_a_broker_url_is_taken_apart() -> None:
    address = ExternalBroker(url="mqtt://me:p%40ss@bench:1885").address
    assert (address.host, address.port, address.username, address.password) == ("bench", 1885, "me", "p@ss")
    assert ExternalBroker(url="mqtt://bench").address.port == 1883
    assert ExternalBroker(url="unix:///tmp/a.sock").address.path == "/tmp/a.sock"
    assert not ExternalBroker(url="mqtt://bench").address.tls
    over_tls = ExternalBroker(url="mqtts://me:pw@bench").address
    assert (over_tls.tls, over_tls.port, over_tls.password) == (True, 8883, "pw")
    assert not over_tls.websocket
    assert over_tls.path is None
    web = ExternalBroker(url="wss://me:pw@bench/lab%20a").address
    assert (web.host, web.port, web.path, web.tls, web.websocket) == ("bench", 443, "/lab%20a", True, True)
    plain = ExternalBroker(url="ws://bench").address
    assert (plain.port, plain.path, plain.tls, plain.websocket) == (80, "/mqtt", False, True)


@pytest.mark.parametrize("url", ["ws://bench", "wss://me:p%40@bench:8443/a/b", "ws://[::1]:9001/"])
def test_a_websocket_url_is_kept_verbatim(url: str) -> None:
    assert load_config({"broker": url}).broker == ExternalBroker(url=url)


def test_a_port_for_websockets() -> None:
    broker = load_config({"broker": {"listen": "lan", "websocket_port": 9001}}).broker
    assert isinstance(broker, EmbeddedBroker)
    assert broker.websocket_port == 9001
    assert load_config({}).broker.websocket_port is None  # type: ignore[union-attr]


def test_broker_settings() -> None:
    broker = load_config({"broker": {"engine": "amqtt", "port": 1999, "max_message_bytes": 4096}}).broker
    assert broker == EmbeddedBroker(engine="amqtt", port=1999, max_message_bytes=4096)


@pytest.mark.parametrize(
    ("listen", "host"),
    [("loopback", None), ("lan", "0.0.0.0"), ("192.168.1.5", "192.168.1.5"), ("::1", "::1"), ("FD00::0:1", "fd00::1")],
)
def test_where_a_broker_listens(listen: str, host: str | None) -> None:
    broker = load_config({"broker": {"listen": listen}}).broker
    assert isinstance(broker, EmbeddedBroker)
    assert broker.lan_host == host
    assert load_config({}).broker.lan_host is None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("broker", "path", "says"),
    [
        ("mqtts://h/x", "broker", "nothing may follow the port"),
        ("http://h", "broker", "no http:// here"),
        ("mqtt://", "broker", "the host is missing"),
        ("mqtt://h/x", "broker", "nothing may follow the port"),
        ("mqtt://h:0", "broker", "0 is not a port"),
        ("mqtt://h:77777", "broker", "out of range"),
        ("'mqtt://[::1'", "broker", "Invalid IPv6 URL"),
        ("unix://x/y", "broker", "three slashes"),
        ("mosquitoo", "broker", "not a URL"),
        ("some where", "broker", "not a URL"),
        ("host:99999", "broker", "out of range"),
        ("12", "broker", "found 12 (a number)"),
        ("[a]", "broker", "found a list"),
        ("{kind: other}", "broker.kind", "found 'other' (text); expected one of: embedded, external."),
        ("{kind: external}", "broker.url", "this is missing; expected mqtt://"),
        ("{url: 'x://y'}", "broker.url", "no x:// here"),
        ("{port: 65536}", "broker.port", "less than or equal to 65535"),
        ("{port: true}", "broker.port", "expected a whole number"),
        ("{max_message_bytes: 1e6}", "broker.max_message_bytes", "expected a whole number"),
        ("{listen: lann}", "broker.listen", "expected loopback, lan, or an address"),
        ("{listen: bench-pc}", "broker.listen", "found 'bench-pc' (text); expected loopback, lan, or an address"),
        ("{listen: 192.168.1.256}", "broker.listen", "expected loopback, lan, or an address"),
        ("{listen: true}", "broker.listen", "found true"),
        ("{listen: 5}", "broker.listen", "found 5 (a number)"),
        ("{listen: 'fe80::1%eth0'}", "broker.listen", "expected loopback, lan, or an address"),
        ("ws://", "broker", "the host is missing"),
        ("ws://h/x?token=1", "broker", "nothing may follow the path"),
        ("'wss://h/x#y'", "broker", "nothing may follow the path"),
        ("'wss://h/a b'", "broker", "the path is ASCII without spaces"),
        ("ws://h/mü", "broker", "the path is ASCII without spaces"),
        ("ws://h:0", "broker", "0 is not a port"),
        ("{listen: lan, websocket_port: 0}", "broker.websocket_port", "greater than or equal to 1"),
        ("{listen: lan, websocket_port: 65536}", "broker.websocket_port", "less than or equal to 65535"),
        ("{listen: lan, port: 9001, websocket_port: 9001}", "broker.websocket_port", "a port of its own"),
        ("{websocket_port: 9001}", "broker.websocket_port", "listens on loopback only: add listen: lan"),
    ],
)
def test_brokers_that_cannot_be(refuse: Refuse, broker: str, path: str, says: str) -> None:
    error = refuse(f"\nbroker: {broker}")
    assert (error.line, error.path) == (2, path)
    assert says in str(error)
    if path == "broker":
        assert "expected embedded, mqtt://" in str(error)
        assert "unix:///" in str(error)


@pytest.mark.parametrize(
    ("typed", "url"),
    [
        ("192.168.1.5", "mqtts://192.168.1.5"),
        ("127.0.0.1:28999", "mqtt://127.0.0.1:28999"),
        ("localhost:28999", "mqtt://localhost:28999"),
        ("bench-pc", "mqtts://bench-pc"),
        ("'::1'", "mqtt://[::1]"),
        ("'[::1]:1884'", "mqtt://[::1]:1884"),
        ("{url: '10.0.0.7:1884'}", "mqtts://10.0.0.7:1884"),
    ],
)
def test_i10_b1_an_address_is_a_broker(write: Callable[[str], pathlib.Path], typed: str, url: str) -> None:
    broker = load_config(write(f"broker: {typed}")).broker
    assert isinstance(broker, ExternalBroker)
    assert broker.url == url


@pytest.mark.parametrize(
    ("broker", "nearest"),
    [
        ("embeded", "embedded"),
        ("mosquito", "{engine: mosquitto}"),
        ("{engine: mosquito}", "mosquitto"),
        ("{listen: lann}", "lan"),
    ],
)
def test_the_broker_that_was_meant(refuse: Refuse, broker: str, nearest: str) -> None:
    assert refuse(f"broker: {broker}").nearest == nearest


@pytest.mark.parametrize(
    "broker",
    [
        "ftp://u:hush@h",
        "mqtts://u:hush@h/x",
        "mqtt://u:hu/sh@h",
        "ws://u:hush@h/x?y",
        "wss://u:hush@h:0/x",
        "{engine: 'mqtt://u:hush@h'}",
        "{url: 'mqtt://u:hush@h/x'}",
    ],
)
def test_no_message_shows_a_password(refuse: Refuse, broker: str) -> None:
    error = str(refuse(f"broker: {broker}"))
    assert "hush" not in error
    assert "hu/sh" not in error


def test_no_repr_shows_a_password() -> None:
    config = load_config({"broker": "mqtt://me:hush@bench"})
    assert isinstance(config.broker, ExternalBroker)
    assert "hush" not in f"{config!r} {config} {config.broker.address!r}"
    assert config.broker.shown_url == "mqtt://me:***@bench"


# ---- files


def test_a_missing_file_names_the_folder_and_the_nearest_file(tmp_path: pathlib.Path) -> None:
    (tmp_path / "config.yaml").touch()
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "confg.yaml")
    assert caught.value.file == str(tmp_path / "confg.yaml")
    assert caught.value.nearest == "config.yaml"
    assert f"no such file (looked in {tmp_path})" in str(caught.value)


def test_a_missing_folder(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "nowhere" / "x.yaml")


def test_a_folder_is_not_a_file(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match="this is a folder") as caught:
        load_config(tmp_path)
    assert caught.value.file == str(tmp_path)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("instances:\n  a: 1\n", "save the text in a file"),
        ("a\0b", "path of a file is expected"),
        ("", "path of a file is expected"),
        (5, "found int 5; a configuration is the path"),
        (["a"], "found list"),
    ],
)
def test_what_is_not_a_configuration(source: object, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_config(source)  # type: ignore[arg-type]
