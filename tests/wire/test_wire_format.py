"""The bytes on the wire, written out: a change here is a change of the protocol. And the rules for strangers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ether.errors import DecodeError, EncodeError
from ether.wire import (
    EnvelopeV5,
    EnvelopeV311,
    Headers,
    Properties,
    Unpacked,
    decode,
    pack_properties,
    unpack,
    unpack_headers,
    unpack_properties,
)
from ether.wire.envelope import looks_like_ethers

ID = "018bcfe5-6800-7000-8000-0002dfdc1c35"
SHORT = Headers(ID, "cam1", 5, 1736989362.765123)
FULL = Headers(ID, "cam1", 5, 2.5, ("p1", "p2"), "s", "t", "r/x", b"\x01\xff", 1.5, "Oops")
VALUE = {"data": 5, "ä": [1.5, None]}
MIXED = {"n": -math.inf, "b": b"xyz", "a": np.array([[1, 2], [3, 4]], ">u2", order="F")}

USER = b"&\x00\x02id\x00\x24" + ID.encode() + b"&\x00\x06source\x00\x04cam1&\x00\x03seq\x00\x015&\x00\x04time"
JSON_TYPE = b"\x03\x00\x10application/json"
HEAD = (
    b'"body":{"n":null,"b":null,"a":null},"parts":['
    b'{"path":["n"],"kind":"float","length":8},'
    b'{"path":["b"],"kind":"bytes","length":3},'
    b'{"path":["a"],"kind":"array","length":8,"dtype":">u2","shape":[2,2],"order":"F"}]}'
)
PARTS = b"\0\0\0\0\0\0\xf0\xff" + b"xyz" + b"\0" * 5 + b"\0\1\0\3\0\2\0\4"
FIELDS = b'"_ether":{"id":"' + ID.encode() + b'","source":"cam1","seq":5,"time":1736989362.765123'


def binary(head: bytes) -> bytes:
    length = len(head).to_bytes(4, "little")
    return b"\x93ETH\x01\0\0\0" + length + head + bytes(-(12 + len(head)) % 8) + PARTS


GOLDEN_V5 = [
    (VALUE, SHORT, b'{"data":5,"\xc3\xa4":[1.5,null]}', JSON_TYPE + USER + b"\x00\x111736989362.765123"),
    (None, SHORT, b"", USER + b"\x00\x111736989362.765123"),
    (b"\x01", SHORT, b"\x01", b"\x03\x00\x18application/octet-stream" + USER + b"\x00\x111736989362.765123"),
    (
        MIXED,
        SHORT,
        binary(b"{" + HEAD),
        b"\x03\x00\x1capplication/vnd.ether.binary" + USER + b"\x00\x111736989362.765123",
    ),
    (
        "ON",
        FULL,
        b'"ON"',
        JSON_TYPE + USER + b"\x00\x032.5&\x00\x06parent\x00\x02p1&\x00\x06parent\x00\x02p2&\x00\x06schema\x00\x01s"
        b"&\x00\x0btraceparent\x00\x01t&\x00\x05error\x00\x04Oops\x08\x00\x03r/x\x09\x00\x02\x01\xff"
        b"\x02\x00\x00\x00\x02&\x00\x06expiry\x00\x031.5",
    ),
]
GOLDEN_V311 = [
    (VALUE, SHORT, b'{"data":5,"\xc3\xa4":[1.5,null],' + FIELDS + b"}}"),
    ({}, SHORT, b"{" + FIELDS + b"}}"),
    (None, SHORT, b'{"root":null,' + FIELDS + b',"root":true}}'),
    ([1], SHORT, b'{"root":[1],' + FIELDS + b',"root":true}}'),
    (MIXED, SHORT, binary(b"{" + FIELDS + b"}," + HEAD)),
    (
        "ON",
        FULL,
        b'{"root":"ON","_ether":{"id":"' + ID.encode() + b'","source":"cam1","seq":5,"time":2.5,"parents":["p1","p2"],'
        b'"schema":"s","traceparent":"t","error":"Oops","reply_to":"r/x","correlation":"01ff","expiry_s":1.5,'
        b'"root":true}}',
    ),
]


@pytest.mark.parametrize(("value", "headers", "payload", "properties"), GOLDEN_V5)
def test_golden_bytes_of_mqtt_5(value: object, headers: Headers, payload: bytes, properties: bytes) -> None:
    packed = EnvelopeV5().pack(value, headers)
    assert packed.payload == payload
    assert packed.properties == properties
    assert repr(unpack(payload, properties)) == repr(Unpacked(value, headers))


@pytest.mark.parametrize(("value", "headers", "payload"), GOLDEN_V311)
def test_golden_bytes_of_mqtt_311(value: object, headers: Headers, payload: bytes) -> None:
    packed = EnvelopeV311().pack(value, headers)
    assert packed.payload == payload
    assert packed.properties == b""
    assert repr(unpack(payload, b"")) == repr(Unpacked(value, headers))


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        (b"", None),
        (b'{"data": 5}', {"data": 5}),
        (b'\xef\xbb\xbf{"data": 5}\r\n', {"data": 5}),
        (b"42", 42),
        (b"-1.5e3", -1500.0),
        (b"true", True),
        (b"null", None),
        (b'"ON"', "ON"),
        (b"ON", "ON"),
        (b"21.5 \xc2\xb0C", "21.5 °C"),
        (b"  ", "  "),
        (b"-", "-"),
        (b"[-Infinity]", [-math.inf]),
        (b"\xff\xd8\xff\xe0", b"\xff\xd8\xff\xe0"),
        (b'{"a":1,"a":2}', {"a": 2}),
        (b'{"id":"x","source":"y","seq":1,"time":0}', {"id": "x", "source": "y", "seq": 1, "time": 0}),
    ],
)
def test_strangers_are_welcome(payload: bytes, value: object) -> None:
    assert unpack(payload, b"") == Unpacked(value, None)


def test_a_strangers_nan() -> None:
    assert math.isnan(unpack(b"NaN", b"").value)  # type: ignore[arg-type]
    with pytest.raises(DecodeError, match="NaN is not JSON"):
        decode(b'{"a":NaN}', "application/json")


@pytest.mark.parametrize("payload", [b"{", b'{"a":5', b"[1,]", b'"ON', b" {data: 5}", b'{"a":1} x'])
def test_what_begins_like_json_must_be_json(payload: bytes) -> None:
    with pytest.raises(DecodeError, match="not valid JSON at line 1 column"):
        unpack(payload, b"")


@pytest.mark.parametrize(
    ("content_type", "value"),
    [
        ("text/plain", "42"),
        ("application/json", 42),
        ("Application/JSON; charset=utf-8", 42),
        ("application/senml+json", 42),
        ("application/octet-stream", b"42"),
        ("image/png", b"42"),
    ],
)
def test_a_strangers_content_type_decides(content_type: str, value: object) -> None:
    assert unpack(b"42", pack_properties(Properties(content_type=content_type))) == Unpacked(value, None)
    with pytest.raises(DecodeError) if "json" in content_type.lower() else pytest.MonkeyPatch.context():
        decode(b"ON", content_type)


@pytest.mark.parametrize(
    "user",
    [
        {"id": "x"},
        {"id": "x", "source": "y", "seq": "one", "time": "0"},
        {"id": "x", "source": "y", "seq": "1", "time": "nan"},
    ],
)
def test_user_properties_of_strangers_are_not_taken_for_headers(user: dict[str, str]) -> None:
    properties = pack_properties(Properties(user=tuple(user.items())))
    assert unpack(b"1", properties) == Unpacked(1, None)


def test_the_reserved_key_is_refused_where_it_is_not_ethers() -> None:
    for payload in (b'{"_ether":null}', b'{"_ether":{"id":"a"},"x":1}', b'{"x":1,"_ether":"mine"}'):
        with pytest.raises(DecodeError, match="_ether"):
            unpack(payload, b"")


def test_headers_of_a_broken_body_can_still_be_reported() -> None:
    for envelope in (EnvelopeV5(), EnvelopeV311()):
        packed = envelope.pack({"x": 1}, FULL)
        broken = packed.payload.replace(b'"x":1', b'"x":?')
        with pytest.raises(DecodeError, match="line 1 column 6"):
            unpack(broken, packed.properties)
        assert unpack_headers(broken, packed.properties) == FULL
    cut = EnvelopeV311().pack(MIXED, FULL).payload[:-1]
    with pytest.raises(DecodeError, match="breaks off: 1 bytes are missing"):
        unpack(cut, b"")
    assert unpack_headers(cut, b"") == FULL


def test_properties_that_ether_does_not_use_are_stepped_over() -> None:
    others = bytes.fromhex(
        "0101 0b8001 0b01 110000000a 12000161 130005 15000162 16000163 1701 1800000001 1901 1a000164 1c000165"
        " 1f000166 210001 220001 230001 2401 2501 2700000001 2801 2901 2a01"
    )
    assert unpack_properties(others + JSON_TYPE + others[:0]) == Properties(content_type="application/json")


@pytest.mark.parametrize(
    "section",
    [
        "00",
        "7f",
        "03",
        "0300",
        "030002 61",
        "0200",
        "2600016100",
        "26000161",
        "0bffffffff01",
        "0bff",
        "01010101",
        "03000161 03000161",
        "030001ff",
        "2600 01ff 0000",
        "2600 0100 0000",
        "0300 0100",
        "2600",
    ],
)
def test_malformed_properties_are_refused(section: str) -> None:
    with pytest.raises(DecodeError, match="MQTT"):
        unpack_properties(bytes.fromhex(section))


@pytest.mark.parametrize(
    "properties",
    [
        Properties(message_expiry_s=-1),
        Properties(message_expiry_s=1 << 32),
        Properties(correlation_data=bytes(65_536)),
        Properties(content_type="x" * 65_536),
        Properties(user=(("a", "\0"),)),
        Properties(response_topic="\ud800"),
    ],
)
def test_properties_that_mqtt_cannot_carry_are_refused(properties: Properties) -> None:
    with pytest.raises(EncodeError):
        pack_properties(properties)


@pytest.mark.parametrize("value", [{"n": 1}, [1, 2], "text", b"bytes", None])
@pytest.mark.parametrize("parents", [0, 1, 400, 1000])
def test_what_is_made_of_hundreds_is_still_seen_to_be_ethers(value: object, parents: int) -> None:
    """Else it would be recorded as a stranger's, beside the record of its source."""
    known = tuple(f"01a22b38-2e58-7000-8538-{n:012x}" for n in range(parents))
    headers = Headers("01a22b38-2e58-7000-8538-7b2a12400000", "cam", 7, 1.5, known)
    for envelope in (EnvelopeV5(), EnvelopeV311()):
        assert looks_like_ethers(*envelope.pack(value, headers)[:2])
    assert not looks_like_ethers(b'{"n": {"m": 1}}', b"")
