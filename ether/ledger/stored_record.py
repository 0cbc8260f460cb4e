"""One record of a ledger as it is given to readers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import cast

from ether.ledger.rows import COLUMNS, LARGE_BYTES, checksum_of
from ether.wire.codec import decode
from ether.wire.entries import Kind
from ether.wire.json_text import loads


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """An entry as it was kept; see `ether.wire.entries.Entry` for what the fields of that name mean."""

    row: int
    """Its place in the ledger, from 1."""
    outbox: str
    """"" where no outbox has numbered it."""
    number: int
    kind: Kind
    topic: str
    id: str
    source: str
    """The instance or program that it is from."""
    seq: int
    time: float
    received: float
    """Unix seconds by the recorder's clock, when it came to the ledger."""
    run: str
    parents: tuple[str, ...]
    context: str
    content_type: str | None
    more: Mapping[str, object]
    size: int
    """Bytes of the payload."""
    sha256: str | None
    """Of a payload that is kept by its hash."""
    checksum: str
    link: str
    _body: bytes | None = field(repr=False)
    _fetch: Callable[[str], bytes] = field(repr=False, compare=False)

    @property
    def payload(self) -> bytes:
        """The body. A large one is read from its file; raises `LedgerDamaged` where that is not what was written."""
        return self._fetch(self.sha256) if self._body is None and self.sha256 else self._body or b""

    @property
    def value(self) -> object:
        """The payload decoded; raises `DecodeError` for what is no body, and what `payload` raises."""
        return decode(self.payload, self.content_type)


def record_of(row: tuple[object, ...], content: Callable[[str], bytes], fetch: Callable[[str], bytes]) -> StoredRecord:
    """The record of a row; raises `ValueError` where the row is not what was written.

    `content` gives a small payload that is kept by its hash, at once; `fetch` a large one, when it is asked for."""
    _, *said, body, checksum, link = row
    try:
        right = checksum_of(said, cast("bytes | None", body)) == checksum
    except (TypeError, ValueError):
        right = False
    if not right:
        raise ValueError("its checksum is wrong")
    values = dict(zip(_FIELDS, row, strict=True))
    values["parents"] = _parents(str(values["parents"]))
    values["more"] = MappingProxyType(cast("dict[str, object]", loads(str(values["more"]), strict=True)))
    values["checksum"], values["link"] = cast(bytes, checksum).hex(), cast(bytes, link).hex()
    if values["sha256"] is not None and cast(int, values["size"]) <= LARGE_BYTES:
        values["_body"] = content(str(values["sha256"]))
    return StoredRecord(**values, _fetch=fetch)  # type: ignore[arg-type]


def _parents(text: str) -> tuple[str, ...]:
    return () if text == "[]" else tuple(cast("list[str]", loads(text, strict=True)))


_FIELDS = tuple("_body" if name == "payload" else name for name in COLUMNS)
