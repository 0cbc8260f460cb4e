"""10,000 hostile messages, and as many hostile names: a value or an EtherError comes out, never anything else."""

from __future__ import annotations

import json
import random
import struct
import sys
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lanes import examples

from ether.errors import DecodeError, EtherError
from ether.wire import (
    EnvelopeV5,
    EnvelopeV311,
    Headers,
    SessionTopics,
    check_instance_name,
    check_session_name,
    check_topic,
    check_topic_filter,
    decode,
    matches,
    unix_ms_of,
    unpack,
    unpack_headers,
    unpack_properties,
)

CONTENT_TYPES = [None, "application/json", "application/vnd.ether.binary", "text/plain", "x/y", "", "+json;"]
HEADERS = Headers("018bcfe5-6800-7000-8000-0002dfdc1c35", "camera1", 5, 1736989362.5, ("a", "b"), expiry_s=2.5)
VALUES: list[object] = [
    {"data": 5, "nested": [{"a": None}, "tëxt", 1.5, 10**30]},
    [1, 2, 3],
    "ON",
    None,
    b"\x00\x01",
    {"image": np.arange(12, dtype="<i2").reshape(3, 4), "nan": float("nan"), "z": 1j},
    np.zeros(3, [("a", "<i4"), ("b", "<U2", (2,)), ("c", "?")]),
    [np.array(["ab", "c"]), np.array([True, False]), np.longdouble(3), np.datetime64("2026-01-01")],
]
PACKETS = [envelope.pack(value, HEADERS) for envelope in (EnvelopeV5(), EnvelopeV311()) for value in VALUES]


def survive(payload: bytes, properties: bytes = b"") -> None:
    """Every way that bytes take into a program."""
    calls: list[Callable[[], object]] = [
        lambda: unpack(payload, properties),
        lambda: unpack(payload, b""),
        lambda: unpack_properties(properties),
        *(lambda kind=kind: decode(payload, kind) for kind in CONTENT_TYPES),  # type: ignore[misc]
    ]
    for call in calls:
        try:
            call()
        except EtherError:
            pass
    unpack_headers(payload, properties)


def mutated(rng: random.Random, data: bytes) -> bytes:
    """One to four small damages."""
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(damaged))
        kind = rng.randrange(6)
        if kind == 0 and damaged:
            damaged[min(at, len(damaged) - 1)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del damaged[at : at + rng.randint(1, 9)]
        elif kind == 2:
            damaged[at:at] = rng.randbytes(rng.randint(1, 9))
        elif kind == 3:
            damaged[at : at + 1] = rng.choice(WORDS)
        elif kind == 4:
            damaged = damaged[:at]
        else:
            start = rng.randint(0, len(damaged))
            damaged[at:at] = damaged[start : start + rng.randint(1, 60)]
    return bytes(damaged)


WORDS = [
    *(b'-1 1e999 9999999999999999999999 null true {} [] NaN 0.5 "\\ud800" \xed\xa0\x80 \xff'.split()),
    *(b'|O8 "|O8" <f16 <U9 V0 |b1 "path":[] "length":8 "_ether":{} "root":true \x26\xff\xff \x00\x00'.split()),
]


@pytest.mark.parametrize("seed", range(10))
def test_damaged_messages(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(1000):
        packet = rng.choice(PACKETS)
        payload = mutated(rng, packet.payload) if rng.random() < 0.8 else packet.payload
        properties = mutated(rng, packet.properties) if rng.random() < 0.6 else packet.properties
        survive(payload, properties)


def test_random_bytes() -> None:
    rng = random.Random(11)
    for _ in range(2500):
        begin = rng.choice([b"", b"\x93ETH\x01\0\0\0", b"{", b'{"_ether":', b"[", b"\x93"])
        survive(begin + rng.randbytes(rng.randrange(80)), rng.randbytes(rng.randrange(40)))


def binary(head: object, data: bytes = b"") -> bytes:
    text = json.dumps(head).encode()
    padding = bytes(-(12 + len(text)) % 8) if data else b""
    return b"\x93ETH\x01\0\0\0" + struct.pack("<I", len(text)) + text + padding + data


VOCABULARY = (
    "body parts path kind length dtype shape order array scalar float complex bytes C F <f8 |O8 |b1 <U1 |V0 names"
    " formats offsets itemsize base titles aligned extended mantissa_bits _ether root id source seq time parents"
)
_words = st.sampled_from(VOCABULARY.split())
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.integers(0, 16) | st.floats() | _words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_words, inner, max_size=5),
    max_leaves=12,
)
_part = st.fixed_dictionaries(
    {
        "path": st.just([]) | st.just(["a"]) | st.just(["b", 0]) | _json,
        "kind": st.sampled_from(["array", "scalar", "bytes", "float", "complex"]) | _json,
        "length": st.sampled_from([0, 1, 4, 8, 16]) | _json,
        "order": st.just("C") | _json,
        "shape": st.sampled_from([[], [1], [2, 2], [0, 2**62], [2**40, 2**40]]) | _json,
        "dtype": st.sampled_from(["<f8", "|u1", "|b1", "<U1", "|V0", "|S0", "<f16", "|O8", "<M8[s]"])
        | st.fixed_dictionaries(
            {"names": st.just(["a", "b"]), "formats": st.lists(_words, max_size=2), "offsets": st.just([0, 8])},
            optional={"itemsize": st.integers(-1, 2**40), "titles": _json, "aligned": st.booleans()},
        )
        | st.fixed_dictionaries({"base": _words | _json, "shape": st.lists(st.integers(-1, 2**33), max_size=3)})
        | _json,
    }
)


@settings(max_examples=examples(1500), deadline=None, derandomize=True, database=None)
@given(
    st.sampled_from([None, {"a": None}, {"b": [None]}]) | _json,
    st.lists(_part, max_size=2) | _json,
    st.none() | _json,
    st.binary(max_size=40),
)
def test_crafted_binary_bodies(body: object, parts: object, own: object, data: bytes) -> None:
    survive(binary({"_ether": own, "body": body, "parts": parts}, data))
    survive(json.dumps({"_ether": own, "root": body}).encode())


BOMBS = {
    "lists": b"[" * 1_000_000,
    "objects": b'{"a":' * 300_000,
    "closed lists": b"[" * 5000 + b"]" * 5000,
    "a few too many": b"[" * 129 + b"]" * 129,
    "behind a string": b'["\\"[",' + b"[" * 200 + b"]" * 201,
    "digits": b"1" * 5000,
    "digits in a list": b"[" + b"9" * 100_000 + b"]",
    "no object": b'{"_ether":5}',
    "empty headers": b'{"_ether":{}}',
    "huge time": b'{"_ether":{"id":"a","source":"b","seq":1,"time":1' + b"0" * 400 + b"}}",
    "NaN time": b'{"_ether":{"id":"a","source":"b","seq":1,"time":NaN}}',
    "root is missing": b'{"_ether":{"id":"a","source":"b","seq":1,"time":1,"root":true}}',
    "head too long": b"\x93ETH\x01\0\0\0\xff\xff\xff\xff{}",
    "other version": b"\x93ETH\x02\0\0\0\x02\0\0\0{}",
    "head is a list": binary([]),
    "deep head": b"\x93ETH\x01\0\0\0" + struct.pack("<I", 100_000) + b"[" * 100_000,
    "surplus": binary({"body": 1, "parts": []}, b"12345678"),
}


def part(**facts: object) -> dict[str, object]:
    return {"path": [], "kind": "array", "dtype": "<f8", "shape": [1], "order": "C", "length": 8, **facts}


def test_json_that_is_not_utf8() -> None:
    latin1 = '{"t":"21 °C"}'.encode("latin-1")
    with pytest.raises(DecodeError, match="not UTF-8 text, at byte 9"):
        decode(latin1, "application/json")
    assert decode(latin1, None) == latin1  # raw data may begin with any byte, a brace too


BAD_PARTS = {
    "object dtype": part(dtype="|O"),
    "object dtype with size": part(dtype="|O8"),
    "object inside": part(dtype={"names": ["a"], "formats": ["|O8"], "offsets": [0], "itemsize": 8}),
    "code as dtype": part(dtype="__import__('os').system('true')"),
    "huge shape": part(shape=[2**61, 2**61]),
    "huge shape with a zero": part(shape=[0, 2**61, 2**61], length=0),
    "negative size": part(shape=[-1]),
    "true as a size": part(shape=[True]),
    "fraction as a size": part(shape=[1.0]),
    "wrong length": part(shape=[2]),
    "length beyond the end": part(length=2**60),
    "length -8": part(length=-8),
    "many elements without bytes": part(dtype="|V0", shape=[2**50], length=0),
    "65 dimensions": part(shape=[1] * 65),
    "field behind the end": part(dtype={"names": ["a"], "formats": ["<f8"], "offsets": [4], "itemsize": 8}),
    "two fields of one name": part(
        dtype={"names": ["a", "a"], "formats": ["<f4", "<f4"], "offsets": [0, 4], "itemsize": 8}
    ),
    "huge element": part(dtype={"base": "<f8", "shape": [2**40]}),
    "element as a shape": part(dtype={"base": "<f4", "shape": [2]}),
    "bad long double": part(dtype={"extended": "<f16", "mantissa_bits": 7}, length=16),
    "bare long double": part(dtype="<f16", length=16),
    "long double of objects": part(dtype={"extended": "|O8", "mantissa_bits": 7}),
    "truth that is no truth": part(dtype="|b1", shape=[8]),
    "characters beyond Unicode": part(dtype="<U2"),
    "unknown order": part(order="A"),
    "scalar with a shape": part(kind="scalar"),
    "unknown kind": part(kind="pickle"),
    "no path": part(path=None),
    "path to nowhere": part(path=["a"]),
    "path into a number": part(path=[0, 0]),
    "float of 7 bytes": part(kind="float", length=7),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused(name: str) -> None:
    survive(BOMBS[name])
    with pytest.raises(DecodeError):
        unpack(BOMBS[name], b"")


@pytest.mark.parametrize("name", BAD_PARTS)
def test_bad_parts_are_refused(name: str) -> None:
    body = binary({"body": None, "parts": [BAD_PARTS[name]]}, b"\xff" * 8)
    survive(body)
    with pytest.raises(DecodeError):
        unpack(body, b"")


def test_the_good_part_beside_the_bad_ones_is_read() -> None:
    message = unpack(binary({"body": None, "parts": [part()]}, struct.pack("<d", 1.5)), b"")
    assert message.value == np.array([1.5])


def test_two_parts_for_one_place() -> None:
    with pytest.raises(DecodeError, match="stands already"):
        unpack(binary({"body": None, "parts": [part(), part()]}, bytes(16)), b"")


@pytest.mark.parametrize("payload", [BOMBS["head too long"], binary({"body": None, "parts": [part(shape=[2**50])]})])
def test_declared_sizes_cost_no_memory(payload: bytes) -> None:
    tracemalloc.start()
    survive(payload)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_a_raised_recursion_limit_does_not_let_bombs_overflow_the_stack() -> None:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000_000)
    try:
        for bomb in ("lists", "objects", "closed lists"):
            with pytest.raises(DecodeError, match="deeper than 128"):
                unpack(BOMBS[bomb], b"")
    finally:
        sys.setrecursionlimit(limit)


NAME_PIECES = ["a", "/", "//", "+", "#", "$", "$share/", "mqtt:", "\0", "\n", "\x7f", " ", "\ud800", "\uffff", "é"]
NAME_PIECES += ["😀", "\u202e", "ether/1/", "data/", "x" * 70, "/" * 250, "y" * 70_000, "\ufdd0", "\u00a0", "-", "."]


def test_hostile_names() -> None:
    rng = random.Random(5)
    topics = SessionTopics("bench")
    for _ in range(examples(10_000)):
        name = "".join(rng.choices(NAME_PIECES, k=rng.randint(0, 4)))
        for check in (check_instance_name, check_session_name, check_topic, check_topic_filter, unix_ms_of):
            try:
                check(name)
            except EtherError as error:
                str(error)
        matches(name, "a/b")
        matches("+/#", name)
        topics.instance_of_state(name)
        topics.user_topic(name)


@pytest.mark.parametrize("name", [None, 5, b"data", ["a"], object()])
def test_names_that_are_no_text(name: object) -> None:
    for check in (check_instance_name, check_session_name, check_topic, check_topic_filter):
        with pytest.raises(EtherError):
            check(name)  # type: ignore[arg-type]
