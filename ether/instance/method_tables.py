"""What an instance derives from its methods' marks once, at its start, so that a message costs one look-up each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ether.config.keep import Keep
from ether.config.topic_parts import Places
from ether.instance.publications import PublishedTopic
from ether.spec.accessors import check_property
from ether.spec.arguments import Arguments
from ether.spec.marks import MarkKind
from ether.spec.methods import ClassSpec, MethodSpec
from ether.spec.results import Results
from ether.wire.topics import SessionTopics, check_topic, check_topic_filter

TAKES_ARGUMENTS = (MarkKind.SUB, MarkKind.GET, MarkKind.SAVE, MarkKind.SYNC)
"""The marks of methods that are called with a payload."""

CALLED = (MarkKind.GET, MarkKind.SAVE)
"""The marks of methods that other programs can call."""


@dataclass(frozen=True, slots=True)
class MethodTables:
    """Tables by method name."""

    originals: dict[str, Callable[..., Any]]
    """The object's own methods, before publishing wrappers are put over them."""
    arguments: dict[str, Arguments]
    """Binds and validates payloads, for methods that take arguments."""
    results: dict[str, Results]
    """Checks return values, for methods that can be called."""
    publications: dict[str, list[PublishedTopic]]
    """What each method publishes."""
    subscriptions: dict[str, list[tuple[str, int, Keep]]]
    """The MQTT topic filters to subscribe to, each with its QoS, and what is handled of the messages that wait."""
    named_levels: dict[str, list[tuple[str, Places]]]
    """For methods whose topics have named levels, the MQTT topic filters and the names."""


def method_tables(obj: object, spec: ClassSpec, topics: SessionTopics) -> MethodTables:
    """The tables of one object. Raises `MarkError` and `InvalidName`."""
    for wanted in spec.properties:
        if wanted.is_plain:
            check_property(type(obj), wanted, obj)
    originals = {method.name: method.function_of(obj) for method in spec.methods}
    return MethodTables(
        originals=originals,
        arguments={
            method.name: Arguments(
                originals[method.name], f"{spec.name}.{method.name}", method.limits, method.from_topic
            )
            for method in spec.methods
            if _has(method, TAKES_ARGUMENTS)
        },
        results={
            method.name: Results(originals[method.name], f"{spec.name}.{method.name}", enforced=method.decorated)
            for method in spec.methods
            if _has(method, CALLED)
        },
        publications={
            method.name: [
                PublishedTopic(topics.data(check_topic(mark.topic or "")), mark)
                for mark in method.of_kind(MarkKind.PUB)
            ]
            for method in spec.methods
        },
        subscriptions={
            method.name: [
                (topics.data_filter(check_topic_filter(mark.topic or "")), mark.qos, mark.kept)
                for mark in method.of_kind(MarkKind.SUB)
            ]
            for method in spec.methods
        },
        named_levels={
            method.name: [
                (topics.data_filter(mark.topic or ""), mark.places)
                for mark in method.of_kind(MarkKind.SUB)
                if mark.places
            ]
            for method in spec.methods
            if method.from_topic
        },
    )


def unchecked_text(arguments: Iterable[Arguments]) -> str:
    """Which arguments are passed on as they come, because their hints mean nothing at run time; empty for none."""
    return "; ".join(
        f"{each.name}({', '.join(f'{name}: {hint}' for name, hint in each.unchecked.items())})"
        + (f" at {each.place}" if each.place else "")
        for each in arguments
        if each.unchecked
    )


def _has(method: MethodSpec, kinds: tuple[MarkKind, ...]) -> bool:
    return any(mark.kind in kinds for mark in method.marks)
