"""What can be sent, what it becomes, and how the rest is refused."""

from __future__ import annotations

import datetime
import decimal
import enum
import pathlib
import subprocess
import sys
import threading
import types
import uuid
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pydantic
import pytest
from patience import patience
from wire_values import same

from ether.errors import DecodeError, EncodeError
from ether.wire import EnvelopeV5, EnvelopeV311, Headers, decode, encode, unpack

HEADERS = Headers("id", "camera", 1, 0.0)
Point = namedtuple("Point", "x y")


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Mode(str, enum.Enum):  # noqa: UP042 (StrEnum is younger than many users' classes)
    FAST = "fast"


@dataclass
class Frame:
    shared: ClassVar[int] = 1
    pixels: Any
    at: datetime.datetime


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    image: Any
    when: datetime.date
    inner: list[Frame] = []


def there_and_back(value: object) -> object:
    body = encode(value)
    return decode(body.payload, body.content_type)


UTC = datetime.UTC
CONVERTED = [
    ((1, (2, 3)), [1, [2, 3]]),
    (Point(1, 2), {"x": 1, "y": 2}),
    ({5}, [5]),
    (frozenset({"a"}), ["a"]),
    ({1: "a", -2: "b"}, {"1": "a", "-2": "b"}),
    ({np.int64(3): 1}, {"3": 1}),
    ({Mode.FAST: 1}, {"fast": 1}),
    (OrderedDict(a=1), {"a": 1}),
    (Colour.RED, "red"),
    (Level.HIGH, 3),
    ({"mode": Mode.FAST}, {"mode": "fast"}),
    (datetime.datetime(2026, 1, 2, 3, 4, 5, 678, UTC), "2026-01-02T03:04:05.000678+00:00"),
    (datetime.date(2026, 1, 2), "2026-01-02"),
    (datetime.time(3, 4), "03:04:00"),
    (datetime.timedelta(minutes=1, microseconds=5), 60.000005),
    (decimal.Decimal("1.10"), "1.10"),
    (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    (pathlib.PurePosixPath("/a/b"), "/a/b"),
    ([np.float32(0.5), np.int8(-3), np.True_], [0.5, -3, True]),
    (np.float64(0.1), 0.1),
    ([np.complex64(1 + 2j)], [1 + 2j]),
    ([np.str_("a"), np.bytes_(b"b")], ["a", b"b"]),
    (types.MappingProxyType({"a": 1}), {"a": 1}),
    (bytearray(b"ab"), b"ab"),
    (memoryview(b"abcd")[::2], b"ac"),
    ({"m": memoryview(np.arange(3, dtype="<i2"))}, {"m": bytes([0, 0, 1, 0, 2, 0])}),
    (Frame([1], datetime.datetime(2026, 1, 1)), {"pixels": [1], "at": "2026-01-01T00:00:00"}),
]


@pytest.mark.parametrize(("sent", "arrives"), CONVERTED, ids=lambda value: type(value).__name__)
def test_conversions(sent: object, arrives: object) -> None:
    assert same(there_and_back(sent), arrives)
    for envelope in (EnvelopeV5(), EnvelopeV311()):
        packed = envelope.pack({"value": sent}, HEADERS)
        assert same(unpack(packed.payload, packed.properties).value, {"value": arrives})


def test_arrays_inside_models_and_dataclasses_survive() -> None:
    pixels = np.arange(6.0).reshape(2, 3)
    model = Model(image=pixels, when=datetime.date(2026, 1, 1), inner=[Frame(pixels, datetime.datetime(2026, 1, 1))])
    arrived = there_and_back([model])
    inner = {"pixels": pixels, "at": "2026-01-01T00:00:00"}
    assert same([{"image": pixels, "when": "2026-01-01", "inner": [inner]}], arrived)


def test_a_handler_may_change_an_array_in_place() -> None:
    sent = np.arange(4.0)
    sent.flags.writeable = False
    arrived = there_and_back(sent)
    assert isinstance(arrived, np.ndarray)
    arrived *= 2
    assert arrived.tolist() == [0, 2, 4, 6]


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
@pytest.mark.parametrize("kind", [np.matrix, np.recarray, np.memmap])
def test_numpys_own_subclasses_become_arrays(kind: type, tmp_path: pathlib.Path) -> None:
    made = {
        np.matrix: lambda: np.asmatrix(np.eye(2)),
        np.recarray: lambda: np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        np.memmap: lambda: np.memmap(tmp_path / "m", "f8", "w+", shape=(3,)),
    }[kind]()
    arrived = there_and_back({"a": made})
    assert isinstance(arrived, dict)
    assert type(arrived["a"]) is np.ndarray
    assert arrived["a"].tolist() == made.tolist()


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


def cycle() -> object:
    value: dict[str, object] = {"a": {}}
    value["a"] = {"b": [value]}
    return value


class Quantity(np.ndarray):
    """As in unit packages: more than its numbers."""


REFUSED = [
    (object(), "the value: an object of type object cannot travel"),
    ({"a": [0, {"b": len}]}, r"a\[1\]\.b: an object of type builtin_function"),
    ({"g": (i for i in ())}, "g: an object of type generator"),
    ({"odd key": {"é": threading.Lock()}}, r"\['odd key'\]\.é: an object of type _thread.lock"),
    ({"f": sys.stdout}, "f: an object of type"),
    ({"c": Frame}, "c: an object of type type"),
    ({"m": sys}, "m: an object of type module"),
    ({"images": [1, 2, 3, {"mask": np.array([None])}]}, r"images\[3\]\.mask: an array of Python objects"),
    (np.zeros(2, [("a", "O")]), "array of Python objects"),
    (np.ma.masked_array([1, 2], [True, False]), "masked array would lose its mask"),
    (np.zeros(2).view(Quantity), "a Quantity is more than its numbers"),
    (np.zeros(2_000_000, "V0"), "without any bytes"),
    ({(1, 2): 3}, r"key \(1, 2\) is an object of type tuple; keys must be text"),
    ({True: 3}, "key True is an object of type bool"),
    ({1.5: 3}, "key 1.5 is an object of type float"),
    ({None: 3}, "key None"),
    ({b"a": 3}, "key b'a'"),
    ({"a": {1: 0, "1": 0}}, "a: two of its keys become '1'"),
    ({"_ether": 1}, "_ether: this key is reserved"),
    ({"_ether": np.zeros(1)}, "_ether: this key is reserved"),
    ([10**4300], r"\[0\]: an integer of more than 4300 digits"),
    ({"a": -(10**5000)}, "a: an integer"),
    ({10**5000: 1}, "an integer of more than 4300 digits"),
    (cycle(), r"a\.b\[0\]: it contains itself"),
    (nested(101), "it nests deeper than 100 levels"),
    (nested(100_000), "it nests deeper than 100 levels"),
    ([np.zeros(1), nested(100)], "it nests deeper than 100 levels"),
]


if hasattr(np.dtypes, "StringDType"):  # NumPy 2
    REFUSED.append((np.array(["a"], dtype=np.dtypes.StringDType()), "an array of"))


@pytest.mark.parametrize(("value", "message"), REFUSED, ids=[message[:30] for _, message in REFUSED])
def test_what_cannot_be_sent_is_refused_by_name(value: object, message: str) -> None:
    for pack in (encode, lambda v: EnvelopeV5().pack(v, HEADERS), lambda v: EnvelopeV311().pack(v, HEADERS)):
        with pytest.raises(EncodeError, match=message):
            pack(value)


def test_the_limits_themselves_are_allowed() -> None:
    for envelope in (EnvelopeV5(), EnvelopeV311()):
        for value in (nested(100), 10**4300 - 1, {"x": [np.zeros(1), nested(98)]}, {"a": {"_ether": 1}}):
            packed = envelope.pack(value, HEADERS)
            assert same(value, unpack(packed.payload, packed.properties).value)


def test_the_same_object_twice_is_no_cycle() -> None:
    twice = {"a": np.zeros(1)}
    assert same([twice, twice], there_and_back([twice, twice]))


def test_headers_that_do_not_fit_are_refused() -> None:
    for bad in ({"source": ""}, {"source": "a\0"}, {"error": "x" * 16_001}, {"expiry_s": -1.0}, {"parents": ("",)}):
        fields: dict[str, Any] = {"id": "i", "source": "s", "seq": 1, "time": 0.0, **bad}
        for envelope in (EnvelopeV5(), EnvelopeV311()):
            with pytest.raises(EncodeError, match="headers"):
                envelope.pack(1, Headers(**fields))


def test_an_array_without_numpy_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    body = encode(np.zeros(2))
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(DecodeError, match=r"pip install 'ether-medium\[numpy\]'"):
        decode(body.payload, body.content_type)


def test_importing_and_plain_messages_load_no_numpy() -> None:
    code = "import sys, ether.wire as w; w.encode({'a': [1, b'x', 2j]}); assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=patience(60))
