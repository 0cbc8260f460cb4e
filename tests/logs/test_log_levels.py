"""Levels that change while the program runs."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from ether import log as logs
from ether.errors import ConfigError
from ether.logs.levels import apply_level, level_answer


@pytest.fixture(autouse=True)
def _leave_levels_as_they_were() -> Iterator[None]:
    logs.uninstall_console()
    root = logging.getLogger()
    before = root.level
    yield
    logs.uninstall_console()
    root.setLevel(before)


@pytest.fixture
def console() -> io.StringIO:
    stream = io.StringIO()
    logs.install_instance_console("cam", stream)
    return stream


def said(console: io.StringIO) -> list[str]:
    return [line.rpartition(" - ")[2] for line in console.getvalue().splitlines()]


def test_a_process_learns_to_debug_and_to_be_quiet_again(console: io.StringIO) -> None:
    user = logging.getLogger("user.code")
    user.debug("not heard")
    answer = apply_level({"instances": ["cam"], "level": "debug", "logger": ""})
    assert (answer["before"], answer["level"], answer["logger"]) == ("INFO", "DEBUG", "")
    user.debug("heard")
    assert apply_level({"level": "INFO"})["before"] == "DEBUG"
    user.debug("not heard again")
    assert said(console) == ["[user.code] heard"]


def test_one_logger_alone_by_the_name_in_its_lines(console: io.StringIO) -> None:
    lens = logs.get_ether_logger("lens.motor")
    answer = apply_level({"level": "debug", "logger": "lens.motor"})
    assert answer["before"] == "NOTSET"
    lens.debug("heard")
    logging.getLogger("user.code").debug("not heard")
    lens.setLevel(logging.NOTSET)
    assert said(console) == ["[lens.motor] heard"]


def test_a_library_that_is_named_is_heard(console: io.StringIO) -> None:
    def say(name: str) -> None:
        logger = logging.getLogger(name)
        if logger.isEnabledFor(logging.DEBUG):
            logger.handle(logging.LogRecord(name, logging.DEBUG, pytest.__file__, 1, name, (), None))

    apply_level({"level": "debug"})
    say("lib.part")
    apply_level({"level": "debug", "logger": "lib"})
    for name in ("lib.part", "lib", "library"):
        say(name)
    logging.getLogger("lib").setLevel(logging.NOTSET)
    assert said(console) == ["[lib.part] lib.part", "[lib] lib"]


def test_what_keeps_a_level_of_its_own_is_told() -> None:
    logs.get_ether_logger("quiet", "ERROR")
    try:
        assert apply_level({"level": "debug"})["kept"]["quiet"] == "ERROR"
    finally:
        logs.get_ether_logger("quiet").setLevel(logging.NOTSET)


def test_in_a_program_the_consoles_level_does_not_stand_in_the_way() -> None:
    stream = io.StringIO()
    logs.install_console(stream=stream)
    apply_level({"level": "debug"})
    logs.get_ether_logger().debug("heard")
    logs.uninstall_console()
    assert said(stream) == ["heard"]


@pytest.mark.parametrize("level", ["15", 15])
def test_numbers(level: object) -> None:
    assert apply_level({"level": level})["level"] == 15
    assert logging.getLogger().level == 15


@pytest.mark.parametrize(
    "value",
    [
        {},
        *({"level": level} for level in (None, "loud", True, 1.5, ["debug"], "9" * 5000)),
        *({"level": "debug", "logger": logger} for logger in (5, "x" * 300)),
    ],
)
def test_what_cannot_be_changes_nothing(value: dict[str, Any]) -> None:
    before = logging.getLogger().level
    with pytest.raises(ConfigError, match="expected a"):
        apply_level(value)
    answer = level_answer(value)
    assert "expected a" in answer.failed["log-level"]
    assert logging.getLogger().level == before


def test_the_answer_to_who_asked() -> None:
    answer = level_answer({"level": "debug", "logger": "answered"})
    logging.getLogger("answered").setLevel(logging.NOTSET)
    assert answer.ran == ("log-level",)
    assert answer.results == {"logger": "answered", "level": "DEBUG", "before": "NOTSET", "kept": {}}
