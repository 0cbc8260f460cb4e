"""Log levels, changed in a running process by a message of the session.

`…/control/log-level` carries `{"instances": ["cam"], "level": "debug", "logger": ""}`. An empty logger means the level
of the whole process. A level holds until the process ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ether.errors import ConfigError
from ether.log import loggers_with_a_level, set_level
from ether.protocol.barrier import Answer

VERB = "log-level"

_LOGGER_MAX = 200


def apply_level(value: Mapping[str, Any]) -> dict[str, Any]:
    """Set the level that the message asks for; returns `logger`, `level`, `before`, and in `kept` the loggers that have
    a level of their own, which the change does not reach. Raises `ConfigError`, and changes nothing, where the message
    is wrong."""
    level, logger = value.get("level"), value.get("logger", "")
    if isinstance(level, str) and level.isdecimal() and len(level) <= 3:
        level = int(level)
    if isinstance(level, bool) or not isinstance(level, (int, str)):
        raise ConfigError(f"found the log level {level!r:.40}; expected a number or a word such as 'debug'.")
    if not isinstance(logger, str) or len(logger) > _LOGGER_MAX:
        raise ConfigError(f"found the logger {logger!r:.40}; expected a name of at most {_LOGGER_MAX} characters.")
    before = set_level(level, logger)
    return {
        "logger": logger,
        "level": level if isinstance(level, int) else level.upper(),
        "before": before,
        "kept": loggers_with_a_level() if not logger else {},
    }


def level_answer(value: Mapping[str, Any]) -> Answer:
    """As `apply_level`, as an instance's answer: a mistake is in the answer, not raised."""
    try:
        return Answer(ran=(VERB,), results=apply_level(value))
    except ConfigError as error:
        return Answer(failed={VERB: str(error)})
