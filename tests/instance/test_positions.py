"""The file of positions outlives its process, and a new incarnation goes on from it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ether.errors import TransportError
from ether.instance.position_file import _CAPACITY, NO_ROW, Positions, read_positions
from ether.instance.resume_rules import EarlierPositions, RowKey, SavedRow, resumption
from ether.transport.base import Receipt
from ether.wire.topics import matches

KEY = RowKey("look", "ether/1/s/data/frame", "0123456789ab", "cam")


class Slip(Receipt):
    """A receipt that the test acknowledges."""

    def __init__(self) -> None:
        self._done = False
        self._callback: Callable[[], object] | None = None

    @property
    def done(self) -> bool:
        return self._done

    @property
    def no_subscribers(self) -> bool:
        return False

    @property
    def error(self) -> None:
        return None

    @property
    def watched(self) -> bool:
        return True

    def when_done(self, callback: Callable[[], object]) -> None:
        assert self._callback is None, "one callback for each receipt"
        self._callback = callback
        if self._done:
            callback()

    def wait(self, timeout_s: float) -> None:
        raise TransportError("nobody waits here")

    def acknowledge(self) -> None:
        self._done = True
        if self._callback is not None:
            self._callback()


def saved(path: Path) -> dict[RowKey, SavedRow]:
    earlier = read_positions(path)
    assert earlier is not None
    return {row.key: row for row in earlier.rows}


def test_a_row_is_in_the_file_at_once(tmp_path: Path) -> None:
    positions = Positions(tmp_path / "p", {"look": False}, "fedcba987654")
    earlier = read_positions(tmp_path / "p")
    assert earlier is not None
    assert (earlier.methods, earlier.node, earlier.rows) == ({"look"}, "fedcba987654", [])
    row = positions.add(KEY)
    row.begin(7)
    assert saved(tmp_path / "p")[KEY] == SavedRow(KEY, begun=7)
    positions.ended(row, 7, None)
    assert saved(tmp_path / "p")[KEY] == SavedRow(KEY, begun=7, done=7, finished=7)
    assert positions.add(KEY) is row
    positions.leave(acknowledged=True)


def test_a_message_is_finished_when_its_results_are_acknowledged(tmp_path: Path) -> None:
    positions = Positions(tmp_path / "p", {"look": False})
    row, slips = positions.add(KEY), [Slip() for _ in range(5)]
    for number, slip in enumerate(slips, 1):
        row.begin(number)
        positions.ended(row, number, slip)
    row.begin(6)
    positions.ended(row, 6, None)  # it published nothing, but what is before it is not acknowledged
    assert saved(tmp_path / "p")[KEY][1:4] == (6, 6, 0)
    slips[0].acknowledge()
    assert saved(tmp_path / "p")[KEY].finished == 1
    for slip in slips[1:]:
        slip.acknowledge()
    assert saved(tmp_path / "p")[KEY].finished == 6
    positions.leave(acknowledged=False)


def test_what_is_not_acknowledged_at_the_end_is_not_finished(tmp_path: Path) -> None:
    for acknowledged, finished in ((False, 0), (True, 1)):
        positions = Positions(tmp_path / "p", {"look": False})
        row = positions.add(KEY)
        row.begin(1)
        positions.ended(row, 1, Slip())
        positions.leave(acknowledged=acknowledged)
        assert saved(tmp_path / "p")[KEY].finished == finished


def test_of_a_method_with_several_threads_the_lowest_in_work_counts(tmp_path: Path) -> None:
    positions = Positions(tmp_path / "p", {"look": True})
    row = positions.add(KEY)
    for number in (1, 2, 3):
        row.begin(number)
    positions.ended(row, 3, None)
    positions.ended(row, 1, None)
    assert saved(tmp_path / "p")[KEY][1:4] == (3, 1, 1)
    positions.ended(row, 2, None)
    assert saved(tmp_path / "p")[KEY][1:4] == (3, 3, 3)
    positions.leave(acknowledged=True)


def test_acknowledgements_on_another_thread(tmp_path: Path) -> None:
    """A worker that ends 2,000 messages while the transport's thread acknowledges: all are finished in the end."""
    positions = Positions(tmp_path / "p", {"look": False})
    row, slips = positions.add(KEY), [Slip() for _ in range(2000)]
    handed: list[Slip] = []

    def acknowledge() -> None:
        done = 0
        while done < len(slips):
            if done < len(handed):
                handed[done].acknowledge()
                done += 1

    thread = threading.Thread(target=acknowledge)
    thread.start()
    for number, slip in enumerate(slips, 1):
        row.begin(number)
        positions.ended(row, number, slip)
        handed.append(slip)
    thread.join()
    assert saved(tmp_path / "p")[KEY].finished == 2000
    positions.leave(acknowledged=False)


def test_a_full_file_keeps_what_it_has(tmp_path: Path) -> None:
    positions = Positions(tmp_path / "p", {"look": False})
    row = positions.add(KEY)
    keys = [KEY._replace(topic=f"{'x' * 1000}/{n}") for n in range(2 * _CAPACITY // 1000)]
    rows = [positions.add(key) for key in keys]
    assert NO_ROW in rows
    assert rows[0] is not NO_ROW
    assert positions.add(keys[-1]) is NO_ROW
    NO_ROW.begin(1)
    positions.ended(NO_ROW, 1, None)
    row.begin(1)
    positions.ended(row, 1, None)
    assert saved(tmp_path / "p")[KEY].finished == 1
    assert os.stat(tmp_path / "p").st_size == _CAPACITY
    positions.leave(acknowledged=True)


@pytest.mark.parametrize("content", [b"", b"ETHPOS1\n", b"x" * 4096, b"ETHPOS1\n" + b"\xff" * 100])
def test_a_damaged_file_is_as_none(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "p").write_bytes(content)
    assert read_positions(tmp_path / "p") is None
    assert "is not known" in caplog.text
    assert read_positions(tmp_path / "none") is None


KILLED = """
import os, signal, sys
from pathlib import Path
from ether.instance.position_file import Positions
from ether.instance.resume_rules import RowKey
positions = Positions(Path(sys.argv[1]), {"look": False})
row = positions.add(RowKey("look", "t", "0123456789ab", "cam"))
for number in range(1, 1_000_000):
    row.begin(number)
    if number == 1000:
        print("go", flush=True)
    positions.ended(row, number, None)
"""


def test_a_kill_leaves_what_was_finished(tmp_path: Path) -> None:
    path = tmp_path / "p"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"go\n"
        process.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    [found] = saved(path).values()
    assert found.begun >= 1000
    assert found.begun - 1 <= found.finished <= found.done <= found.begun


# -- how to go on

FRAME, OTHER = "ether/1/s/data/frame", "ether/1/s/data/other"


def row(
    method: str, begun: int, done: int, finished: int, *skipped: int, topic: str = FRAME, node: str = "a" * 12
) -> SavedRow:
    pairs = tuple((number, number) for number in skipped)
    return SavedRow(RowKey(method, topic, node, "cam"), begun, done, finished, 0.0, pairs)


def resumed(
    rows: list[SavedRow], methods: set[str], filters: dict[str, list[str]]
) -> tuple[dict[str, SavedRow], dict[str, int]]:
    """The new rows by method, and the numbers to ask for by node."""
    found = resumption(EarlierPositions(0.0, frozenset(methods), rows), filters, matches)
    numbers = {node[:1]: number for (_, node), (_, number) in found.numbers.items()}
    return {each.key.method: each for each in found.rows}, numbers


def test_an_orderly_end_goes_on_behind_the_last_number() -> None:
    rows, numbers = resumed([row("look", 9, 9, 9)], {"look"}, {"look": [FRAME]})
    assert numbers == {"a": 9}
    assert rows["look"][1:4] == (9, 9, 9)


def test_what_was_in_work_is_left_out_and_what_was_done_goes_out_again() -> None:
    """7 is finished. The results of 8 may not have left, so it is handled again. 9 was in work."""
    first, numbers = resumed([row("look", 9, 8, 7)], {"look"}, {"look": [FRAME]})
    assert numbers == {"a": 7}
    assert first["look"] == row("look", 7, 7, 7, 9)
    again, numbers = resumed([first["look"]._replace(begun=12, done=11)], {"look"}, {"look": [FRAME]})
    assert again["look"] == row("look", 7, 7, 7, 9, 12), "12 was in work when it died again, before 8 was acknowledged"
    later, _ = resumed([first["look"]._replace(begun=20, done=20, finished=20)], {"look"}, {"look": [FRAME]})
    assert later["look"] == row("look", 20, 20, 20)


def test_what_was_in_work_is_named() -> None:
    earlier = EarlierPositions(0.0, frozenset({"look"}), [row("look", 9, 7, 5)])
    found = resumption(earlier, {"look": [FRAME]}, matches)
    assert found.left_out == [(RowKey("look", FRAME, "a" * 12, "cam"), 8, 9)]


def test_a_method_that_lags_behind_another_gets_everything() -> None:
    rows = [row("quick", 50, 50, 50), row("slow", 7, 7, 7)]
    _, numbers = resumed(rows, {"quick", "slow"}, {"quick": [FRAME], "slow": [FRAME]})
    assert numbers == {"a": 7}
    _, numbers = resumed(rows[:1], {"quick", "slow"}, {"quick": [FRAME], "slow": [FRAME]})
    assert numbers == {}, "a method without a row has handled nothing: all that the source keeps is asked for"


def test_a_method_that_is_new_goes_on_where_the_others_are() -> None:
    rows = [row("look", 50, 50, 50)]
    new, numbers = resumed(rows, {"look"}, {"look": [FRAME], "added": ["ether/1/s/data/+"]})
    assert numbers == {"a": 50}
    assert new["added"].finished == 50
    renamed, numbers = resumed(rows, {"look"}, {"see": [FRAME]})
    assert (renamed["see"].finished, numbers) == (50, {"a": 50})


def test_topics_that_nobody_hears_any_more_are_forgotten() -> None:
    assert resumed([row("look", 9, 9, 9, topic=OTHER)], {"look"}, {"look": [FRAME]}) == ({}, {})


def test_of_a_source_that_was_restarted_the_latest_process_counts() -> None:
    rows = [row("look", 9, 9, 9, node="a" * 12), row("look", 3, 3, 3, node="b" * 12)]
    _, numbers = resumed(rows, {"look"}, {"look": [FRAME]})
    assert numbers == {"b": 3}


numbers_in_order = st.lists(st.integers(0, 1000), min_size=3, max_size=3).map(sorted)


@given(numbers=numbers_in_order)
def test_only_what_was_in_work_is_left_out(numbers: list[int]) -> None:
    finished, done, begun = numbers
    found, asked = resumed([row("look", begun, done, finished)], {"look"}, {"look": [FRAME]})
    new = found["look"]
    assert new.begun == new.done == new.finished == asked["a"] == finished
    left_out = {number for first, last in new.skipped for number in range(first, last + 1)}
    assert left_out == set(range(done + 1, begun + 1))
