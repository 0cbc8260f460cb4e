"""A class out of a script that must not run again."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from ether.errors import ConfigError
from ether.instance.class_loading import find_class, module_from_script

Load = Callable[[str, str], ModuleType]


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    def load(source: str, wanted: str) -> ModuleType:
        path = tmp_path / "user_script.py"
        path.write_text(textwrap.dedent(source))
        return module_from_script("user_script", str(path), wanted)

    yield load
    sys.modules.pop("user_script", None)


def test_only_what_the_class_needs_runs(load: Load) -> None:
    module = load(
        """
        import math
        import module_that_does_not_exist
        RATE = 5
        UNUSED = 1 / 0
        def helper(x):
            return x * RATE
        class Base:
            pass
        class Wanted(Base):
            def area(self, r):
                return math.pi * helper(r)
        raise SystemExit("the script ran again")
        """,
        "Wanted",
    )
    assert round(module.Wanted().area(2), 2) == 31.42
    assert not hasattr(module, "UNUSED")
    assert module.Wanted.__module__ == "user_script"


def test_a_local_name_does_not_drag_in_a_statement(load: Load) -> None:
    module = load(
        "config = 1 / 0\nclass Wanted:\n    def m(self):\n        config = 3\n        return config\n", "Wanted"
    )
    assert module.Wanted().m() == 3


def test_hints_decorators_defaults_and_changed_objects_come_along(load: Load) -> None:
    module = load(
        """
        from __future__ import annotations
        import functools
        from typing import Any
        SETTINGS = {}
        SETTINGS["gain"] = 3
        DEFAULT = 4
        class Reading:
            pass
        def twice(f):
            @functools.wraps(f)
            def call(*a):
                return 2 * f(*a)
            return call
        class Wanted:
            @twice
            def m(self, x=DEFAULT, r: Reading | None = None, s: "Any" = None):
                return x * SETTINGS["gain"]
        """,
        "Wanted",
    )
    assert module.Wanted().m() == 24
    assert hasattr(module, "Reading")
    assert hasattr(module, "Any")


def test_guards_and_alternatives_are_taken_as_they_are(load: Load) -> None:
    module = load(
        """
        try:
            import module_that_does_not_exist as fast
        except ImportError:
            fast = None
        if __name__ == "__main__":
            mode = "main"
        else:
            mode = "imported"
        class Wanted:
            def m(self):
                return fast, mode
        """,
        "Wanted",
    )
    assert module.Wanted().m() == (None, "imported")


def test_a_missing_class_names_the_nearest(load: Load) -> None:
    with pytest.raises(ConfigError, match="'Wanted'"):
        load("class Wanted: pass\n", "Wnted")


def test_the_running_script_is_found_by_its_module_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "my_script.py"
    script.write_text("class Outer:\n    class Inner:\n        pass\nraise SystemExit('ran again')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    # The script's module takes the place of the main program's: put back afterwards, for libraries that look at it.
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    monkeypatch.delitem(sys.modules, "my_script", raising=False)
    assert find_class("my_script.Outer.Inner", str(script)).__qualname__ == "Outer.Inner"
    assert find_class("__main__.Outer", str(script)).__name__ == "Outer"
    sys.modules.pop("my_script", None)
