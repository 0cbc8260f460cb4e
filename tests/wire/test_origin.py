"""The origin of a message: its text, what strangers may send in its place, and what old messages say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ether.wire.envelope import EnvelopeV5, EnvelopeV311, unpack
from ether.wire.head import Headers
from ether.wire.origin import REPLAYED, TrialOrigin, descends_from_replay, read, replayed, text_of

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters="+#/$"), min_size=1)
NUMBERS = st.integers(0, 10**9)
ORIGINS = st.builds(TrialOrigin, st.builds("{}/{}".format, NAMES, NUMBERS), NUMBERS, NUMBERS, st.booleans()).map(
    lambda origin: origin._replace(onto_devices=origin.replayed and origin.onto_devices)
)
ID = "018bcfe5-6800-7000-8000-0002dfdc1c35"


@given(ORIGINS)
def test_an_origin_is_read_as_it_was_written(origin: TrialOrigin) -> None:
    text = text_of(origin)
    assert read(text) == origin
    assert descends_from_replay(text) == origin.replayed
    assert read(replayed(text)) == origin._replace(replayed=True)
    assert replayed(replayed(text)) == replayed(text)


@given(st.text())
def test_any_other_text_says_nothing_and_breaks_nothing(text: str) -> None:
    found = read(text)
    assert found.run is None or text_of(found) is not None


@pytest.mark.parametrize(
    "text", ["", "scan", "scan/1", "scan/1/2", "scan/1/x/1", "scan/1/-2/1", "/1/2/3", "scan/1/٣/1"]
)
def test_what_is_no_trial_is_none(text: str) -> None:
    assert read(text) == TrialOrigin()


def test_what_has_no_origin() -> None:
    assert text_of(TrialOrigin()) is None
    assert read(None) == TrialOrigin()
    assert text_of(TrialOrigin(replayed=True)) == REPLAYED


@pytest.mark.parametrize("envelope", [EnvelopeV5(), EnvelopeV311()])
def test_it_costs_nothing_where_there_is_none(envelope: EnvelopeV5 | EnvelopeV311) -> None:
    without = envelope.pack({"a": 1}, Headers(ID, "cam1", 5, 2.5))
    assert b"origin" not in without.payload + without.properties
    with_one = envelope.pack({"a": 1}, Headers(ID, "cam1", 5, 2.5, origin="scan/1/12/1"))
    assert len(with_one.payload + with_one.properties) - len(without.payload + without.properties) <= 25
    assert unpack(*with_one[:2]).headers == Headers(ID, "cam1", 5, 2.5, origin="scan/1/12/1")
    assert unpack(*without[:2]).headers == Headers(ID, "cam1", 5, 2.5)
