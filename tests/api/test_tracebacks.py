"""Tracebacks end at the user's line: in scripts, threads, notebooks and logs; ETHER_TRACEBACK=full shows all."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
import traceback
from pathlib import Path

import pytest
from patience import patience

from ether import Ether, ether_sub
from ether.errors import ConfigError, EncodeError, EtherError, NoResponder, NotJoined
from ether.errors.tracebacks import lines_of, show_at_the_users_line, user_traceback
from ether.instance.class_loading import find_class
from ether.log import UserTracebacks
from ether.testing import Lab


def raised(call: object) -> BaseException:
    try:
        call()  # type: ignore[operator]
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def frames(lines: list[str]) -> list[str]:
    return [line.split('"')[1] for part in lines for line in part.splitlines() if line.startswith("  File ")]


def unsent() -> object:
    return Ether().pub(7)


@pytest.fixture(scope="module")
def lab() -> object:
    with Lab() as own:
        yield own


def test_the_frames_are_the_users_and_the_sentence_follows() -> None:
    error = raised(unsent)
    lines = lines_of(error)
    assert set(frames(lines)) == {__file__}
    assert lines[-1] == "ether.errors.NotJoined: ether.pub() needs a running session: call ether.tap() first\n"
    assert len(frames(traceback.format_exception(error))) > len(frames(lines)), "the exception itself keeps them all"


def test_a_notebook_shows_the_same() -> None:
    error = raised(unsent)
    assert isinstance(error, EtherError)
    told = "\n".join(error._render_traceback_()) + "\n"
    assert told == "".join(lines_of(error))


def test_everything_is_shown_where_the_environment_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETHER_TRACEBACK", "full")
    error = raised(unsent)
    assert lines_of(error) == traceback.format_exception(error)
    assert user_traceback(error) is error.__traceback__


def test_own_causes_are_left_out_and_those_of_the_user_stay() -> None:
    def of_ether() -> None:
        try:
            load()
        except EtherError as error:
            raise NotJoined("x") from error

    def load() -> None:
        from ether.config import load_config

        load_config({"instnces": {}})

    error = raised(of_ether)
    assert "ConfigError" in "".join(lines_of(error)), "the user's own frame is in it"
    error.__cause__ = _without_users_frames(error.__cause__)
    assert "ConfigError" not in "".join(lines_of(error))
    unlike = RuntimeError("a defect")
    unlike.__cause__ = error.__cause__
    assert "ConfigError" in "".join(lines_of(unlike)), "of what is no error of Ether's every cause is shown"


def _without_users_frames(error: BaseException | None) -> BaseException:
    assert error is not None
    found = error.__traceback__
    while found is not None and found.tb_frame.f_code.co_filename == __file__:
        found = found.tb_next
    return error.with_traceback(found)


def test_a_file_that_cannot_be_compiled_is_shown_by_its_line_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no frame of its own, and so the inside of Ether and of the import stood above the sentence."""
    file = tmp_path / "uncompiled_cam.py"
    file.write_text("class Cam:\n    def one(self:\n        return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    error = raised(lambda: find_class("uncompiled_cam.Cam", None))
    inside = error.__traceback__
    while inside is not None and inside.tb_frame.f_code.co_filename == __file__:  # an instance has no such frames
        inside = inside.tb_next
    lines = "".join(lines_of(error.with_traceback(inside))).splitlines()
    assert lines[0] == f'  File "{file}", line 2'
    assert lines[-1] == "SyntaxError: '(' was never closed"
    assert len(lines) == 4


def test_a_condition_of_the_users_between_ethers_frames_is_shown(lab: Lab) -> None:
    def inner() -> None:
        raise NoResponder("cam.snap", "no instance and no class is named 'cam'")

    class Hears:
        @ether_sub(topic="in")
        def hear(self) -> None:
            inner()

    with Lab(objects={"one": Hears()}) as own:
        error = raised(lambda: own.pub(None, topic="in"))
    told = lines_of(error)
    assert set(frames(told)) == {__file__}
    assert "in hear" in "".join(told)
    assert "in inner" in "".join(told)


def test_log_lines_show_the_same(caplog: pytest.LogCaptureFixture) -> None:
    try:
        unsent()
    except EtherError:
        logging.getLogger("mine").exception("no luck")
    (record,) = [record for record in caplog.records if record.name == "mine"]
    told = UserTracebacks().format(record)
    assert set(frames([told])) == {__file__}
    assert told.startswith("no luck\nTraceback (most recent call last):\n")


def test_a_payload_that_does_not_fit_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    class Takes:
        @ether_sub(topic="in")
        def take(self, number: int) -> None: ...

    with Lab(objects={"one": Takes()}, collect_failures=True) as own:
        own.pub({"number": "many"}, topic="in")
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is None
    assert "Takes.take failed: ValidationFailed: " in record.getMessage()
    assert "number: " in record.getMessage()


def test_hooks_of_the_user_go_on_being_called(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(sys, "excepthook", lambda *args: seen.append(args[1]))
    monkeypatch.setattr("threading.excepthook", lambda args: seen.append(args.exc_value))
    show_at_the_users_line()
    hook = sys.excepthook
    show_at_the_users_line()
    assert sys.excepthook is hook, "once"
    error = ConfigError("x")
    sys.excepthook(ConfigError, error, None)
    assert seen == [error]


SCRIPT = """
import sys
import threading
from ether import Ether

def work(ether):
    ether.get("cam", "snap")

with Ether() as ether:
    ether.tap()
    thread = threading.Thread(target=work, args=(ether,), name="mine")
    thread.start()
    thread.join()
    work(ether)
"""


@pytest.mark.parametrize("full", [False, True])
def test_a_script_and_its_threads(tmp_path: Path, full: bool) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    environment = {**os.environ, "ETHER_TRACEBACK": "full" if full else ""}
    done = subprocess.run(
        [sys.executable, str(script)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=patience(60),
        check=False,
    )
    assert done.returncode == 1
    first, _, second = done.stderr.partition("Exception in thread mine:\n")[2].partition("NoResponder")
    assert done.stderr.count("nobody can answer cam.snap") == 2
    found = set(frames([first, second]))
    assert (found == {str(script)}) is not full, done.stderr


def test_what_cannot_travel_names_only_the_users_lines() -> None:
    """79 lines of Ether's inside stood above the sentence."""
    with Lab() as own:
        error = raised(lambda: own.pub({"x": object()}, topic="in"))
    assert isinstance(error, EncodeError)
    found = {file for file in frames(lines_of(error)) if not file.endswith("lock_watch.py")}  # the tests' own locks
    assert found == {__file__}
