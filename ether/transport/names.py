"""MQTT's rules for topics and topic filters.

They are checked on this side, because a broker answers a bad name by closing the connection (or, worse, not at all),
which does not tell which name it was. Raises `InvalidName` with the rule.
"""

from __future__ import annotations

from functools import lru_cache

from ether.errors import InvalidName

_TOPIC_RULE = "1 to 65,535 bytes of UTF-8, without '+', '#' and the NUL character"
_FILTER_RULE = "1 to 65,535 bytes of UTF-8, '+' and '#' only as a whole level, '#' only as the last, no NUL character"


@lru_cache(maxsize=4096)
def packed_topic(topic: str) -> bytes:
    """A valid topic as it stands in a packet: two bytes of length, then UTF-8."""
    name = _utf8(topic, "topic", _TOPIC_RULE)
    if "+" in topic or "#" in topic:
        raise InvalidName("topic", topic, _TOPIC_RULE)
    return len(name).to_bytes(2, "big") + name


def check_filter(topic_filter: str) -> None:
    """Return for a valid topic filter, raise `InvalidName` for any other."""
    _utf8(topic_filter, "topic filter", _FILTER_RULE)
    levels = topic_filter.split("/")
    if any(len(level) > 1 and ("+" in level or "#" in level) for level in levels) or "#" in levels[:-1]:
        raise InvalidName("topic filter", topic_filter, _FILTER_RULE)


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a filter selects a topic. Wildcards at the start do not select topics that start with `$`."""
    if topic.startswith("$") and topic_filter[:1] in ("+", "#"):
        return False
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if wanted[-1] == "#":
        wanted.pop()
        levels_compared = levels[: len(wanted)]
    else:
        levels_compared = levels
    return len(wanted) == len(levels_compared) and all(
        w in ("+", level) for w, level in zip(wanted, levels_compared, strict=True)
    )


def _utf8(name: str, kind: str, rule: str) -> bytes:
    if not isinstance(name, str) or "\0" in name:
        raise InvalidName(kind, name, rule)
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        raise InvalidName(kind, name, rule) from None
    if not 1 <= len(encoded) <= 65535:
        raise InvalidName(kind, name, rule)
    return encoded
