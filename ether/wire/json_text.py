"""JSON as Ether writes and reads it: strict, UTF-8, never deeper than a limit.

Promises: `dumps()` writes no NaN or Infinity. `loads()` takes time proportional to the text's length, and raises
nothing but `DecodeError`.

The trap: Python's parser recurses. A short body of brackets makes it raise RecursionError or, where a program has
raised the recursion limit, overflows the C stack and kills the process. So the depth is measured before parsing.
"""

from __future__ import annotations

import json
import json.encoder
from collections.abc import Callable
from itertools import accumulate
from typing import Any

from ether.errors import DecodeError

MAX_DEPTH = 100
"""How deep a value that is sent may nest: lists and dicts inside one another."""

# More than MAX_DEPTH: the envelope of 3.1.1 and the head of a binary body add levels of their own.
READ_MAX_DEPTH = 128

_BRACKETS = b"[]{}"
_NOT_BRACKETS = bytes(set(range(256)) - set(_BRACKETS))
_STEPS = bytes.maketrans(_BRACKETS, b"\x01\xff\x01\xff")  # as signed bytes: one level in, one level out


def _writer(*, ensure_ascii: bool) -> Callable[[object], str]:
    """A compact JSON encoder. `json.JSONEncoder.encode` makes a new C encoder for each value, which takes longer than
    encoding a small value; here it is made once, where this Python has one."""
    encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, allow_nan=False, check_circular=False, separators=(",", ":"))
    make: Callable[..., Any] | None = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return encoder.encode
    quote = json.encoder.encode_basestring_ascii if ensure_ascii else json.encoder.encode_basestring
    pieces = make(None, encoder.default, quote, None, ":", ",", False, False, False)
    return lambda value: "".join(pieces(value, 0))


_utf8 = _writer(ensure_ascii=False)
_ascii = _writer(ensure_ascii=True)


def dumps(value: object) -> bytes:
    """Compact JSON of plain values (see `ether.wire.values`); `ValueError` for NaN, infinity and over-long ints."""
    try:
        return _utf8(value).encode()
    except UnicodeEncodeError:  # lone surrogates, as in undecodable file names, travel as \udcXX
        return _ascii(value).encode()


def _refuse_constant(token: str) -> object:
    raise DecodeError(f"{token} is not JSON; Ether itself sends such numbers in a binary body")


_lenient = json.JSONDecoder()
_strict = json.JSONDecoder(parse_constant=_refuse_constant)


def loads(text: str, *, strict: bool) -> object:
    """The value of a JSON text. `strict` refuses the tokens NaN, Infinity and -Infinity. Raises
    `DecodeError`; for bad syntax its cause is the `json.JSONDecodeError`."""
    _check_depth(text)
    try:
        return _read(_strict if strict else _lenient, text)
    except DecodeError:
        raise
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise DecodeError(f"the body is not valid JSON at {where}: {error.msg}") from error
    except ValueError as error:
        raise DecodeError(f"the body holds a number that cannot be read: {error}") from error
    except RecursionError as error:  # the caller itself stands near the limit
        raise DecodeError("the body nests too deep for the stack that is left") from error


def _read(decoder: json.JSONDecoder, text: str) -> object:
    scan: Callable[[str, int], tuple[object, int]] = decoder.scan_once  # type: ignore[attr-defined]
    try:
        value, end = scan(text, 0)
    except StopIteration:
        end = -1
    # Ether sends no space around a value. In any other case the whole decoder runs, which accepts space and explains
    # errors.
    return value if end == len(text) else decoder.decode(text)


def read_object_at(text: str, start: int) -> object:
    """The JSON value that begins at `start`, whatever follows it; raises `DecodeError`."""
    _check_depth(text)
    try:
        return _lenient.raw_decode(text, start)[0]
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"no JSON at character {start}: {error}") from error


def _check_depth(text: str) -> None:
    if text.count("[") + text.count("{") <= READ_MAX_DEPTH:
        return
    # Brackets inside strings do not count. Without the escapes every remaining quote begins or ends a string, so every
    # second piece between quotes lies outside of strings. Mapped to +1 and -1, the running sum of the brackets is the
    # depth.
    bare = text.replace("\\\\", "").replace('\\"', "")
    outside = "".join(bare.split('"')[::2]).encode("utf-8", "surrogatepass")
    steps = outside.translate(_STEPS, _NOT_BRACKETS)
    if max(accumulate(memoryview(steps).cast("b")), default=0) > READ_MAX_DEPTH:
        raise DecodeError(f"the body nests deeper than {READ_MAX_DEPTH} levels")
