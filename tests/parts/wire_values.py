"""Values and headers for the wire's property tests, and what it means that two of them are the same."""

from __future__ import annotations

import math
import struct

import numpy as np
from hypothesis import strategies as st

from ether.wire import Headers, MessageIds

_IDS = MessageIds(20_260_101)

SIMPLE = "? b B <h >h <i >I <q >Q <e >e <f >f <d >d <F >F <D >D g G S3 V5 <U2 >U4 <M8[ns] >M8[25s] <m8[us] <M8"
DTYPES = [
    np.dtype(spec, align=align)  # type: ignore[call-overload]
    for spec, align in [
        *((text, False) for text in SIMPLE.split()),
        ([("a", "<i4"), ("b", ">f8")], False),
        ([("a", "i1"), ("b", "<f8"), ("c", "i1")], True),
        ([("x", [("y", "<c8"), ("z", "S2")]), ("w", "<u2", (2, 3))], False),
        ({"names": ["p", "q"], "formats": ["<i2", "<f4"], "offsets": [4, 12], "itemsize": 24}, False),
        ([(("a title", "name"), "<f8")], False),
        ([("größe", "<f4"), ("with space", "<i8")], False),
        ([], False),
    ]
]


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    dtype = draw(st.sampled_from(DTYPES))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
    size = math.prod(shape) * dtype.itemsize
    raw = draw(st.binary(min_size=min(size, 64), max_size=min(size, 64)))
    data = bytearray((raw * (size // max(len(raw), 1) + 1))[:size])
    if dtype.kind == "b":
        data = bytearray(byte & 1 for byte in data)
    if dtype.kind == "U":
        points = np.frombuffer(data, "<u4") % 0x110000
        data = bytearray(points.astype(np.dtype("u4").newbyteorder(dtype.byteorder)).tobytes())
    order = draw(st.sampled_from("CF"))
    array = np.ndarray(shape, dtype, buffer=data if size else None, order=order)
    if dtype.names is None and draw(st.integers(0, 5)) == 0:
        array = array[::-2] if array.ndim else array  # neither C nor Fortran order: a view with strides
    return array


def scalars() -> st.SearchStrategy[object]:
    any_text = st.text(st.characters(exclude_categories=()), max_size=12)
    special = [np.datetime64("2026-01-01T12:00", "ns"), np.timedelta64(5, "h"), np.longdouble("0.1")]
    return st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-(10**60), 10**60),
        st.floats(),
        st.binary(min_size=6, max_size=6).map(lambda bits: struct.unpack("<d", bits + b"\xf8\xff")[0]),  # NaNs
        any_text,
        st.binary(max_size=40),
        st.complex_numbers(),
        arrays(),
        st.sampled_from(special),
    )


def values() -> st.SearchStrategy[object]:
    """Values that arrive exactly as they were sent."""
    keys = st.text(st.characters(exclude_categories=()), max_size=6) | st.sampled_from(["root", "body", "parts", "id"])
    nested = st.recursive(
        scalars(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=8,
    )
    return nested.filter(lambda value: not (isinstance(value, dict) and "_ether" in value))


@st.composite
def headers(draw: st.DrawFn) -> Headers:
    text = st.text(st.characters(exclude_categories=("Cc", "Cs", "Cn")), min_size=1, max_size=20)
    full = draw(st.booleans())

    def maybe(strategy: st.SearchStrategy[object]) -> object:
        return draw(strategy) if full else None

    return Headers(
        id=_IDS.next(1_767_225_600_000),
        source=draw(text),
        seq=draw(st.integers(1, 2**63 - 1)),
        time=draw(st.floats(0, 1e11)),
        parents=tuple(_IDS.next(1_767_225_600_000) for _ in range(draw(st.integers(0, 3)))),
        schema=maybe(text),  # type: ignore[arg-type]
        traceparent=maybe(st.just("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")),  # type: ignore[arg-type]
        reply_to=maybe(st.just("ether/1/bench/reply/me")),  # type: ignore[arg-type]
        correlation=maybe(st.binary(max_size=30)),  # type: ignore[arg-type]
        expiry_s=maybe(st.floats(0, 1e10)),  # type: ignore[arg-type]
        error=maybe(text),  # type: ignore[arg-type]
    )


def same(sent: object, arrived: object) -> bool:
    """Equal in type and in every bit, NaN included; arrays in dtype, shape and order, too."""
    if type(sent) is not type(arrived):
        return False
    if isinstance(sent, dict) and isinstance(arrived, dict):
        return list(sent) == list(arrived) and all(same(item, arrived[key]) for key, item in sent.items())
    if isinstance(sent, list) and isinstance(arrived, list):
        return len(sent) == len(arrived) and all(map(same, sent, arrived))
    if isinstance(sent, np.ndarray) and isinstance(arrived, np.ndarray):
        return _same_array(sent, arrived)
    if isinstance(sent, np.generic) and isinstance(arrived, np.generic):
        return sent.dtype == arrived.dtype and bool(sent == arrived)
    if isinstance(sent, float):
        return struct.pack("<d", sent) == struct.pack("<d", arrived)
    if isinstance(sent, complex) and isinstance(arrived, complex):
        return same(sent.real, arrived.real) and same(sent.imag, arrived.imag)
    return sent == arrived


def _same_array(sent: np.ndarray, arrived: np.ndarray) -> bool:
    strided = not (sent.flags.c_contiguous or sent.flags.f_contiguous)
    return (
        sent.dtype == arrived.dtype
        and sent.dtype.fields == arrived.dtype.fields
        and sent.dtype.isalignedstruct == arrived.dtype.isalignedstruct
        and sent.shape == arrived.shape
        and (strided or sent.flags.f_contiguous == arrived.flags.f_contiguous)
        and arrived.flags.c_contiguous >= (sent.flags.c_contiguous or strided)
        and arrived.flags.writeable
        and arrived.flags.owndata
        and sent.tobytes("C" if strided else "A") == arrived.tobytes("A")
    )
