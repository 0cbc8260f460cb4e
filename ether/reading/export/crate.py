"""Records of a ledger as an RO-Crate: a folder that describes its own content, for archives and for readers without
Ether.

    ro-crate-metadata.json   the description (RO-Crate 1.1, profile Process Run Crate 0.5)
    records.jsonl            one record in each line: value, id, parents, source, times, context
    payloads/SHA256          bodies that are no JSON: arrays, images
    contexts/SHA256.json     contexts: class, arguments, code and machine of an instance
    artifacts/SHA256-NAME    the artifacts of contexts: sources, changes, settings, packages
    provenance.json          W3C PROV-JSON

Each context is an action: its instrument is the instance's code (class, commit), its objects are the settings and
sources, its result are the records. Every file has its size and SHA-256 in the description.

Promise: the folder appears completely or not at all. The trap: only the owner of the data can give a licence; without
one the crate says that none was given, and an archive will ask for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ether.errors import ExportFailed, LedgerDamaged, MissingExtra, PayloadError
from ether.ledger.reader import LedgerReader, RecordFilter, StoredRecord
from ether.provenance.inputs import inputs_of
from ether.provenance.origins import Origin, origin_of
from ether.reading.export import prov as export_prov

PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
_CONTEXT = "https://w3id.org/ro/terms/workflow-run/context"
NO_LICENSE = "No licence was given. Ask whoever made this crate."

RECORDS, PROVENANCE = "records.jsonl", "provenance.json"
KINDS = ("data", "record", "call", "log", "run", "state", "gap")
_FORMATS = {
    ".json": "application/json", ".jsonl": "application/jsonl", ".yaml": "application/yaml", ".yml": "application/yaml",
    ".py": "text/x-python", ".diff": "text/x-diff",
}  # fmt: skip
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(slots=True)
class _Use:
    """A context that records refer to: their number, and the times of the first and the last of them."""

    context: Mapping[str, Any]
    first: float
    last: float
    count: int = 0


@dataclass(slots=True)
class _Parts:
    """The content of the folder."""

    names: dict[str, str] = field(default_factory=dict)
    """By path of a file its name for people."""
    uses: dict[str, _Use] = field(default_factory=dict)
    """By hash of a context."""
    artifacts: dict[str, str] = field(default_factory=dict)
    """By hash of an artifact the path of its file."""
    count: int = 0
    """How many records there are."""


def write(
    reader: LedgerReader, folder: Path, records: Callable[[], Iterable[StoredRecord]] | None = None, *,
    name: str | None = None, license_text: str = NO_LICENSE,
) -> int:  # fmt: skip
    """Write the crate to a folder that must not exist yet, and return how many records are in it.

    `records` returns them; it is called twice. None means all records of the ledger. `license_text` is the URL of a
    licence, or a sentence. Raises `ExportFailed`, `MissingExtra`, `OSError`.
    """
    _check_library()
    if folder.exists():
        raise ExportFailed(f"{folder} is there already; a crate is written to a folder of its own")
    part = folder.with_name(f".{folder.name}.{os.urandom(4).hex()}.part")
    try:
        part.mkdir(parents=True)
        parts = _write_files(reader, part, records or (lambda: reader.records(RecordFilter(kinds=KINDS))))
        if parts.count == 0:
            raise ExportFailed(f"nothing was recorded that fits, so {folder} is not written")
        _describe(part, parts, name or f"{reader.session}: all that was recorded", license_text)
        part.replace(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return parts.count


def _check_library() -> None:
    try:
        import rocrate.rocrate  # noqa: F401
    except ImportError as error:
        raise MissingExtra("an RO-Crate", "rocrate", "crate") from error


# -- the files


def _write_files(reader: LedgerReader, part: Path, records: Callable[[], Iterable[StoredRecord]]) -> _Parts:
    parts, signers = _Parts(), reader.signers()
    with (part / RECORDS).open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
        for record in records():
            signed = {"signed_by": signers[record.outbox]} if record.outbox in signers else {}
            file.write(json.dumps({**_line(record, part, parts), **signed, **_inputs(reader, record)}) + "\n")
            parts.count += 1
            _note_context(reader, record, parts)
    parts.names[RECORDS] = "records"
    for sha256, use in parts.uses.items():
        _write_context(reader, part, parts, sha256, use.context)
    export_prov.write(reader, part / PROVENANCE, (each for each in records() if each.kind in export_prov.KINDS))
    parts.names[PROVENANCE] = "W3C PROV"
    return parts


def _line(record: StoredRecord, part: Path, parts: _Parts) -> dict[str, Any]:
    line = {
        "row": record.row, "kind": record.kind, "topic": record.topic, "id": record.id, "source": record.source,
        "seq": record.seq, "time": record.time, "received": record.received, "run": record.run,
        "parents": list(record.parents), "context": record.context, "content_type": record.content_type,
        "more": dict(record.more),
    }  # fmt: skip
    try:
        payload = record.payload
    except LedgerDamaged as error:
        return {**line, "problem": str(error)}
    try:
        value = record.value
        json.dumps(value, allow_nan=False)
        return {**line, "value": value}
    except (PayloadError, TypeError, ValueError):
        return {**line, "payload": _write_payload(payload, part, parts)}


def _inputs(reader: LedgerReader, record: StoredRecord) -> dict[str, Any]:
    """The ids of everything that a record was made of, or could have been made of, by how that is known: the same as in
    the PROV-JSON. `missing`: how many more there are, of which the ledger has nothing."""
    found = inputs_of(reader, record)
    by_how: dict[str, list[str]] = {}
    for known, how in found.each():
        by_how.setdefault(how, []).append(known)
    told: dict[str, Any] = {"inputs": by_how} if by_how else {}
    if missing := sum(group.missing - len(group.named) for group in found.groups):
        told["missing"] = missing
    return told


def _write_payload(payload: bytes, part: Path, parts: _Parts) -> str:
    path = f"payloads/{hashlib.sha256(payload).hexdigest()}"
    _write(part / path, payload)
    parts.names[path] = "the body of a record"
    return path


def _note_context(reader: LedgerReader, record: StoredRecord, parts: _Parts) -> None:
    """Count the record for its context. Records come in the order of the ledger, whose times may go back."""
    use = parts.uses.get(record.context)
    if use is None:
        context = reader.context(record.context) if record.context else None
        if context is None:
            return
        use = parts.uses[record.context] = _Use(context, record.time, record.time)
    use.first, use.last, use.count = min(use.first, record.time), max(use.last, record.time), use.count + 1


def _write_context(reader: LedgerReader, part: Path, parts: _Parts, sha256: str, context: Mapping[str, Any]) -> None:
    path = f"contexts/{sha256}.json"
    _write(part / path, reader.artifact(sha256) or b"")
    parts.names[path] = f"what explains {context.get('instance', '')}"
    for artifact, name in export_prov.artifacts_of(context).items():
        content = reader.artifact(artifact)
        if content is not None and artifact not in parts.artifacts:
            parts.artifacts[artifact] = f"artifacts/{artifact[:16]}-{_UNSAFE.sub('_', name)[-80:]}"
            _write(part / parts.artifacts[artifact], content)
            parts.names[parts.artifacts[artifact]] = name


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


# -- the description


def _describe(part: Path, parts: _Parts, title: str, license_text: str) -> None:
    from rocrate.model import ContextEntity
    from rocrate.rocrate import ROCrate

    crate = ROCrate(version="1.1")
    crate.metadata.extra_contexts.append(_CONTEXT)
    crate.name = title
    crate.description = f"{parts.count} records of Ether, with the code, settings and machines that made them."
    if any(origin_of(use.context).simulated for use in parts.uses.values()):
        crate.description += " SIMULATED: no hardware was used; the values come from a simulated lab."
    crate.license = _license(crate, license_text)
    profile = {"@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"}
    crate.root_dataset["conformsTo"] = crate.add(ContextEntity(crate, PROFILE, properties=profile))
    files = {
        path: crate.add_file(part / path, path, properties=_facts(part / path, name))
        for path, name in parts.names.items()
    }
    for sha256, use in parts.uses.items():
        _add_action(crate, files, parts, sha256, use)
    crate.metadata.write(part)


def _license(crate: Any, text: str) -> Any:
    """A URL becomes an entity of the crate, as the profile wants; a sentence stays text."""
    from rocrate.model import ContextEntity

    if not text.startswith(("http://", "https://")):
        return text
    return crate.add(ContextEntity(crate, text, properties={"@type": "CreativeWork", "name": text}))


def _facts(path: Path, name: str) -> dict[str, Any]:
    form = _FORMATS.get(Path(name).suffix) or _FORMATS.get(path.suffix) or "application/octet-stream"
    return {"name": name, "encodingFormat": form, "contentSize": path.stat().st_size, "sha256": _digest(path)}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _add_action(crate: Any, files: Mapping[str, Any], parts: _Parts, sha256: str, use: _Use) -> None:
    """Add the work of an instance as an action."""
    from rocrate.model import ContextEntity

    origin = origin_of(use.context)
    tool = crate.add(ContextEntity(crate, f"#code-{sha256}", properties=_tool(origin)))
    own = export_prov.artifacts_of(use.context)
    used = [files[path] for artifact, path in parts.artifacts.items() if artifact in own]
    crate.add_action(
        tool, f"#made-{sha256}", object=[files[f"contexts/{sha256}.json"], *used], result=files[RECORDS],
        properties={
            "name": f"{origin.instance} made {use.count} records", "startTime": _time(use.first),
            "endTime": _time(use.last), "description": f"on {origin.host}, Python {origin.python}"
            + (", with simulated devices" if origin.simulated else ""),
        },
    )  # fmt: skip


def _tool(origin: Origin) -> dict[str, Any]:
    properties: dict[str, Any] = {"@type": "SoftwareApplication", "name": origin.class_path}
    if origin.revision.commit is not None:
        properties["softwareVersion"] = origin.revision.commit + (" with changes" if origin.revision.dirty else "")
    if origin.revision.remote:
        properties["codeRepository"] = origin.revision.remote
    return properties


def _time(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
