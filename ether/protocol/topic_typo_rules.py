"""Topics that are probably misspelt: heard by somebody and published by nobody, or published and heard by nobody, while
a name that is nearly the same has what is missing. Pure.

Promise: a topic without a partner is no fault by itself, since programs, recordings and other machines publish and hear
topics that nobody announces. So a topic is named only where another one is nearly the same, by rules that are strict
where one side alone lacks its partner, and wider where both do. Numbers, single letters and short words that differ are
names (`cam1` and `cam2`, `axis_x` and `axis_y`), and who uses both spellings knows both.

The trap: a word is near another one by its letters, not by what it means. `state` and `stage` are near.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from ether.protocol.presence import Announcement
from ether.wire.topics import OUTSIDE, matches

KNOWN_PUBLISHED = frozenset({"start"})
"""Topics that programs publish by a call of their own: `ether.start()`."""

USED = "used"
"""Under this key an instance announces the topics that its code uses without a mark: `publishes`, `subscribes`."""

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\dA-Za-z_]+")
_NUMBERS = re.compile(r"\d+")
_SEPARATORS = re.compile(r"[\W_]+")
_SHORT = 4
"""Words with fewer letters are names by themselves: `in`, `out`, `x`, `min`, `max`."""
_LONG = 8
"""In words of so many letters two slips are one misspelling."""
_FIRM = 6
"""In shorter words a letter in the place of another makes another word (`flow` and `slow`), where the strict rules
hold."""
_MOST_KNOWN = 2000
"""Of so many topics at most the nearest is looked for."""
_SHOWN = 3


class TopicUse(NamedTuple):
    """One use of a topic, or of a filter: by which member, in which method (`Class.method`; "" for a program, and for
    what an instance's code does without a mark)."""

    member: str
    method: str
    topic: str


@dataclass(frozen=True, slots=True)
class TopicTypo:
    """A topic that is probably misspelt. `hears`: `users` hear it, and nobody publishes it; otherwise they publish it,
    and nobody hears it. `others` do with `nearest` what is missing."""

    topic: str
    nearest: str
    hears: bool
    users: tuple[TopicUse, ...]
    others: tuple[TopicUse, ...]

    def __str__(self) -> str:
        others, back = _names(self.others), _form("publish" if self.hears else "hear", self.others)
        if self.users:
            text = (
                f"{_names(self.users)} {_form('hear' if self.hears else 'publish', self.users)} {self.topic!r}, which"
            )
            text += f" nobody {'publishes' if self.hears else 'hears'}."
        else:
            text = f"nobody {'publishes' if self.hears else 'hears'} {self.topic!r}."
        text += f" Did you mean {self.nearest!r}? {others} {back} it"
        methods = list(dict.fromkeys(use.method for use in (*self.users, *self.others) if use.method))
        return text + (f" ({', '.join(methods[:_SHOWN])})." if methods else ".")

    def concerns(self, members: Iterable[str]) -> bool:
        """Whether one of these members uses the topic, or the nearest one."""
        named = set(members)
        return any(use.member in named for use in (*self.users, *self.others))


def _names(uses: Sequence[TopicUse]) -> str:
    names = list(dict.fromkeys(use.member for use in uses))
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _form(verb: str, uses: Sequence[TopicUse]) -> str:
    one = len({use.member for use in uses}) == 1
    return (f"{verb}es" if verb.endswith("sh") else f"{verb}s") if one else verb


# -- who uses which topics


def topics_of(member: Announcement, key: str) -> Iterator[str]:
    """The topics in a member's methods under `key` (`publishes` or `subscribes`), each once. Values of the wrong type
    are skipped, because any program can publish an announcement."""
    yield from dict.fromkeys(use.topic for use in _uses(member, key))


def uses_of(members: Iterable[Announcement], key: str) -> list[TopicUse]:
    """All uses of topics that members announce under `key` (`publishes` or `subscribes`)."""
    return [use for member in members for use in _uses(member, key)]


def _uses(member: Announcement, key: str) -> Iterator[TopicUse]:
    methods: Any = member.about.get("methods")
    title = str(member.about.get("class", ""))
    for name, method in methods.items() if isinstance(methods, Mapping) else ():
        listed = method.get(key) if isinstance(method, Mapping) else None
        for topic in listed if isinstance(listed, list) else ():
            if isinstance(topic, str):
                yield TopicUse(member.name, f"{title}.{name}" if title else str(name), topic)
    used: Any = member.about.get(USED)
    listed = used.get(key) if isinstance(used, Mapping) else None
    for topic in listed if isinstance(listed, list) else ():
        if isinstance(topic, str):
            yield TopicUse(member.name, "", topic)


# -- what is probably misspelt


class _Published:
    """Published topics with their publishers."""

    def __init__(self, uses: Iterable[TopicUse]) -> None:
        self.uses = _by_topic(uses)

    def feeds(self, wide: str) -> bool:
        """Whether somebody publishes what a filter selects."""
        if not _is_wide(wide):
            return wide in self.uses or wide in KNOWN_PUBLISHED
        return any(matches(wide, topic) for topic in (*self.uses, *KNOWN_PUBLISHED))

    def by(self, members: set[str], wide: str) -> bool:
        """Whether one of these members publishes what a filter selects."""
        return any(use.member in members for topic, uses in self.uses.items() if matches(wide, topic) for use in uses)


class _Heard:
    """Topics and filters with those that hear them."""

    def __init__(self, uses: Iterable[TopicUse]) -> None:
        self.uses = _by_topic(uses)
        self._wide = [topic for topic in self.uses if _is_wide(topic)]

    def hears(self, topic: str) -> bool:
        """Whether somebody hears a topic."""
        return topic in self.uses or any(matches(wide, topic) for wide in self._wide)

    def by(self, members: set[str], topic: str) -> bool:
        """Whether one of these members hears a topic."""
        return any(use.member in members for wide, uses in self.uses.items() if matches(wide, topic) for use in uses)


def topic_typos(published: Iterable[TopicUse], heard: Iterable[TopicUse]) -> list[TopicTypo]:
    """The topics of a session that are probably misspelt, each once. Of two topics that lack each other only the heard
    one is named: "sink hears 'temprature', which nobody publishes. Did you mean 'temperature'?"."""
    publishing, hearing = _Published(published), _Heard(heard)
    unfed = [wide for wide in hearing.uses if not _is_open(wide) and not publishing.feeds(wide)]
    lonely = [topic for topic in publishing.uses if not _is_open(topic) and not hearing.hears(topic)]
    found = [typo for wide in unfed if (typo := _unfed(wide, publishing, hearing, lonely)) is not None]
    named = {typo.nearest for typo in found}
    fed = [wide for wide in hearing.uses if wide not in unfed]
    found += [typo for topic in lonely if topic not in named
              if (typo := _unheard(topic, publishing, hearing, fed)) is not None]  # fmt: skip
    return found


def _unfed(wide: str, publishing: _Published, hearing: _Heard, lonely: Iterable[str]) -> TopicTypo | None:
    users = hearing.uses[wide]
    mine = {use.member for use in users}
    known = {**publishing.uses, **{topic: [TopicUse("ether.start()", "", topic)] for topic in KNOWN_PUBLISHED}}
    near = _nearest(wide, known, lonely)
    if near is None or publishing.by(mine, near) or hearing.by(mine, near):
        return None  # who uses both spellings knows both
    return TopicTypo(wide, near, True, tuple(users), tuple(known[near]))


def _unheard(topic: str, publishing: _Published, hearing: _Heard, fed: Iterable[str]) -> TopicTypo | None:
    users = publishing.uses[topic]
    near = _nearest(topic, {wide: hearing.uses[wide] for wide in fed}, ())
    if near is None or publishing.by({use.member for use in users}, near):
        return None
    return TopicTypo(topic, near, False, tuple(users), tuple(hearing.uses[near]))


def near_published(wide: str, published: Iterable[TopicUse], heard: Iterable[TopicUse] = ()) -> TopicTypo | None:
    """For one more listener to a topic or filter: the published topic that was probably meant. None where somebody
    publishes it, or none is near."""
    publishing, hearing = _Published(published), _Heard(heard)
    if _is_open(wide) or publishing.feeds(wide):
        return None
    near = _nearest(wide, publishing.uses, (topic for topic in publishing.uses if not hearing.hears(topic)))
    return None if near is None else TopicTypo(wide, near, True, (), tuple(publishing.uses[near]))


def near_heard(topic: str, heard: Iterable[TopicUse], published: Iterable[TopicUse] = ()) -> TopicTypo | None:
    """For one more publisher of a topic: the heard topic that was probably meant. None where somebody hears it, or none
    is near."""
    publishing, hearing = _Published(published), _Heard(heard)
    if _is_open(topic) or topic in KNOWN_PUBLISHED or hearing.hears(topic):
        return None
    near = _nearest(topic, hearing.uses, (wide for wide in hearing.uses if not publishing.feeds(wide)))
    return None if near is None else TopicTypo(topic, near, False, (), tuple(hearing.uses[near]))


def _is_open(topic: str) -> bool:
    """Whether programs without Ether publish and hear there, too."""
    return topic.startswith(OUTSIDE)


def _is_wide(topic: str) -> bool:
    return "+" in topic or "#" in topic


def _by_topic(uses: Iterable[TopicUse]) -> dict[str, list[TopicUse]]:
    found: dict[str, list[TopicUse]] = {}
    for use in uses:
        found.setdefault(use.topic, []).append(use)
    return found


def _nearest(topic: str, known: Mapping[str, Sequence[TopicUse]], lacking: Iterable[str]) -> str | None:
    """The known topic that is nearly the same, of those with fewest slips the first. For those that are `lacking` a
    partner, too, the wider rules hold."""
    wider, best = set(lacking), None
    for other in list(known)[:_MOST_KNOWN]:
        if _is_open(other):
            continue
        slips = _alias(topic, other, known[other]) if other in wider else None
        slips = slips if slips is not None else slips_between(topic, other, strict=other not in wider)
        if slips is not None and (best is None or slips < best[0]):
            best = slips, other
    return None if best is None else best[1]


def _alias(topic: str, known: str, users: Sequence[TopicUse]) -> int | None:
    """1 where one of two topics is a default topic (`Camera.image`) and the other its method alone, or the method with
    the name of an instance of that class."""
    for one, other in ((known, topic), (topic, known)):
        title, _, method = one.rpartition(".")
        if title and (other == method or any(other in (f"{u.member}.{method}", f"{u.member}/{method}") for u in users)):
            return 1
    return None


# -- how near two topics are


def slips_between(topic: str, other: str, *, strict: bool) -> int | None:
    """The number of slips (a letter too many, too few, another, or two in the wrong order) by which one topic may be
    the other one misspelt; None where it is another name. Levels are compared one by one, and `+` is any."""
    one, two = topic.split("/"), other.split("/")
    if "#" in (one[-1], two[-1]):
        length = min(len(one) - (one[-1] == "#"), len(two) - (two[-1] == "#"))
        one, two = one[:length], two[:length]
    if len(one) != len(two):
        return None
    total = 0
    for a, b in zip(one, two, strict=True):
        slips = 0 if a == b or "+" in (a, b) else _level_slips(a, b, strict)
        if slips is None:
            return None
        total += slips
    return total or None


class _Level(NamedTuple):
    """What two levels are compared by."""

    folded: str
    words: tuple[str, ...]
    numbers: tuple[str, ...]


@lru_cache(4096)
def _parts(level: str) -> _Level:
    words = tuple(word.casefold() for word in _WORDS.findall(level))
    return _Level(_SEPARATORS.sub("", level).casefold(), words, tuple(_NUMBERS.findall(level)))


def _level_slips(a: str, b: str, strict: bool) -> int | None:
    one, two = _parts(a), _parts(b)
    if one.folded == two.folded:
        return 1
    if one.numbers != two.numbers or len(one.words) != len(two.words):
        return None
    total = 0
    for x, y in zip(one.words, two.words, strict=True):
        slips = 0 if x == y else _word_slips(x, y, strict)
        if slips is None:
            return None
        total += slips
    return total or None


def _word_slips(x: str, y: str, strict: bool) -> int | None:
    shorter, longer = sorted((x, y), key=len)
    if len(shorter) < _SHORT or len(longer) - len(shorter) > 2:
        return None
    if strict and (longer == shorter + "s" or (len(longer) < _FIRM and _differs_in_one(x, y))):
        return None
    slips = _distance(x, y)
    return slips if slips <= (2 if len(shorter) >= _LONG else 1) else None


def _differs_in_one(x: str, y: str) -> bool:
    return len(x) == len(y) and sum(a != b for a, b in zip(x, y, strict=True)) == 1


def _distance(x: str, y: str) -> int:
    """Damerau's distance: letters too many, too few, another, or two neighbours in the wrong order."""
    before: list[int] = []
    last = list(range(len(y) + 1))
    for i, a in enumerate(x, 1):
        row = [i]
        for j, b in enumerate(y, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a != b))
            if before and j > 1 and a == y[j - 2] and x[i - 2] == b:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]
