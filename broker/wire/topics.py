"""Topics and filters: which are valid, and which filter matches which topic.

Promise: the rules of section 4.7 of both standards, wildcards, `$` and shared subscriptions included. Topics stay
bytes: most are never looked at as text. The trap: a topic has at most `MOST_LEVELS` levels here. Each level costs a
table of its own where a topic or a filter is remembered, so a topic of slashes alone would cost 200 times its length.
"""

from collections.abc import Iterator
from typing import Generic, TypeVar

from broker.wire.packets import INVALID_TOPIC, PROTOCOL_ERROR, MalformedPacket, checked_text

MOST_LEVELS = 200

T = TypeVar("T")


def checked_topic(topic: bytes) -> bytes:
    """The bytes, where they are a topic that a message may be published to."""
    if not topic:
        raise MalformedPacket("a topic without characters", PROTOCOL_ERROR)
    if b"+" in topic or b"#" in topic:
        raise MalformedPacket("a topic that holds a wildcard", INVALID_TOPIC)
    checked_text(topic)
    if topic.count(b"/") >= MOST_LEVELS:
        raise MalformedPacket(f"a topic of more than {MOST_LEVELS} levels", INVALID_TOPIC)
    return topic


def is_valid_filter(text: bytes) -> bool:
    """Whether a filter may be granted: wildcards only as whole levels, `#` only at the end."""
    levels = text.split(b"/")
    if not text or len(levels) > MOST_LEVELS:
        return False
    if any((b"+" in level or b"#" in level) and len(level) > 1 for level in levels):
        return False
    return b"#" not in levels[:-1]


def shared_parts(text: bytes) -> tuple[bytes | None, bytes]:
    """The group and the filter of `$share/group/filter`; None and the filter itself for any other. An empty filter
    stands for a shared subscription that makes no sense."""
    if not text.startswith(b"$share/"):
        return None, text
    group, _, rest = text[7:].partition(b"/")
    return group, rest if group and b"+" not in group and b"#" not in group else b""


def covers(text: bytes, topic: bytes) -> bool:
    """Whether a filter matches a topic. A leading wildcard matches no `$…` topic."""
    if topic[:1] == b"$" and text[:1] in (b"+", b"#"):
        return False
    levels, names = text.split(b"/"), topic.split(b"/")
    for position, level in enumerate(levels):
        if level == b"#":
            return True
        if position >= len(names) or level not in (b"+", names[position]):
            return False
    return len(levels) == len(names)


def covers_filter(allowed: bytes, asked: bytes) -> bool:
    """Whether a filter matches every topic that another one matches."""
    if asked[:1] == b"$" and allowed[:1] in (b"+", b"#"):
        return False
    levels, names = allowed.split(b"/"), asked.split(b"/")
    for position, level in enumerate(levels):
        if level == b"#":
            return True
        if position >= len(names) or names[position] == b"#":
            return False
        if level not in (b"+", names[position]):
            return False
    return len(levels) == len(names)


class _Level(Generic[T]):
    """One level of a tree: what lies below it by name, and what is kept here."""

    __slots__ = ("below", "value")

    def __init__(self) -> None:
        self.below: dict[bytes, _Level[T]] = {}
        self.value: T | None = None


class TopicTree(Generic[T]):
    """Values by topic or by filter; None is no value. It keeps no level that leads to nothing."""

    def __init__(self) -> None:
        self._root: _Level[T] = _Level()

    def put(self, key: bytes, value: T) -> None:
        """Keep a value, in place of the one before."""
        level = self._root
        for name in key.split(b"/"):
            found = level.below.get(name)
            if found is None:
                found = level.below[name] = _Level()
            level = found
        level.value = value

    def get(self, key: bytes) -> T | None:
        """The value of exactly this key."""
        level: _Level[T] | None = self._root
        for name in key.split(b"/"):
            assert level is not None
            if (level := level.below.get(name)) is None:
                return None
        return level.value if level is not None else None

    def remove(self, key: bytes) -> None:
        """Forget the value of this key, if there is one."""
        names = key.split(b"/")
        path = [self._root]
        for name in names:
            level = path[-1].below.get(name)
            if level is None:
                return
            path.append(level)
        path[-1].value = None
        for position in range(len(names) - 1, -1, -1):
            level = path[position + 1]
            if level.below or level.value is not None:
                return
            del path[position].below[names[position]]

    def clear(self) -> None:
        """Forget everything."""
        self._root = _Level()

    def matching(self, topic: bytes) -> Iterator[T]:
        """The values whose keys are filters that match this topic."""
        names = topic.split(b"/")
        last = len(names)
        waiting: list[tuple[_Level[T], int]] = [(self._root, 0)]
        while waiting:
            level, depth = waiting.pop()
            wild = depth > 0 or topic[:1] != b"$"
            if wild and (rest := level.below.get(b"#")) is not None and rest.value is not None:
                yield rest.value
            if depth == last:
                if level.value is not None:
                    yield level.value
                continue
            if wild and (one := level.below.get(b"+")) is not None:
                waiting.append((one, depth + 1))
            if (exact := level.below.get(names[depth])) is not None:
                waiting.append((exact, depth + 1))

    def under(self, text: bytes) -> Iterator[T]:
        """The values whose keys are topics that this filter matches, in the order in which levels were entered."""
        names = text.split(b"/")
        last = len(names)
        waiting: list[tuple[_Level[T], int]] = [(self._root, 0)]
        while waiting:
            level, depth = waiting.pop()
            if depth == last:
                if level.value is not None:
                    yield level.value
                continue
            name = names[depth]
            if name == b"#":
                yield from _everything(level, hidden=depth == 0)
            elif name == b"+":
                below = level.below.items()
                waiting += [(each, depth + 1) for key, each in below if depth or key[:1] != b"$"][::-1]
            elif (exact := level.below.get(name)) is not None:
                waiting.append((exact, depth + 1))


def _everything(start: _Level[T], hidden: bool) -> Iterator[T]:
    """All values at a level and below it; without `$…` where `hidden` says that the level is the root."""
    waiting = [start]
    while waiting:
        level = waiting.pop()
        if level.value is not None:
            yield level.value
        top = hidden and level is start
        waiting += [each for key, each in level.below.items() if not (top and key[:1] == b"$")][::-1]
