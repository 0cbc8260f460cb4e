"""Bodies that were packed before, as a recording has them, go out again: the same bytes, or at least the same value."""

from __future__ import annotations

import pytest

from ether.errors import DecodeError
from ether.wire import EnvelopeV5, EnvelopeV311, Headers, unpack, unpack_properties
from ether.wire.codec import JSON, OCTETS, Body, decode, encode
from ether.wire.head import REPLAY

HEADERS = Headers("018bcfe5-6800-7000-8000-0002dfdc1c35", "cam1", 5, 1736989362.765123)
BODIES = [
    Body(b'{ "a": 1.50 }', JSON),
    Body(b'{"a": 1}', "application/json; charset=utf-8"),
    Body(b"[1,2]", JSON),
    Body(b"42", None),
    Body(b"ON", "text/plain"),
    Body(b"\xff\0", OCTETS),
    Body(b"\1\2", "image/x-raw"),
    Body(b"", None),
    encode({"a": b"raw", "b": float("nan")}),
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body.payload[:8]))
def test_over_mqtt_5_the_bytes_and_the_content_type_are_the_same(body: Body) -> None:
    packed = EnvelopeV5().pack(body, HEADERS)
    assert packed.payload == body.payload
    assert unpack_properties(packed.properties).content_type == body.content_type
    assert unpack(packed.payload, packed.properties).headers == HEADERS
    assert repr(unpack(packed.payload, packed.properties).value) == repr(decode(*body))


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body.payload[:8]))
def test_over_mqtt_3_the_value_is_the_same(body: Body) -> None:
    packed = EnvelopeV311().pack(body, HEADERS)
    assert (
        repr(unpack(packed.payload, packed.properties).value),
        unpack(packed.payload, packed.properties).headers,
    ) == (repr(decode(*body)), HEADERS)


def test_over_mqtt_3_a_body_that_is_none_is_refused() -> None:
    with pytest.raises(DecodeError):
        EnvelopeV311().pack(Body(b"{", JSON), HEADERS)


def test_a_replay_says_of_what() -> None:
    assert HEADERS.replay_of is None
    assert HEADERS._replace(parents=("first", "second")).replay_of is None
    assert HEADERS._replace(schema=REPLAY).replay_of is None
    assert HEADERS._replace(schema=REPLAY, parents=("first", "second")).replay_of == "first"
