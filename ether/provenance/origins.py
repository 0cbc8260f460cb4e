"""A context as people read it: instance, class, code, settings and machine; and the texts that it refers to.

The trap: another version of Ether may have written the context. A part that it lacks is left empty, and never an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from ether.ledger.reader import LedgerReader
from ether.provenance.compare_code import Revision, revision

TextKind = Literal["changes", "settings", "source"]


@dataclass(frozen=True, slots=True)
class Origin:
    """The instance that made values. `arguments` are by name, positional ones by their place (`args[0]`); `settings` is
    the name of the YAML file, "" where the configuration was given as a value; `why_no_commit` is the reason where the
    code has no commit."""

    instance: str
    epoch: int
    class_path: str
    file: str
    revision: Revision
    why_no_commit: str
    arguments: Mapping[str, Any]
    settings: str
    host: str
    python: str
    packages: int
    clock_offset_s: float | None
    simulated: str
    """The simulated lab; "" where the devices were real."""


class KeptText(NamedTuple):
    """A text that a context refers to: changes that are in no commit, settings, or a source file. `text` is None where
    the ledger does not have it."""

    sha256: str
    kind: TextKind
    name: str
    text: str | None


def origin_of(context: Mapping[str, Any]) -> Origin:
    """The origin that a context describes."""
    code, configuration = _part(context, "code"), _part(context, "configuration")
    environment, offset = _part(context, "environment"), context.get("clock_offset_s")
    return Origin(
        str(context.get("instance", "")),
        int(context.get("epoch") or 0),
        str(context.get("class", "")),
        str(code.get("file") or ""),
        revision(code),
        str(code.get("why_no_git") or "").partition("\n")[0],
        arguments_of(context),
        str(configuration.get("file") or ""),
        str(_part(context, "machine").get("host", "")),
        str(environment.get("python", "")),
        int(environment.get("packages") or 0),
        float(offset) if isinstance(offset, (int, float)) else None,
        _lab_of(configuration),
    )


def is_simulated(context: Mapping[str, Any]) -> bool:
    """Whether the values of a context come from simulated instruments."""
    return bool(_lab_of(_part(context, "configuration")))


def _lab_of(configuration: Mapping[str, Any]) -> str:
    lab = _part(configuration, "simulated")
    return f"{lab.get('file') or 'simulate: of the settings'}, {str(lab.get('lab', ''))[:10]}" if lab else ""


def arguments_of(context: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of construction by name, positional ones by their place."""
    placed = {f"args[{number}]": value for number, value in enumerate(context.get("args") or ())}
    return {**placed, **_part(context, "kwargs")}


def kept_texts(reader: LedgerReader, contexts: Iterable[Mapping[str, Any]], *, sources: bool = False) -> list[KeptText]:
    """The texts that these contexts refer to, each once: changes, settings and, with `sources`, all stored source
    files."""
    named: dict[str, tuple[TextKind, str]] = {}
    for context in contexts:
        for sha256, kind, name in _references(context, sources=sources):
            named.setdefault(sha256, (kind, name))
    return [KeptText(sha256, kind, name, _text(reader, sha256, name)) for sha256, (kind, name) in named.items()]


def _references(context: Mapping[str, Any], *, sources: bool) -> Iterator[tuple[str, TextKind, str]]:
    """The texts of one context, as (SHA-256, kind, name), the most telling first.

    Of the settings the YAML file counts, because it is what the user wrote; the merged configuration stands in where
    there was no file. The class's own source file is included without `sources` only where there is no commit: then
    nothing else tells which code ran.
    """
    code, configuration = _part(context, "code"), _part(context, "configuration")
    git = _part(code, "git")
    if git.get("diff"):
        yield git["diff"], "changes", f"changes since {str(git.get('commit'))[:10]}"
    if configuration.get("yaml"):
        yield configuration["yaml"], "settings", str(configuration.get("file") or "configuration.yaml")
    elif configuration.get("sha256"):
        yield configuration["sha256"], "settings", "configuration.json"
    lab = _part(configuration, "simulated")
    if lab.get("file") and lab.get("lab"):
        yield lab["lab"], "settings", str(lab["file"])
    if sources or not git:
        for name, sha256 in _part(code, "files").items():
            if sources or name == code.get("file"):
                yield sha256, "source", name


def _text(reader: LedgerReader, sha256: str, name: str) -> str | None:
    content = reader.artifact(sha256)
    if content is None:
        return None
    text = content.decode(errors="replace")
    return json.dumps(json.loads(text), indent=2) if name == "configuration.json" else text


def _part(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A mapping inside of a context; empty where there is none."""
    found = document.get(name)
    return found if isinstance(found, Mapping) else {}
