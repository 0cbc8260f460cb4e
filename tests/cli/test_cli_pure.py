"""What the command line decides without a session: arguments, rates, the graph, tables, the schema."""

from __future__ import annotations

import inspect
import io
import time
from dataclasses import dataclass
from typing import Annotated, Any, get_origin

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from ether.cli.arguments import parse_duration_s, parse_pairs, parse_params, parse_since, parse_value
from ether.cli.exits import CommandMistake, Exit, exit_code_of, sentence_of
from ether.cli.lab.flow_texts import as_mermaid, as_text
from ether.cli.make.schema import config_schema
from ether.cli.options import OptionGroup, with_flat_options
from ether.cli.output import ago, colours, print_table, to_json
from ether.errors import BrokerUnreachable, ConfigError, NoResponder, RequestTimeout, remote_error
from ether.protocol.presence import Announcement, State
from ether.session.watching.flow import flow_of
from ether.session.watching.rates import Meter, shown_bytes

FILES = {"roi.json": b'{"x": [1, 2]}', "broken.json": b"{", "latin.json": b"\xff"}


def read(name: str) -> bytes:
    if name not in FILES:
        raise FileNotFoundError(2, "No such file or directory", name)
    return FILES[name]


@pytest.mark.parametrize(
    ("words", "params"),
    [
        ([], None),
        (["5"], 5),
        (["hello"], "hello"),
        (["[1, 2.5]"], [1, 2.5]),
        (["exposure=0.1"], {"exposure": 0.1}),
        (["on=true", "mode=fast", "roi=[0,0,10,10]"], {"on": True, "mode": "fast", "roi": [0, 0, 10, 10]}),
        (["text="], {"text": ""}),
        (["text=a=b"], {"text": "a=b"}),
        (["number=007"], {"number": "007"}),
        (["number=NaN"], {"number": "NaN"}),
        (["serial=12345"], {"serial": "12345"}),
        (['other="12345"'], {"other": "12345"}),
        (["roi=@roi.json"], {"roi": {"x": [1, 2]}}),
        (["@roi.json"], {"x": [1, 2]}),
        (["at=@@home"], {"at": "@home"}),
        (["1+1=2"], "1+1=2"),
    ],
)
def test_arguments_of_a_call(words: list[str], params: object) -> None:
    assert parse_params(words, {"serial"}, read) == params


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a=1", "2"], "key=value"),
        (["1", "2"], "key=value"),
        (["a=1", "a=2"], "twice"),
        (["a=@missing.json"], "missing.json"),
        (["a=@broken.json"], "does not hold JSON"),
        (["a=@latin.json"], "does not hold JSON"),
    ],
)
def test_arguments_that_cannot_be_understood(words: list[str], said: str) -> None:
    with pytest.raises(CommandMistake, match=said):
        parse_params(words, (), read)


@given(st.text())
def test_every_word_is_a_value_or_a_mistake(word: str) -> None:
    try:
        parse_value(word, read)
    except CommandMistake:
        assert word.startswith("@")


def test_a_value_that_nests_too_deep_is_text() -> None:
    word = "[" * 100_000
    assert parse_value(word, read) == word


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5", 1.5), ("500ms", 0.5), ("90s", 90), ("5m", 300), ("2h", 7200), ("1h30m", 5400), ("1D", 86400)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == pytest.approx(seconds)
    assert parse_since(text, 1000.0) == pytest.approx(1000.0 - seconds)


def test_points_in_time() -> None:
    local = time.mktime((2025, 1, 16, 11, 28, 0, 0, 0, -1))
    assert parse_since("2025-01-16 11:28", 0.0) == local
    assert parse_since("2025-01-16T11:28:00+00:00", 0.0) == 1737026880.0


@pytest.mark.parametrize("text", ["", "soon", "5 minutes", "-5m", "1x", "yesterday", "9999-99-99"])
def test_times_that_are_none(text: str) -> None:
    with pytest.raises(CommandMistake):
        parse_duration_s(text)
    with pytest.raises(CommandMistake, match="how long ago"):
        parse_since(text, 0.0)


def test_pairs() -> None:
    assert parse_pairs(["cam=debug", "a:b=info"], "x") == {"cam": "debug", "a:b": "info"}
    for word in ("cam", "=debug", "cam="):
        with pytest.raises(CommandMistake, match="NAME=LEVEL"):
            parse_pairs([word], "NAME=LEVEL")


# -- rates


def test_a_meter_counts_what_came_within_its_window() -> None:
    meter = Meter(10.0, now=0.0)
    assert meter.rate(1.0).hz == 0.0
    for index in range(200):
        meter.take(index * 0.1, 50)
    rate = meter.rate(20.0)
    assert meter.total == 200
    assert rate.messages == 99
    assert rate.hz == pytest.approx(9.9)
    assert rate.bytes_per_s == pytest.approx(495)
    assert rate.interval_mean_s == pytest.approx(0.1)
    assert rate.interval_deviation_s == pytest.approx(0.0, abs=1e-9)
    assert meter.rate(100.0).hz == 0.0


def test_before_its_window_is_full_a_meter_divides_by_the_time_that_passed() -> None:
    meter = Meter(10.0, now=100.0)
    for index in range(20):
        meter.take(100.0 + index * 0.1)
    assert meter.rate(102.0).hz == pytest.approx(10.0)


def test_a_fast_stream_is_measured_over_its_newest_messages() -> None:
    meter = Meter(10.0, now=0.0)
    for index in range(100_000):
        meter.take(index * 1e-4)
    assert meter.rate(10.0).hz == pytest.approx(10_000, rel=0.01)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2e6, "2.0 MB"), (5e12, "5000.0 GB")]
)
def test_bytes_for_people(count: float, text: str) -> None:
    assert shown_bytes(count) == text


# -- the graph


def member(name: str, methods: object, kind: str = "instance") -> Announcement:
    about = {"class": name.title(), "kind": kind, "methods": methods}
    return Announcement(name, State.READY, "b", about=about)


MEMBERS = [
    member("source", {"tick": {"publishes": ["ticks"]}, "log": {"publishes": ["events/source"]}}),
    member("sink", {"take": {"subscribes": ["ticks"]}, "any": {"subscribes": ["events/#"]}}),
    member("other", {"take": {"subscribes": ["ticks"], "publishes": ["unheard"]}, "go": {"subscribes": ["start"]}}),
    member("main", {}, kind="program"),
]


def test_the_graph_follows_wildcards_and_names_loose_ends() -> None:
    flow = flow_of(MEMBERS)
    assert set(flow.edges) == {
        ("source", "ticks", "sink"),
        ("source", "ticks", "other"),
        ("source", "events/source", "sink"),
    }
    assert flow.unheard == (("other", "unheard"),)
    assert flow.unfed == (("start", "other"),)
    assert flow.names == ("other", "sink", "source")


def test_the_graph_as_text_and_as_mermaid() -> None:
    flow = flow_of(MEMBERS)
    assert "  ticks -> other, sink" in as_text(flow)
    assert "  unheard -> (nobody)" in as_text(flow)
    assert "(programs)  start -> other" in as_text(flow)
    mermaid = as_mermaid(flow).splitlines()
    assert mermaid[0] == "flowchart LR"
    assert '    n2 -->|"ticks"| n1' in mermaid


def test_names_cannot_break_out_of_a_mermaid_label() -> None:
    text = as_mermaid(flow_of([member('a"]; click x', {"m": {"publishes": ["<b>"]}})]))
    assert 'n0["a#quot;]; click x"]' in text
    assert "<b>" not in text


@pytest.mark.parametrize("methods", [None, 5, {"m": None}, {"m": {"publishes": "ticks"}}, {"m": {"publishes": [None]}}])
def test_announcements_that_make_no_sense_are_passed_over(methods: object) -> None:
    assert flow_of([member("odd", methods)]).edges == ()


# -- output


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("terminal", "environment", "wanted"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (True, {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        (False, {"FORCE_COLOR": "1"}, True),
        (True, {"TERM": "dumb"}, False),
    ],
)
def test_where_colours_may_be(terminal: bool, environment: dict[str, str], wanted: bool) -> None:
    assert colours(Terminal() if terminal else io.StringIO(), environment) is wanted


def test_a_table_is_aligned_and_shows_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": "cam", "state": "ready"}, {"name": "a\x1b[2Jb", "state": None}]
    print_table(rows, {"name": "NAME", "state": "STATE"}, nothing="none")
    assert capsys.readouterr().out == "NAME       STATE\ncam        ready\na\\x1b[2Jb  -\n"


def test_colours_go_around_states_only(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    print_table([{"name": "cam", "state": "lost"}], {"name": "NAME", "state": "STATE"}, nothing="none")
    assert capsys.readouterr().out.splitlines()[1] == "cam   \x1b[31mlost \x1b[0m"


def test_values_that_json_has_no_form_for() -> None:
    numpy = pytest.importorskip("numpy", reason="numpy is not installed: pip install 'ether-medium[numpy]'")
    value = {
        "nan": float("nan"),
        "raw": b"\x00\x01",
        "small": numpy.arange(3),
        "large": numpy.zeros((100, 100)),
        5: (1,),
    }
    assert to_json(value) == {
        "nan": "nan",
        "raw": {"bytes": 2, "base64": "AAE="},
        "small": {"array": "int64", "shape": [3], "values": [0, 1, 2]},
        "large": {"array": "float64", "shape": [100, 100]},
        "5": [1],
    }


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 s"), (119, "119 s"), (600, "10 min"), (7300, "2 h"), (200_000, "2 d"), (-5, "0 s")]
)
def test_how_long_ago(seconds: float, text: str) -> None:
    assert ago(1e9 - seconds, now=1e9) == text
    assert ago(None) == ago("soon") == "-"


def test_errors_and_their_codes() -> None:
    remote = remote_error("sink.fail", "TimeoutError", "too slow", "Traceback of the other side")
    codes = {
        CommandMistake("x"): Exit.USAGE,
        ConfigError("x"): Exit.CONFIG,
        BrokerUnreachable("mqtt://h", "x"): Exit.BROKER,
        RequestTimeout("a.b", "a", 1, "x"): Exit.TIMEOUT,
        remote: Exit.FAILED,
        NoResponder("a.b", "x"): Exit.FAILED,
    }
    assert {error: exit_code_of(error) for error in codes} == codes
    assert "Traceback" not in sentence_of(remote)


# -- the schema


def alternatives(schema: dict[str, Any]) -> list[Any]:
    return [each.get("type") or each.get("$ref", "").rpartition("/")[2] for each in schema["anyOf"]]


def test_the_schema_knows_the_short_spellings() -> None:
    schema = config_schema()
    method = schema["$defs"]["RegistryMethod"]["properties"]
    assert alternatives(method["ether_sub"]) == ["TopicOptions", "null", "array"]
    instance = schema["$defs"]["EtherInstanceConfig"]
    assert alternatives(instance["properties"]["kwargs"]) == ["null", "object"]
    assert "class_path" in instance["required"]
    assert instance["additionalProperties"] is False
    assert "string" in alternatives(schema["properties"]["broker"])


# -- option groups


@dataclass(frozen=True)
class Place(OptionGroup):
    host: Annotated[str, typer.Argument(metavar="HOST")]
    port: Annotated[int, typer.Option("--port")] = 1883


def test_a_group_of_options_is_flat_for_typer_and_one_value_for_the_command() -> None:
    def command(name: str, place: Place, *, loud: bool = False) -> tuple[object, ...]:
        return name, place, loud

    flat = with_flat_options(command)
    parameters = inspect.signature(flat).parameters
    assert list(parameters) == ["name", "host", "port", "loud"]
    assert parameters["host"].default is inspect.Parameter.empty
    assert parameters["port"].default == 1883
    assert get_origin(flat.__annotations__["port"]) is Annotated
    assert flat(name="n", host="h", port=1, loud=True) == ("n", Place("h", 1), True)


def test_a_command_without_groups_stays_as_it_is() -> None:
    def command(name: str = "") -> None: ...

    assert with_flat_options(command) is command
    assert with_flat_options(with_flat_options(command)) is command
