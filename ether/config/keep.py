"""What a subscriber wants of the messages that wait for it, as users write it.

    keep: all         every message, in order (the default)
    keep: latest      only the newest that waits, of each topic and source
    keep: 10          the newest ten, of each topic and source
    max_age: 0.5s     none that is older than this when its turn comes

It imports only the error tree and the durations, because every process that runs an instance loads this module.
"""

from __future__ import annotations

import difflib
from typing import NamedTuple

from ether.config.when import duration_s
from ether.errors import ConfigError

ALL, LATEST = "all", "latest"
KEEP_RULE = "expected all, latest, or how many of the newest to keep: a whole number from 1, such as 10."


class Keep(NamedTuple):
    """What is handled of the messages that wait."""

    newest: int | None = None
    """How many, the newest, of each topic and source; None: all of them."""
    max_age_s: float | None = None
    """How old, in seconds, a message may be when its turn comes; None: any age."""

    def __str__(self) -> str:
        """As in a configuration: `keep=latest, max_age=0.5s`."""
        words = LATEST if self.newest == 1 else ALL if self.newest is None else str(self.newest)
        age = "" if self.max_age_s is None else f"max_age={self.max_age_s:g}s"
        return f"keep={words}" if not age else age if self.newest is None else f"keep={words}, {age}"


KEEP_ALL = Keep()


def keep_count(keep: object) -> int | None:
    """The number of messages that `keep` stands for; None for all. Raises `ConfigError` with the rule."""
    if keep is None or keep == ALL:
        return None
    if keep == LATEST:
        return 1
    if type(keep) is int and keep >= 1:
        return keep
    nearest = difflib.get_close_matches(keep.lower(), (ALL, LATEST), n=1) if isinstance(keep, str) else []
    raise ConfigError(f"found {keep!r:.60}; {KEEP_RULE}", nearest=nearest[0] if nearest else None)


def parse_keep(keep: object, max_age: object) -> Keep:
    """Both wishes; None stands for one that was not given. Raises `ConfigError`, which names the wrong one."""
    name = "keep"
    try:
        count = keep_count(keep)
        name = "max_age"
        return Keep(count, None if max_age is None else duration_s(max_age))
    except ConfigError as error:
        raise ConfigError(error.problem, path=name, nearest=error.nearest) from None
