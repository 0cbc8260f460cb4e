"""A log record as a line of text: made from a message of the session, written to a file, read back from it.

    2025-01-16 11:28:42.765 - cam:51475 - INFO - [lens] focused<tab>[019470a2-7c1d-7e01-8a53-2f6f0c7d3b11]

The form is that of the console, followed by a tab and the id of the message that was being handled. Further lines of
the message, and the traceback, follow below it, indented by four spaces. Times are local.

The trap: the text may come from any program. Control characters are shown escaped, so that a record can neither forge a
line nor send commands to the terminal of a reader.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from ether.errors import ConfigError
from ether.log import ROOT_NAME

LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}

_EARLIEST = 86_400.0
"""The earliest time that every platform can show. A machine without a battery logs at earlier ones, until its clock is
set."""
_INDENT = "    "
_NAME_MAX = 250
_TEXT_MAX = 32_768
"""Characters. Ether's own records are shorter; a foreign record may have any length."""

# In two pieces, so that each is read in time that grows with the line, whatever a damaged line holds: who logged, of a
# bounded length, and what, whose message id is looked for from the end.
_HEAD = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}) - (?P<instance>.{1,400}?):(?P<pid>\d{1,19})"
    r" - (?P<level>[^ ].{0,1600}?) - (?:\[(?P<logger>[\w.]{1,300})\] )?"
)
_MESSAGE_ID = re.compile(r"\t\[([0-9a-zA-Z-]{1,64})\]$")
_ID_MAX = 80
_ID = re.compile("[0-9a-zA-Z-]{1,64}")
_LEVEL_NUMBER = re.compile(r"\((-?\d{1,9})\)$|^Level (-?\d{1,9})$")
_HARMFUL = [
    *range(0x20),
    *range(0x7F, 0xA0),
    0x61C,
    0x200E,
    0x200F,
    0x2028,
    0x2029,
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
]
_ESCAPES = {code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in _HARMFUL} | {9: "\\t"}


@dataclass(frozen=True, slots=True)
class LogLine:
    """One record. `time` is seconds since 1970; `message` includes the traceback, where there is one, on further
    lines."""

    time: float
    level: str
    instance: str
    message: str
    pid: int = 0
    logger: str = ""
    message_id: str | None = None
    trace: str | None = None
    level_number: int = LEVELS["INFO"]
    cause: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_value(cls, value: object, instance: str) -> LogLine | None:
        """From a message on the log topic of `instance`; the topic counts, not the sender that the body names. None
        where the message is no log record."""
        # Only level, message and time make a record; every other field falls back to a default, and each is checked,
        # because the value may come from any program.
        if not isinstance(value, dict):
            return None
        level, time, pid = value.get("level"), value.get("time"), value.get("pid", 0)
        texts = [value.get("message"), value.get("exception")]
        if not isinstance(level, str) or not level.strip() or not isinstance(texts[0], str):
            return None
        if not isinstance(time, (int, float)) or not _can_be_a_time(time):
            return None
        message_id = _text(value.get("message_id"))
        return cls(
            max(float(time), _EARLIEST),
            level[:_NAME_MAX].strip(),
            instance,
            "\n".join(text[:_TEXT_MAX] for text in texts if isinstance(text, str)),
            pid if isinstance(pid, int) and 0 <= pid < 1 << 62 else 0,
            (_text(value.get("logger")) or "")[:_NAME_MAX],
            message_id if message_id and _ID.fullmatch(message_id) else None,
            _text(value.get("trace")),
            _level_number(level, value.get("level_number")),
            _texts(value.get("cause")),
        )

    def to_text(self) -> str:
        """The text for a file, with a newline at its end."""
        first, *more = self.message.split("\n")
        behind = f"\t[{_shown(self.message_id)}]" if self.message_id else ""
        moment = datetime.fromtimestamp(self.time)
        written = f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d}"
        who = f"{_shown(self.instance)}:{self.pid}"
        head = f"{written} - {who} - {self._level_text()} - {self._logger_text()}{_shown(first)}{behind}\n"
        return head + "".join(f"{_INDENT}{_shown(line)}\n" for line in more)

    def _level_text(self) -> str:
        known = LEVELS.get(self.level) == self.level_number or self.level == f"Level {self.level_number}"
        return _shown(self.level) if known else f"{_shown(self.level)}({self.level_number})"

    def _logger_text(self) -> str:
        name = self.logger.removeprefix(f"{ROOT_NAME}.")
        return "" if name in ("", ROOT_NAME, "root", self.instance) else f"[{_shown(name)}] "


def read_lines(text: Iterable[str]) -> Iterator[LogLine]:
    """The records of a text, which is read line by line. Lines before the first record are ignored: rotation may have
    cut a file in the middle of one."""
    found: LogLine | None = None
    below: list[str] = []
    for raw in text:
        line = raw.removesuffix("\n")
        head = None if line.startswith(_INDENT) else _read_line(line)
        if head is None:
            below.append(line.removeprefix(_INDENT))
            continue
        if found is not None:
            yield _with(found, below)
        found, below = head, []
    if found is not None:
        yield _with(found, below)


def level_number(level: int | str) -> int:
    """The number of a level that a user names; raises `ConfigError`."""
    if isinstance(level, int):
        return level
    if level.upper() not in LEVELS:
        raise ConfigError(f"found the log level {level!r:.40}; expected a number or one of {', '.join(LEVELS)}.")
    return LEVELS[level.upper()]


def _read_line(line: str) -> LogLine | None:
    """The first line of a record; None for any other line, also for one whose time is none."""
    head = _HEAD.match(line)
    if head is None:
        return None
    try:
        moment = datetime.fromisoformat(head["time"]).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    level, message = head["level"], line[head.end() :]
    message_id = _MESSAGE_ID.search(message, max(0, len(message) - _ID_MAX))
    return LogLine(
        moment,
        level.partition("(")[0],
        head["instance"],
        message[: message_id.start()] if message_id else message,
        int(head["pid"]),
        head["logger"] or "",
        message_id[1] if message_id else None,
        level_number=_level_number(level, None),
    )


def _with(head: LogLine, below: list[str]) -> LogLine:
    return replace(head, message="\n".join([head.message, *below])) if below else head


def _level_number(level: str, given: Any) -> int:
    if level in LEVELS:
        return LEVELS[level]
    if isinstance(given, int):
        return given
    written = _LEVEL_NUMBER.search(level)
    return int(written[1] or written[2]) if written else LEVELS["INFO"]


def _can_be_a_time(time: float) -> bool:
    """From 1970 to 9998."""
    return 0 <= time < 253_300_000_000


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: object) -> dict[str, str]:
    return {str(key): str(text) for key, text in value.items()} if isinstance(value, dict) else {}


def _shown(text: str) -> str:
    return text.translate(_ESCAPES)
