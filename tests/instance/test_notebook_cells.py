"""A class of a notebook's cell runs in a process of its own: its source travels."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from patience import patience

from ether.errors import ConfigError
from ether.instance.class_loading import find_class
from ether.instance.notebook_cells import CELLS, script_of, take_cells

CELLS_RUN = [
    "",  # as IPython begins
    "from ether import ether, ether_get\nimport math",
    "GAIN = 2\n\n\ndef amplified(value):\n    return GAIN * value",
    "class Meter:\n    @ether_get\n    def read(self):\n        return 'of before'",
    "this is no Python",
    "get_ipython().run_line_magic('time', 'x')",
    "from __future__ import annotations\n\n\nclass Meter:\n    @ether_get\n"
    "    def read(self, x: float = 1.0) -> float:\n        return math.floor(amplified(x))",
    "raise RuntimeError('a cell that failed')",
    "await later()",
    "x = 1\nreturn 5",
    "PAGE = 'one\x0ctwo\u2028three'\n\n\nclass Reader:\n    page = PAGE",
]


@pytest.fixture(autouse=True)
def own_main(monkeypatch: pytest.MonkeyPatch) -> None:
    """`find_class` puts the module that it makes there."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


def test_the_last_definition_counts_with_what_it_needs_and_nothing_else_is_run() -> None:
    found = find_class("__main__.Meter", take_cells(script_of(CELLS_RUN)))
    assert found().read(3) == 6
    assert found.read.__code__.co_filename == CELLS
    assert find_class("__main__.Reader", take_cells(script_of(CELLS_RUN))).page == "one\x0ctwo\u2028three"
    with pytest.raises(ConfigError, match=r"defines no 'Metre'.* Did you mean 'Meter'\?"):
        find_class("__main__.Metre", take_cells(script_of(CELLS_RUN)))


def test_a_definition_that_is_run_again_is_not_there_twice_and_its_decorators_go_with_it() -> None:
    text = script_of(["import functools", "@functools.cache\ndef f():\n    return 1\ny = 2", "def f():\n    return 3"])
    assert "cache" not in text
    assert text.count("def f") == 1
    assert "y = 2" in text


NOTEBOOK = """
import __main__
In = [""]


def cell(text):
    In.append(text)
    exec(compile(text, "<ipython-input>", "exec"), __main__.__dict__)


cell("from ether import ether, ether_get")
cell("class Meter:\\n    @ether_get\\n    def read(self):\\n        import os\\n        return [1, os.getpid()]")
cell("import os\\nether.tap({'instances': {'meter': {'class_path': '__main__.Meter'}}})")
cell("first, pid = ether.get('meter', 'read')\\nassert pid != os.getpid()")
cell("class Meter:\\n    @ether_get\\n    def read(self):\\n        return [2, 0]")
cell("ether.restart('meter')")
cell("print(first, ether.get('meter', 'read'))\\nether.shutdown()")
"""


def test_a_cells_class_has_a_process_and_a_restart_takes_the_cell_of_now(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-"],
        input=NOTEBOOK, cwd=tmp_path, capture_output=True, text=True, timeout=patience(60), check=False,
    )  # fmt: skip
    assert done.stdout == "1 [2, 0]\n", done.stderr
