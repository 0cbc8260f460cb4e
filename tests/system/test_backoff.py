"""Pauses between attempts: their lengths, and what they cost a process that needs none."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ether.system.backoff import Backoff, pause_before


def test_pauses_double_from_the_first_to_the_longest() -> None:
    backoff = Backoff(0.5, 30.0)
    assert [backoff.next_s() for _ in range(8)] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_the_first_pause_comes_again_after_a_success() -> None:
    backoff = Backoff(0.1, 1.0)
    assert [backoff.next_s() for _ in range(3)] == [0.1, 0.2, 0.4]
    backoff.reset()
    assert [backoff.next_s() for _ in range(2)] == [0.1, 0.2]


def test_it_can_begin_with_the_longest() -> None:
    backoff = Backoff(0.1, 1.0)
    backoff.skip_to_longest()
    assert [backoff.next_s() for _ in range(2)] == [1.0, 1.0]
    backoff.reset()
    assert backoff.next_s() == 0.1


def test_jitter_takes_a_part_of_the_longest_pause_too() -> None:
    backoff = Backoff(0.1, 1.0, jitter=0.5)
    backoff.skip_to_longest()
    pauses = [backoff.next_s() for _ in range(200)]
    assert all(0.5 <= pause_s <= 1.0 for pause_s in pauses)
    assert max(pauses) - min(pauses) > 0.2


def test_any_number_of_attempts_may_fail() -> None:
    assert pause_before(10**9, 0.25, 10.0) == 10.0
    backoff = Backoff(0.25, 10.0)
    assert [backoff.next_s() for _ in range(2000)][-1] == 10.0


@pytest.mark.parametrize(
    "module", ["ether", "ether.transport.connection", "ether.launch.child_main", "ether.agents.daemon"]
)
def test_starting_loads_no_tenacity(module: str) -> None:
    assert loaded(f"import {module}") == "False"


def test_the_library_is_loaded_by_the_second_pause_in_a_row() -> None:
    begin = "from ether.system.backoff import Backoff; b = Backoff(0.1, 1.0); b.next_s()"
    assert loaded(begin) == "False"
    assert loaded(f"{begin}; b.reset(); b.next_s()") == "False"
    assert loaded(f"{begin}; b.next_s()") == "True"


def loaded(code: str) -> str:
    probe = f"import sys\n{code}\nprint('tenacity' in sys.modules)"
    return subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True).stdout.strip()
