"""What a context says, for people: who made a value, of which class, from which code, with which settings; and the
texts that it refers to.

The trap: contexts are read that other versions of Ether have written. What one does not say is left out.
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
    """Who made values. `arguments` by name, positional ones by their place; `settings` names the YAML file, "" where
    the configuration was given as a value; `why_no_commit` says why there is none."""

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
    """Which simulated lab stood for the bench; "" where the devices were real."""


class KeptText(NamedTuple):
    """A text that a context refers to: changes that are in no commit, settings, or a source file. None in `text` says
    that it is not in the ledger."""

    sha256: str
    kind: TextKind
    name: str
    text: str | None


def origin_of(context: Mapping[str, Any]) -> Origin:
    """What a context says."""
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
    """Whether a context says that its values come from simulated instruments."""
    return bool(_lab_of(_part(context, "configuration")))


def _lab_of(configuration: Mapping[str, Any]) -> str:
    lab = _part(configuration, "simulated")
    return f"{lab.get('file') or 'simulate: of the settings'}, {str(lab.get('lab', ''))[:10]}" if lab else ""


def arguments_of(context: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of construction by name, positional ones by their place."""
    placed = {f"args[{number}]": value for number, value in enumerate(context.get("args") or ())}
    return {**placed, **_part(context, "kwargs")}


def kept_texts(reader: LedgerReader, contexts: Iterable[Mapping[str, Any]], *, sources: bool = False) -> list[KeptText]:
    """What these contexts refer to, each once: changes, settings and, if wanted, the sources that were kept."""
    named: dict[str, tuple[TextKind, str]] = {}
    for context in contexts:
        for sha256, kind, name in _references(context, sources=sources):
            named.setdefault(sha256, (kind, name))
    return [KeptText(sha256, kind, name, _text(reader, sha256, name)) for sha256, (kind, name) in named.items()]


def _references(context: Mapping[str, Any], *, sources: bool) -> Iterator[tuple[str, TextKind, str]]:
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
    if sources or not git:  # without a commit the source is all that says which code it was
        for name, sha256 in _part(code, "files").items():
            if sources or name == code.get("file"):
                yield sha256, "source", name


def _text(reader: LedgerReader, sha256: str, name: str) -> str | None:
    content = reader.artifact(sha256)
    if content is None:
        return None
    text = content.decode(errors="replace")
    return json.dumps(json.loads(text), indent=2) if name == "configuration.json" else text


def _part(told: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = told.get(name)
    return found if isinstance(found, Mapping) else {}
