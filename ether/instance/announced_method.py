"""What is announced of a method: its marks, and for one that takes arguments everything a proxy needs."""

from __future__ import annotations

from ether.spec.descriptions import describe_spec
from ether.spec.marks import MarkKind
from ether.spec.methods import MethodSpec

TAKES_ARGUMENTS = (MarkKind.SUB, MarkKind.GET, MarkKind.SAVE, MarkKind.SYNC)
_WITH_TOPICS = ((MarkKind.SUB, "subscribes"), (MarkKind.PUB, "publishes"), (MarkKind.SYNC, "syncs"))


def described(cls: type, method: MethodSpec) -> dict[str, object]:
    """One method as plain data; `every` are the times at which it is called by itself."""
    said: dict[str, object] = {"kinds": list(dict.fromkeys(mark.kind.value for mark in method.marks))}
    if any(mark.kind in TAKES_ARGUMENTS for mark in method.marks):
        said |= describe_spec(cls, method).to_value()
    if times := method.times:
        said["every"] = list(times)
    for kind, key in _WITH_TOPICS:
        if topics := method.topics(kind):
            said[key] = list(topics)
    return said
