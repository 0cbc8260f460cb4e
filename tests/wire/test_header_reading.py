"""Headers in MQTT 5 properties are read in two ways: what Ether writes at one look, all else property by property.

Whatever stands in a section, both ways find the same, or the same is wrong with it.
"""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from ether.errors import DecodeError
from ether.wire import Headers, unpack_properties
from ether.wire import head as wire_head
from ether.wire.head import headers_from_properties, pack_headers, pack_text, read_headers

JSON = b"\x03\x00\x10application/json"
ID = "018bcfe5-6800-7000-8000-0002dfdc1c35"
PLAIN = Headers(ID, "camera1", 5, 1736989362.765123)
REPLY = "ether/1/bench/reply/main-2"
REQUEST = PLAIN._replace(
    traceparent=f"00-{ID.replace('-', '')}-{ID.replace('-', '')[16:]}-01", reply_to=REPLY, correlation=b"c" * 16,
    expiry_s=2.5,
)  # fmt: skip
OURS = {
    "plain": PLAIN,
    "caused": PLAIN._replace(parents=(ID,)),
    "a request": REQUEST,
    "a request behind messages": REQUEST._replace(after='{"data":7}', parents=(ID,)),
    "an answer": PLAIN._replace(parents=(ID,), correlation=b"\x00" * 16),
}
PIECES = [
    JSON, b"\x03\x00\x18application/octet-stream", b"\x03\x00\x10application/octet-stream", b"\x0b\x05",
    b"\x0b\x80\x01", b"\x0b\x80", b"&", b"\x00", b"\x02\x00\x00\x00\x05", b"\x08\x00\x03a/b",
    b"\x08\x00\x01#", b"\x09\x00\x02ab",
    pack_text(b"&\x00\x02id", ID), pack_text(b"&\x00\x06source", "x"), pack_text(b"&\x00\x06parent", ID),
    pack_text(b"&\x00\x03seq", "007"), pack_text(b"&\x00\x04time", "1.2.3"), pack_text(b"&\x00\x04time", "."),
    pack_text(b"&\x00\x06expiry", "1.5"), pack_text(b"&\x00\x06expiry", "..5"), pack_text(b"&\x00\x05after", "{}"),
    b"&\x00\x06source\x00\x03a\x00b", b"&\x00\x06source\x00\x02\xc3\x28", pack_text(b"&\x00\x06source", "mösß"),
    pack_text(b"&\x00\x05other", "&"), b"\x01\x01",
]  # fmt: skip


SENT = [
    *OURS.values(),
    PLAIN._replace(source="Kamera ß", seq=2**63 - 1, time=1e-7, parents=(ID, ID, "x")),
    REQUEST._replace(schema="ether/later", origin="trial 5", reply_to="ä" * 100, expiry_s=1e16, correlation=b""),
    PLAIN._replace(error="ValueError", parents=(ID,), source="s" * 128),
]


def outcome(section: bytes, *, quick: bool) -> str | tuple[str | None, Headers | None]:
    try:
        if quick:
            return read_headers(section)
        properties = unpack_properties(section)
        return properties.content_type, headers_from_properties(properties)
    except DecodeError as error:
        return str(error)


def harmed(section: bytes, lots: random.Random) -> bytes:
    """The section with something put in or left out, mostly where one property ends and the next one begins."""
    for _ in range(lots.randrange(4)):
        starts = [0, len(section), *(found.start() for found in re.finditer(rb"[&\x08\x09\x02\x03]\x00", section))]
        at = lots.choice(starts) if lots.random() < 0.8 else lots.randint(0, len(section))
        piece = lots.choice(PIECES) if lots.random() < 0.8 else lots.randbytes(lots.randrange(4))
        section = section[:at] + piece + section[at + lots.choice([0, 0, 1, len(piece)]) :]
    return section


def test_both_ways_find_the_same() -> None:
    lots, found = random.Random(1), Counter[str]()
    for _ in range(5_000):
        section = harmed(pack_headers(lots.choice(SENT), lots.choice([b"", JSON])), lots)
        quick = outcome(section, quick=True)
        assert quick == outcome(section, quick=False), section
        found["refused" if isinstance(quick, str) else "foreign" if quick[1] is None else "ours"] += 1
    assert len(found) == 3
    assert min(found.values()) > 30


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("number", [b"", b"\x0b\x07", b"\x0b\x87\x01"])
def test_what_ether_writes_is_read_at_one_look(name: str, number: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def unexpected(section: bytes) -> None:
        raise AssertionError(f"property by property: {section!r}")

    monkeypatch.setattr(wire_head, "unpack_properties", unexpected)
    assert read_headers(number + pack_headers(OURS[name], JSON)) == ("application/json", OURS[name])


def test_a_message_expiry_that_a_broker_wrote_behind_everything_is_read() -> None:
    section = pack_headers(REQUEST, JSON)
    at = section.index(b"\x02\x00\x00\x00\x03&")
    moved = section[:at] + section[at + 5 :] + b"\x02\x00\x00\x00\x01"
    assert read_headers(moved) == ("application/json", REQUEST)


def test_what_is_remembered_is_bounded() -> None:
    for number in range(5000):
        sent = PLAIN._replace(source=f"source {number}", reply_to=f"reply/{number}", correlation=b"c" * 16)
        assert read_headers(pack_headers(sent, JSON))[1] == sent
    for remembered in (wire_head._packed, wire_head._read_texts, wire_head._read_topics):
        assert 0 < len(remembered) <= wire_head._KNOWN
