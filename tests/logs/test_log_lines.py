"""A record's text says what the record said, can be read back, and cannot be forged."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ether.errors import ConfigError
from ether.logs.lines import LogLine, level_number, read_lines

NOON = time.mktime((2025, 1, 16, 11, 28, 42, 0, 0, -1)) + 0.765
VALUE: dict[str, Any] = {
    "time": NOON,
    "level": "INFO",
    "logger": "Ether.lens",
    "instance": "cam",
    "pid": 51475,
    "message": "focused",
    "message_id": "019470a2-7c1d-7e01-8a53-2f6f0c7d3b11",
    "trace": "0" * 32,
}


def line_of(**changes: Any) -> LogLine:
    line = LogLine.from_value({**VALUE, **changes}, "cam")
    assert line is not None
    return line


def read(text: str) -> list[LogLine]:
    return list(read_lines(text.splitlines(keepends=True)))


def test_the_form() -> None:
    assert line_of().to_text() == (
        "2025-01-16 11:28:42.765 - cam:51475 - INFO - [lens] focused\t[019470a2-7c1d-7e01-8a53-2f6f0c7d3b11]\n"
    )
    assert line_of(logger="Ether", message_id=None).to_text() == (
        "2025-01-16 11:28:42.765 - cam:51475 - INFO - focused\n"
    )


def test_a_traceback_stands_below_its_line() -> None:
    text = line_of(
        message="failed\nbadly", exception="Traceback:\n  File x\n\nValueError: y", message_id=None
    ).to_text()
    assert text.splitlines()[1:] == ["    badly", "    Traceback:", "      File x", "    ", "    ValueError: y"]
    (line,) = read(text)
    assert line.message == "failed\nbadly\nTraceback:\n  File x\n\nValueError: y"


def test_nobody_can_forge_a_line_or_speak_to_the_terminal() -> None:
    forged = "one\n2025-01-16 11:28:42.765 - boss:1 - ERROR - two\rthree\x1b[2Jfour\x85five\u2028six\ttab\u202etxet"
    text = line_of(message=forged).to_text()
    (line,) = read(text)
    assert (line.instance, line.level) == ("cam", "INFO")
    assert not set(text) & set("\r\x1b\x85\u2028\u202e")
    assert "two\\x0dthree\\x1b[2Jfour\\x85five\\u2028six\\ttab" in text


@pytest.mark.parametrize(
    ("level", "number", "text"),
    [("ERROR", None, "ERROR"), ("Level 25", 25, "Level 25"), ("NOTICE", 25, "NOTICE(25)"), ("AUDIT", 45, "AUDIT(45)")],
)
def test_levels_of_the_users_own(level: str, number: int | None, text: str) -> None:
    line = line_of(level=level, level_number=number)
    assert f" - {text} - " in line.to_text()
    (again,) = read(line.to_text())
    assert (again.level, again.level_number) == (level, line.level_number)


plain = st.text(st.characters(min_codepoint=32, max_codepoint=0x24F, blacklist_categories=["Cc"]), max_size=60)


@given(st.lists(plain, min_size=1, max_size=4), plain, st.booleans(), st.integers(0, 2_000_000_000_000))
def test_what_was_written_is_read_back(lines: list[str], before: str, with_id: bool, time_ms: int) -> None:
    line = line_of(
        message="\n".join(lines),
        logger="Ether",
        message_id=VALUE["message_id"] if with_id else None,
        time=max(90_000.0, time_ms / 1000),
    )
    junk = f"    {before}\n"  # what a file may begin with that was cut
    (again,) = read(junk + line.to_text())
    assert again.to_text() == line.to_text()
    assert abs(again.time - line.time) < 0.002 or time.localtime(line.time).tm_isdst >= 0


@pytest.mark.parametrize(
    "value",
    [
        *(None, 5, [], {}),
        *({**VALUE, "time": moment} for moment in ("now", float("nan"), float("inf"), 10**400, -1.0)),
        *({**VALUE, "level": level} for level in (5, "", " ")),
        {**VALUE, "message": None},
    ],
)
def test_what_is_no_record(value: object) -> None:
    assert LogLine.from_value(value, "cam") is None


def test_odd_fields_of_a_record_do_no_harm() -> None:
    odd = {"pid": 10**400, "logger": 7, "message_id": "a\tb", "trace": [], "cause": 5, "message": "x" * 10**6}
    line = line_of(**odd)
    assert (line.pid, line.logger, line.message_id, line.trace, line.cause) == (0, "", None, None, {})
    assert len(line.to_text()) < 40_000


def test_who_it_is_from_is_said_by_the_topic() -> None:
    line = LogLine.from_value({**VALUE, "instance": "boss"}, "cam")
    assert line is not None
    assert line.instance == "cam"


def test_level_numbers() -> None:
    assert [level_number(level) for level in (0, 35, "error", "WARNING")] == [0, 35, 40, 30]
    with pytest.raises(ConfigError, match="'loud'; expected a number or one of DEBUG"):
        level_number("loud")
