"""JSON as Ether writes and reads it: strict, UTF-8, never deeper than a limit.

Promises: `dumps()` writes no NaN or Infinity; `loads()` raises `DecodeError` and nothing else for whatever it
is given, in time proportional to its length.

The trap: Python's parser recurses, and a short body of brackets makes it raise RecursionError; or, where a
program raised the recursion limit, overflows the C stack and kills the process. So the depth is measured
before parsing.
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
    """A compact JSON encoder. Python's own makes a new inner one for each value, which takes longer than a small
    value's text; here it is made once, where this Python has it."""
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
    """Compact JSON of plain values (see `ether.wire.values`); `ValueError` for NaN, infinity and over-long
    ints."""
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
    # What Ether sends has no space around it; for anything else the decoder knows what it is, or what is wrong.
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
    # Without strings: first the escapes, so that every quote left begins or ends one; then every second
    # piece.
    bare = text.replace("\\\\", "").replace('\\"', "")
    outside = "".join(bare.split('"')[::2]).encode("utf-8", "surrogatepass")
    steps = outside.translate(_STEPS, _NOT_BRACKETS)
    if max(accumulate(memoryview(steps).cast("b")), default=0) > READ_MAX_DEPTH:
        raise DecodeError(f"the body nests deeper than {READ_MAX_DEPTH} levels")
