"""One format for every process, one write for every record, and the user's own logging respected."""

from __future__ import annotations

import io
import logging
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

from ether import log as logs
from ether.errors import ConfigError
from ether.utils import get_ether_logger

LINE = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} - (?P<name>.+?):(?P<pid>\d+) - (?P<level>[A-Z]+) - (?P<text>.*)"
)


class OneWrite(io.StringIO):
    """Keeps every write apart."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return super().write(text)


@pytest.fixture(autouse=True)
def _leave_logging_as_it_was() -> Iterator[None]:
    ether, root = logging.getLogger("Ether"), logging.getLogger()
    logs.uninstall_console()  # a session of an earlier test in this process has installed one
    before = [(logger, logger.level, list(logger.handlers)) for logger in (ether, root)]
    yield
    logs.uninstall_console()
    assert [(logger, logger.level, list(logger.handlers)) for logger in (ether, root)] == before


def fields(line: str) -> tuple[str, int, str, str]:
    match = LINE.fullmatch(line)
    assert match, line
    return match["name"], int(match["pid"]), match["level"], match["text"]


def run(program: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(program)]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def test_the_format() -> None:
    stream = io.StringIO()
    logs.install_console(stream=stream)
    get_ether_logger().info("Starting Ether session: %s...", "bench")
    get_ether_logger("camera").warning("slow")
    get_ether_logger().debug("not shown")
    first, second = stream.getvalue().splitlines()
    assert fields(first) == ("Ether", os.getpid(), "INFO", "Starting Ether session: bench...")
    assert fields(second) == ("camera", os.getpid(), "WARNING", "slow")


def test_a_process_name_stands_in_for_ether() -> None:
    stream = io.StringIO()
    logs.install_console("generator", stream)
    get_ether_logger().info("ready")
    assert fields(stream.getvalue().rstrip())[0] == "generator"


def test_a_traceback_is_part_of_one_write() -> None:
    stream = OneWrite()
    logs.install_console(stream=stream)
    try:
        raise RuntimeError("broken\nin two lines")
    except RuntimeError:
        get_ether_logger().exception("handler failed")
    (written,) = stream.writes
    first, *rest = written.splitlines()
    assert fields(first)[2:] == ("ERROR", "handler failed")
    assert rest[0] == "Traceback (most recent call last):"
    assert rest[-2:] == ["RuntimeError: broken", "in two lines"]


def test_installing_again_replaces() -> None:
    first, second = io.StringIO(), io.StringIO()
    logs.install_console(stream=first)
    logs.install_console(stream=second)
    get_ether_logger().info("once")
    assert first.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 1


def test_uninstalling_twice_is_fine() -> None:
    logs.uninstall_console()
    logs.install_console()
    logs.uninstall_console()
    logs.uninstall_console()


@pytest.mark.parametrize(("given", "level"), [(None, 0), ("debug", 10), ("ERROR", 40), (15, 15)])
def test_log_levels(given: int | str | None, level: int) -> None:
    logger = get_ether_logger(f"level.{given}", given)
    assert logger.level == level
    assert logger.handlers == []
    assert logger.name == f"Ether.level.{given}"
    logger.setLevel(logging.NOTSET)


def test_an_unknown_log_level_names_the_known() -> None:
    with pytest.raises(ConfigError, match=r"'loud'; expected a number or one of DEBUG, INFO"):
        get_ether_logger("x", "loud")


@pytest.mark.parametrize("name", ["Ether", ""])
def test_the_frameworks_own_logger(name: str) -> None:
    assert get_ether_logger(name) is logging.getLogger("Ether")
    assert get_ether_logger("Ether.x") is get_ether_logger("x")


def test_a_level_that_the_user_chose_is_kept() -> None:
    stream = io.StringIO()
    get_ether_logger(log_level="DEBUG")
    logs.install_console(stream=stream)
    get_ether_logger().debug("seen")
    logs.uninstall_console()
    assert get_ether_logger().level == logging.DEBUG
    get_ether_logger().setLevel(logging.NOTSET)
    assert "seen" in stream.getvalue()


def test_importing_and_getting_a_logger_change_nothing() -> None:
    done = run("""
        import logging
        from ether.utils import get_ether_logger
        get_ether_logger("x", "INFO").debug("nothing")
        print(logging.getLogger().handlers, logging.getLogger("Ether").handlers)
    """)
    assert (done.stdout.strip(), done.stderr) == ("[] []", "")


def test_stderr_is_looked_up_when_a_record_is_written() -> None:
    done = run("""
        import contextlib, io, sys
        from ether.log import get_ether_logger, install_console
        install_console()
        with contextlib.redirect_stderr(io.StringIO()) as caught:
            get_ether_logger().info("inside")
        get_ether_logger().info("outside")
        print("inside" in caught.getvalue())
    """)
    assert done.stdout.strip() == "True"
    (line,) = done.stderr.splitlines()
    assert fields(line)[3] == "outside"


@pytest.mark.parametrize("order", ["before", "after"])
def test_the_users_own_configuration_shows_each_record_once(order: str) -> None:
    configure = "logging.basicConfig(format='MINE %(message)s', level='INFO')"
    done = run(f"""
        import logging
        from ether.log import get_ether_logger, install_console
        {configure if order == "before" else ""}
        install_console()
        {configure if order == "after" else ""}
        get_ether_logger().info("hello")
    """)
    assert done.stderr == "MINE hello\n"


def test_a_broken_record_does_not_harm_the_caller() -> None:
    done = run("""
        from ether.log import get_ether_logger, install_console
        install_console()
        get_ether_logger().info("%d", "not a number")
        get_ether_logger().info("still here")
    """)
    assert "--- Logging error ---" in done.stderr
    assert "still here" in done.stderr


def test_an_instance_shows_everybody_under_its_name() -> None:
    stream = io.StringIO()
    logs.install_instance_console("camera", stream)
    get_ether_logger().info("own")
    get_ether_logger("camera").info("by its name")
    get_ether_logger("lens").info("a part")
    logging.getLogger("my_module").info("user")
    logging.getLogger("my_module").debug("not shown")
    logging.getLogger().info("root")
    lines = [fields(line) for line in stream.getvalue().splitlines()]
    assert [(name, text) for name, _, _, text in lines] == [
        ("camera", "own"),
        ("camera", "by its name"),
        ("camera", "[lens] a part"),
        ("camera", "[my_module] user"),
        ("camera", "root"),
    ]


def test_libraries_speak_from_warning_up() -> None:
    stream = io.StringIO()
    logs.install_instance_console("camera", stream)

    def record(path: str, level: int, text: str) -> None:
        logging.getLogger("lib").handle(logging.LogRecord("lib", level, path, 1, text, (), None))

    record(pytest.__file__, logging.INFO, "quiet")  # in site-packages
    record(logging.__file__, logging.INFO, "quiet")  # in the standard library
    record("<frozen importlib._bootstrap>", logging.INFO, "quiet")
    record(pytest.__file__, logging.WARNING, "loud")
    record(__file__, logging.INFO, "user")
    assert [fields(line)[3] for line in stream.getvalue().splitlines()] == ["[lib] loud", "[lib] user"]


def test_uninstalling_an_instance_console_restores_the_root() -> None:
    before = logging.getLogger().level
    logs.install_instance_console("camera")
    logs.install_instance_console("camera")
    logs.uninstall_console()
    assert logging.getLogger().level == before
