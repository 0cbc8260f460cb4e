"""Topics with named levels: `plant/pump/{id}/state` is the filter `plant/pump/+/state`, and names what stands at `+`.

Pure. The trap: a level is text, whatever it looks like; the type hint of the parameter that gets it makes it a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ether.errors import ConfigError

Places = tuple[tuple[str, int], ...]
"""Names and the levels, from 0, at which they stand."""

_OUTSIDE = "mqtt:"
_NAMED = re.compile(r"\{([^\W\d]\w*)\}")


def parse_topic(topic: str) -> tuple[str, Places]:
    """The topic filter of a topic, and its named levels; the topic as it is where it has none. Raises `ConfigError` for
    a name that is no whole level, or stands there twice."""
    if not isinstance(topic, str) or "{" not in topic:
        return topic, ()
    outside = topic.startswith(_OUTSIDE)
    levels = topic.removeprefix(_OUTSIDE).split("/")
    places: list[tuple[str, int]] = []
    for at, level in enumerate(levels):
        found = _NAMED.search(level)
        if found is None:
            continue
        if found.group() != level:
            raise ConfigError(f"{found.group()} in the topic {topic!r} has to be a whole level, between two slashes")
        if found[1] in dict(places):
            raise ConfigError(f"{found.group()} stands twice in the topic {topic!r}")
        places.append((found[1], at))
        levels[at] = "+"
    return ("" if not outside else _OUTSIDE) + "/".join(levels), tuple(places)


def parts_of(places: Iterable[tuple[str, int]], topic: str) -> dict[str, str]:
    """What stands at the named levels of a topic that the filter has selected."""
    levels = topic.removeprefix(_OUTSIDE).split("/")
    return {name: levels[at] for name, at in places}
