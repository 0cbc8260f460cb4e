"""What the YAML reader refuses, where, and how early; and what a plain word means."""

from __future__ import annotations

import math
import time

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lanes import examples
from patience import patience

from ether.config import EtherConfig, yaml_source
from ether.config.loading import _validated
from ether.config.yaml_source import MAX_BYTES, MAX_DEPTH, MAX_VALUES, read_yaml
from ether.errors import ConfigError

FILE = "lab.yaml"
# The issue promises 0.1 s; a busy machine gets ten times that before the test fails.
IN_TIME_S = 1.0


def in_time_s() -> float:
    """The parser written in Python needs longer, for a single word of a megabyte and for very many words."""
    return patience(IN_TIME_S if yaml_source._LOADER is not yaml.SafeLoader else 10 * IN_TIME_S)


@pytest.fixture(params=["C", "Python"], autouse=True)
def _loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both parsers of PyYAML: wheels have the C one, some distributions do not."""
    if request.param == "Python":
        monkeypatch.setattr(yaml_source, "_LOADER", yaml.SafeLoader)
    elif not hasattr(yaml, "CSafeLoader"):
        pytest.skip("this PyYAML was built without libyaml")


def refused(text: str | bytes) -> ConfigError:
    raw = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(ConfigError) as caught:
        read_yaml(raw, FILE)
    assert caught.value.file == FILE
    return caught.value


LAUGHS = "a0: &a0 [lol, lol]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (LAUGHS, 1, "found the anchor &a0"),
        ("x: 1\ny: *a", 2, "found the alias *a"),
        ("x: 1\ny: {<<: {b: 1}}", 2, "found the merge key <<"),
        ("base: &b {x: 1}\n<<: *b", 1, "found the anchor &b"),
        ("x: 1\ny: &self [*self]", 2, "found the anchor &self"),
        ("&k x: 1", 1, "found the anchor &k"),
        ("x: !!python/object/apply:os.system [ls]", 1, "found the tag tag:yaml.org,2002:python/object/apply:os"),
        ("x:\n  - !secrets y", 2, "found the tag !secrets"),
        ("x: !!str 1", 1, "found the tag"),
        ("x: ! 1", 1, "found the tag !"),
        ("!k x: 1", 1, "found the tag !k"),
        ("x: 1\nx: 2", 2, "the key 'x' is given twice (first on line 1)"),
        ("x:\n  y: 1\n  z: 1\n  'y': 2", 4, "the key 'y' is given twice (first on line 2)"),
        ("x: {1: a, 0x1: b}", 1, "the key '0x1' is given twice"),
        ("x: 1\n---\ny: 1", 2, "a second document starts"),
        ("x: 1\n...\n---\n", 3, "a second document starts"),
        ("x: 1\n[a]: 1", 2, "found a list or a mapping as a key"),
        ("{{a: 1}: 1}", 1, "found a list or a mapping as a key"),
        ("- a", 1, "found a list; a configuration is a mapping"),
        ("\nhello", 2, "found 'hello'; a configuration is a mapping"),
        ("x: [1,\n", 2, "this is not YAML"),
        ("x:\n\ty: 1", 2, "never with tabs"),
        ("x: 1\ny: '\0'", 2, "the character '\\x00' cannot stand in YAML"),
        ("x: 1\n\x1b[31m", 2, "the character '\\x1b' cannot stand in YAML"),
        (b"x: 1\ny: \xff", 2, "not UTF-8 (byte 0xff)"),
        ("x: 1".encode("utf-16"), 1, "not UTF-8 (byte 0xff)"),
    ],
)
def test_refusals_name_the_line(text: str | bytes, line: int, says: str) -> None:
    error = refused(text)
    assert says in str(error)
    # the two parsers count the end of a file differently
    assert error.line == line or ("not YAML" in says and abs((error.line or 0) - line) == 1)


def test_depth_ends_at_the_limit() -> None:
    deepest = "x: " + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    read_yaml(deepest.encode(), FILE)
    assert "more than 32 levels" in str(refused(deepest.replace("[]", "[[]]")))


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS,
        "[" * MAX_BYTES,
        "{a: " * (MAX_BYTES // 4),
        "- " * (MAX_BYTES // 2),
        "? " * (MAX_BYTES // 2),
        "[? " * (MAX_BYTES // 3),
        "," * MAX_BYTES,
        "---\n" * (MAX_BYTES // 4),
        "x: " + "9" * 900_000,
        "x: " + "a" * (MAX_BYTES + 1),
    ],
    ids=["laughs", "flow", "maps", "items", "keys", "mixed", "commas", "documents", "digits", "large"],
)
def test_bombs_are_refused_before_they_go_off(text: str) -> None:
    before = time.process_time()
    refused(text[: MAX_BYTES + 1])
    assert time.process_time() - before < in_time_s()


def test_reading_stops_at_the_first_refusal() -> None:
    """Nothing behind the first anchor is looked at, so nothing there can cost anything."""
    assert refused("x: &a 1\n" + "]" * 1000 + LAUGHS).line == 1


def test_too_many_values() -> None:
    values = "x: [" + "1," * MAX_VALUES + "]"
    assert f"more than {MAX_VALUES:,} values" in str(refused(values))


def test_an_alias_behind_as_much_as_is_read_is_refused_in_time() -> None:
    before = time.process_time()
    assert "found the alias" in str(refused("x: [" + "1.5e3," * (MAX_VALUES - 4) + "*a]"))
    assert time.process_time() - before < in_time_s()


def test_too_large() -> None:
    assert "larger than 1,048,576 bytes" in str(refused(b"#" * (MAX_BYTES + 1)))
    assert read_yaml(b"#" * MAX_BYTES, FILE).data == {}


def test_a_byte_order_mark_is_skipped() -> None:
    assert read_yaml(b"\xef\xbb\xbfx: 1", FILE).data == {"x": 1}


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("12", 12),
        ("-3", -3),
        ("0", 0),
        ("0x1F", 31),
        ("0o17", 15),
        ("1e3", 1000.0),
        ("1.5E-3", 0.0015),
        (".5", 0.5),
        ("3.", 3.0),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("12:30", "12:30"),
        ("2025-01-16", "2025-01-16"),
        ("y", "y"),
        ("n", "n"),
        ("'no'", "no"),
        ('"010"', "010"),
        ("'true'", "true"),
        ("1.2.3", "1.2.3"),
        ("=", "="),
        ("'<<'", "<<"),
        ("<<", "<<"),
        ("a_1", "a_1"),
    ],
)
def test_what_plain_words_mean(word: str, value: object) -> None:
    found = read_yaml(f"x: {word}".encode(), FILE).data["x"]
    assert found == value
    assert type(found) is type(value)


def test_nan_stays_nan() -> None:
    assert math.isnan(read_yaml(b"x: .nan", FILE).data["x"])


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("no", "write false, or 'no' in quotes"),
        ("Off", "write false, or 'Off' in quotes"),
        ("YES", "write true, or 'YES' in quotes"),
        ("on", "write true, or 'on' in quotes"),
        ("010", "has a leading zero"),
        ("-08", "has a leading zero"),
        ("1_000", "is a number in YAML 1.1"),
        ("0b11", "is a number in YAML 1.1"),
        ("1e999", "beyond what a float can hold; write .inf"),
        ("9" * 1001, "a number of 1001 characters is too long"),
    ],
)
def test_ambiguous_words_are_refused(word: str, says: str) -> None:
    error = refused(f"x: 1\ny: [{word}]")
    assert error.line == 2
    assert says in str(error)


def test_words_are_words_where_a_key_stands() -> None:
    assert read_yaml(b"{on: 1, off: 2, no: 3, yes: 4}", FILE).data == {"on": 1, "off": 2, "no": 3, "yes": 4}


def test_lines_of_keys_and_items() -> None:
    document = read_yaml(b"a:\n  b:\n    - x\n    - y\n\nc: 1\n", FILE)
    assert document.line_of(("a", "b")) == 2
    assert document.line_of(("a", "b", 1)) == 4
    assert document.line_of(("a", "missing", "deeper")) == 1
    assert document.line_of(("nowhere",)) == 1


YAML_LIKE = st.text(alphabet="ab:- \n{}[],&*!<>?|#'\"%@`~0123456789.\\\t\r\x85\u2028\ufeff", max_size=60)
VOCABULARY = """
    instances: registry: broker: session: a.B class_path: methods: { } [ ] ether_sub: topic: , : 1 true null -
    kind: external url: kwargs: ether_name:
"""
WORDS = st.sampled_from([*VOCABULARY.split(), "\n ", "\n  "])
SENTENCES = st.lists(WORDS, max_size=25).map(" ".join)


@settings(max_examples=examples(400), deadline=None)
@given(st.binary(max_size=80) | (YAML_LIKE | SENTENCES).map(str.encode))
@example(b"%YAML 9.9\n--- a")
@example(b'a: "\\ud800"')
@example(b"? ")
@example(b"broker: {url: 'mqtt://\xe2\x84\x80'}")
def test_any_bytes_are_a_configuration_or_a_config_error(raw: bytes) -> None:
    error: ConfigError | None = None
    try:
        document = read_yaml(raw, FILE)
        assert isinstance(_validated(document.data, document), EtherConfig)
    except ConfigError as refusal:
        error = refusal
    assert error is None or (error.file == FILE and FILE in str(error))
