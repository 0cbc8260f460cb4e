"""A restart reports itself, at once, never the one before (instances.md I1): edit, error, mend, restart."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from engine_params import EMBEDDED
from patience import patience

from ether import Ether
from ether.errors import StartFailed

CLASS = "from ether import ether_get\n\nclass W:\n    @ether_get\n    def version(self): return {}\n"


def write(file: Path, text: str) -> None:
    """A new version of a module. Its length differs from the one before, so that no compiled form is taken for it."""
    file.write_text(text)


@pytest.mark.parametrize("engine", EMBEDDED)
def test_i1_a_restart_reports_itself_and_not_the_one_before(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = {"engine": engine}
    file = tmp_path / "parts_i1.py"
    write(file, CLASS.format(1))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "parts_i1", raising=False)
    with Ether().tap({"session": "i1", "broker": broker, "instances": {"w": {"class_path": "parts_i1.W"}}}) as ether:
        write(file, CLASS.format(22) + "   broken\n")
        with pytest.raises(StartFailed, match=r"IndentationError") as failed:
            ether.restart("w")
        assert str(failed.value).startswith("instance w did not start; session 'i1' runs on without it")
        began = time.monotonic()
        write(file, CLASS.format(333))
        ether.restart("w")
        assert ether.get("w", "version") == 333
        assert time.monotonic() - began < patience(4.0)  # the drain of a process that never came up took 10 s
        write(file, "import no_such_package\n")
        for _ in range(2):  # the second one is asked for while the process of the first may still be ending
            with pytest.raises(StartFailed, match="no_such_package"):
                ether.restart("w")
        write(file, CLASS.format(4444))
        ether.restart("w")
        assert ether.get("w", "version") == 4444


def test_i1_an_instance_that_cannot_be_added_leaves_the_session_as_it_is() -> None:
    with Ether().tap({"session": "i1"}) as ether:
        with pytest.raises(StartFailed, match=r"instance w did not start; session 'i1' runs on without it"):
            ether.add("w", {"class_path": "kept_parts.NoSuchClass"})
        ether.add("w", {"class_path": "kept_parts.Worker"})
        assert ether.get("w", "add", {"a": 1, "b": 2}) == 3
