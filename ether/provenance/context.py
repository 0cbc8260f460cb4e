"""The context of an instance: a JSON document that explains every value that the instance makes.

It names the instance (name, incarnation, epoch), its class and arguments, its code, its configuration, the machine and
the installed packages. It is made once, when the instance is built, and sent once; every record refers to it by its
SHA-256. In the same way it refers to artifacts: sources, settings, the list of packages.

    about = configuration_facts(config.model_dump(mode="json"), yaml_text, "ether.yaml")     # once, in the main program
    context = make_context(InstanceFacts("camera", birth, 1, "lab.Camera", Camera), configuration=about.described)
    for entry in unsent(context.entries(wall_time()), sent): ...     # artifacts first; `sent` is a set of the process

Promises: the same facts make the same bytes; no environment variable of the process is in them; secrets are masked (see
`ether.provenance.secrets`). `import ether` does not import this module, and no message waits for it. The trap: a
context needs answers from git, which take some 20 ms. So it is made while the instance is built, and not while a
message is handled.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ether.ledger.objects import Artifact, artifact
from ether.provenance.code_identity import code_identity
from ether.provenance.environment import environment, machine_facts
from ether.provenance.secrets import is_secret_name, masked, masked_configuration, masked_yaml
from ether.secret_values import MASK
from ether.version import VERSION
from ether.wire.codec import JSON, OCTETS
from ether.wire.entries import Entry

TEXT_MAX = 10_000
"""Characters of a text. A longer one is cut to these, and has its SHA-256 beside it."""

REPR_MAX = 500
"""Characters of a `repr`."""
_DEEPEST = 20
"""Levels of nesting; what is deeper is given as its `repr`."""
_MOST_ITEMS = 1_000
"""Items of a list or mapping."""
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")

_writer = reprlib.Repr()  # never raises, whatever the object's own code does
_writer.maxother = _writer.maxstring = REPR_MAX

FORM = 1
"""The version of a context's form, for later readers."""
_NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class InstanceFacts:
    """An instance, as its context describes it. A program that joined a session has the class path `__main__` and no
    class. `registry`: the marks of its class from the configuration, as plain data."""

    name: str
    incarnation: str = ""
    epoch: int = 0
    class_path: str = "__main__"
    class_object: type | None = None
    args: Sequence[object] = ()
    kwargs: Mapping[str, object] = field(default_factory=dict)
    registry: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Facts:
    """A part that several contexts share: its description, and the artifacts that the description refers to."""

    described: Mapping[str, Any]
    artifacts: tuple[Artifact, ...]


@dataclass(frozen=True, slots=True)
class Context:
    """A context and everything that it refers to by hash."""

    sha256: str
    content: bytes
    artifacts: tuple[Artifact, ...]

    def entries(self, time_s: float) -> Iterator[Entry]:
        """The entries, not numbered yet. Artifacts come before the context that refers to them."""
        yield from artifact_entries(self.artifacts, time_s)
        yield Entry(0, "context", "", self.sha256, 0, time_s, (), "", JSON, self.content)


def artifact_entries(artifacts: Sequence[Artifact], time_s: float) -> Iterator[Entry]:
    """The entries of artifacts, one for each, in their order."""
    for each in dict.fromkeys(artifacts):
        yield Entry(0, "artifact", each.name, each.sha256, 0, time_s, (), "", OCTETS, each.content)


def unsent(entries: Iterable[Entry], sent: set[str]) -> Iterator[Entry]:
    """The entries whose hash is not in `sent` yet; their hashes are added to it. So an artifact that several contexts
    of a process share is sent once."""
    for entry in entries:
        if entry.id not in sent:
            sent.add(entry.id)
            yield entry


def make_context(
    facts: InstanceFacts,
    *,
    configuration: Mapping[str, Any] = _NOTHING,
    clock_offset_s: float | None = None,
) -> Context:
    """The context of one instance of this process.

    `configuration` is the `described` of `configuration_facts()`, whose artifacts the caller sends. `clock_offset_s`:
    seconds that this machine's clock is ahead of the session's, None where it was not measured.
    """
    code = code_identity(facts.class_path, facts.class_object)
    packages = environment()
    document = {
        "form": FORM,
        "ether": VERSION,
        "instance": facts.name,
        "birth": facts.incarnation,
        "epoch": facts.epoch,
        "class": facts.class_path,
        "args": _positional(facts),
        "kwargs": {name: _argument(name, value) for name, value in facts.kwargs.items()},
        "registry": masked(plain(facts.registry), place=("registry",)),
        "code": code.described,
        "configuration": dict(configuration) or None,
        "machine": machine_facts(),
        "environment": packages.described,
        "clock_offset_s": clock_offset_s,
    }
    content = canonical(document)
    return Context(hashlib.sha256(content).hexdigest(), content, (*code.artifacts, packages.listed))


def configuration_facts(
    plain_config: Mapping[str, Any], yaml_text: str | None = None, file: str | None = None
) -> Facts:
    """A session's configuration: the merged settings as plain JSON data, and the YAML text where they came from a file.
    Secrets are masked in both, and the hashes are those of the masked content."""
    merged = artifact("configuration.json", canonical(masked_configuration(plain_config)))
    described: dict[str, Any] = {"sha256": merged.sha256, "file": file, "yaml": None}
    if yaml_text is None:
        return Facts(described, (merged,))
    written = artifact(file or "configuration.yaml", masked_yaml(yaml_text).encode("utf-8", "surrogateescape"))
    return Facts({**described, "yaml": written.sha256}, (merged, written))


def canonical(value: object) -> bytes:
    """JSON of which the same value always makes the same bytes: keys sorted, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


# -- arguments


def _positional(facts: InstanceFacts) -> list[Any]:
    names = _parameter_names(facts)
    return [_argument(names[n] if n < len(names) else "", value) for n, value in enumerate(facts.args)]


def _parameter_names(facts: InstanceFacts) -> list[str]:
    """The names of the class's positional parameters: a positional argument is a secret where its parameter has the
    name of one."""
    if facts.class_object is None or not facts.args:
        return []
    try:
        parameters = inspect.signature(facts.class_object).parameters.values()
    except (TypeError, ValueError):  # classes written in C
        return []
    return [each.name for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]


def _argument(name: str, value: object) -> Any:
    """An argument as JSON data, masked. An object of another type under a secret's name is masked as a whole, because
    its `repr` may show the secret."""
    secret = is_secret_name(name)
    if secret and not isinstance(value, (str, bytes, int, float, list, tuple, Mapping, type(None))):
        return MASK
    return masked(plain(value), secret=secret)


# -- any value as JSON data


def plain(value: object, depth: int = 0) -> Any:
    """JSON data that describes any value. What JSON can carry stays as it is; everything else becomes a mapping that
    says what it was, with a hash where the content is left out."""
    if value is None or type(value) in (bool, int):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if type(value) is str:
        return _text(value)
    if depth >= _DEEPEST:
        return _repr_of(value)
    return _compound(value, depth)


def _compound(value: Any, depth: int) -> Any:
    """A value that is no scalar. The order of the tests matters: a class may have `dtype` and `shape`, too, and arrays
    are recognised by their attributes, so that NumPy need not be imported."""
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": len(value), "sha256": hashlib.sha256(value).hexdigest()}
    if isinstance(value, Mapping):
        return _cut({_key(key): plain(item, depth + 1) for key, item in list(value.items())[:_MOST_ITEMS]}, value)
    if isinstance(value, (list, tuple)):
        listed = [plain(item, depth + 1) for item in value[:_MOST_ITEMS]]
        return listed if len(value) <= _MOST_ITEMS else {"items": listed, "cut": f"{len(value):,} in all"}
    if isinstance(value, (set, frozenset)):
        # Sets have no order of their own; sorted by `repr`, the same set makes the same bytes.
        return {"set": sorted((plain(item, depth + 1) for item in value), key=repr)}
    if isinstance(value, type):
        return {"class": f"{value.__module__}.{value.__qualname__}"}
    if all(hasattr(value, name) for name in ("dtype", "shape", "tobytes")):
        content = hashlib.sha256(value.tobytes()).hexdigest()
        return {"array": str(value.dtype), "shape": [int(length) for length in value.shape], "sha256": content}
    return _repr_of(value)


def _key(key: object) -> str:
    return key if isinstance(key, str) else repr(plain(key, _DEEPEST - 1))


def _cut(items: dict[str, Any], value: Mapping[Any, Any]) -> dict[str, Any]:
    return items if len(value) <= _MOST_ITEMS else {**items, "...": f"cut: {len(value):,} in all"}


def _text(text: str) -> Any:
    if len(text) <= TEXT_MAX:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return {"text": text[:TEXT_MAX], "cut": f"{len(text):,} characters in all", "sha256": digest}


def _repr_of(value: object) -> dict[str, str]:
    """The `repr` without the object's address, which is another one in each run."""
    kind = type(value)
    text = _ADDRESS.sub("", _writer.repr(value))
    return {"repr": text[:REPR_MAX], "type": f"{kind.__module__}.{kind.__qualname__}"}
