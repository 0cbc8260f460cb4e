"""10,000 values of every kind cross the codec and both envelopes and arrive the same, to the bit."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lanes import examples
from wire_values import headers, same, values

from ether.wire import (
    EnvelopeTwice,
    EnvelopeV5,
    EnvelopeV311,
    Headers,
    Properties,
    decode,
    encode,
    has_property_headers,
    pack_properties,
    unpack,
    unpack_headers,
    unpack_properties,
)

ENVELOPES = (EnvelopeV5(), EnvelopeV311(), EnvelopeTwice())
VALUES_PER_EXAMPLE = 4
_many = settings(
    max_examples=examples(2500),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@_many
@given(st.lists(values(), min_size=VALUES_PER_EXAMPLE, max_size=VALUES_PER_EXAMPLE), headers())
def test_values_cross_the_codec_and_both_envelopes(batch: list[object], known: Headers) -> None:
    for value in batch:
        body = encode(value)
        assert same(value, decode(body.payload, body.content_type))
        for envelope in ENVELOPES:
            packed = envelope.pack(value, known)
            message = unpack(packed.payload, packed.properties)
            assert message.headers == known
            assert same(value, message.value)
            assert unpack_headers(packed.payload, packed.properties) == known


@_many
@given(values(), headers())
def test_what_carries_its_headers_twice_comes_whole_with_and_without_properties(value: object, known: Headers) -> None:
    """As over a bridge that strips them."""
    packed = EnvelopeTwice().pack(value, known)
    assert has_property_headers(packed.properties)
    for properties in (packed.properties, b""):
        message = unpack(packed.payload, properties)
        assert message.headers == known
        assert same(value, message.value)


@settings(max_examples=examples(500), deadline=None, derandomize=True, database=None)
@given(
    st.builds(
        Properties,
        content_type=st.none() | st.text("abc/+é", max_size=9),
        response_topic=st.none() | st.text("abc/", max_size=9),
        correlation_data=st.none() | st.binary(max_size=9),
        message_expiry_s=st.none() | st.integers(0, 0xFFFFFFFF),
        user=st.lists(st.tuples(st.text("añ", max_size=3), st.text("b€", max_size=300)), max_size=4).map(tuple),
    )
)
def test_properties_come_back(properties: Properties) -> None:
    assert unpack_properties(pack_properties(properties)) == properties


@_many
@given(values(), headers())
def test_the_body_of_a_packed_message_is_what_encode_makes(value: object, known: Headers) -> None:
    for envelope in ENVELOPES:
        assert envelope.body(envelope.pack(value, known), value) == encode(value)
