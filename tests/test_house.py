"""The house keeps its rules (docs/decisions/0032-rules-of-the-house.md), and each checker finds what is planted for it;
what is exported, what an import costs and what it does not do."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from house_rules import (
    PACKAGES,
    ROOT,
    RULES,
    TEST_RULES,
    Tree,
    bare_waits,
    circles,
    crowded_packages,
    foreign_clocks,
    foreign_owners,
    foreign_syncs,
    impure_rules,
    late_imports,
    long_functions,
    names_with_two_meanings,
    vague_names,
    violations,
)

EXPORTS = {
    "Ether",
    "__version__",
    "ether",
    "ether_cleanup",
    "ether_every",
    "ether_get",
    "ether_init",
    "ether_pub",
    "ether_save",
    "ether_save_all",
    "ether_shutdown",
    "ether_start",
    "ether_sub",
    "ether_sync",
}


def in_a_fresh_interpreter(code: str) -> object:
    """What the code prints as JSON, run by an interpreter of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT / "tests")
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def house() -> Tree:
    return Tree(ROOT)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_its_rules(rule: Callable[[Tree], list[str]], house: Tree) -> None:
    found = rule(house)
    assert not found, "\n".join(found)


# -- a planted violation of each rule is found, and nothing else is

LONG = "def endless():\n" + "    x = 1\n" * 60
PLANTED = {
    "a circle": (
        circles,
        {"ether/a.py": "import ether.b", "ether/b.py": "from ether.c import x", "ether/c.py": "from ether import a"},
        "circle: ether.a <-> ether.b <-> ether.c",
    ),
    "a circle by a late import": (
        circles,
        {"ether/a.py": "import ether.api.b", "ether/api/b.py": "def f():\n    import ether.a"},
        "circle: ether.a <-> ether.api.b",
    ),
    "a circle by a type": (
        circles,
        {
            "ether/a.py": "import ether.b",
            "ether/b.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ether.a import A",
        },
        "circle: ether.a <-> ether.b",
    ),
    "a circle through a package that looks its names up on first use": (
        circles,
        {
            "ether/config/__init__.py": "if TYPE_CHECKING:\n    from ether.config.models import Model",
            "ether/config/models.py": "import ether.a",
            "ether/a.py": "from ether.config import Model",
        },
        "circle: ether.a <-> ether.config.models",
    ),
    "a circle of relative imports": (
        circles,
        {"ether/x/a.py": "from . import b", "ether/x/b.py": "from ..x.a import A"},
        "circle: ether.x.a <-> ether.x.b",
    ),
    "a crowded package": (
        crowded_packages,
        {f"ether/x/m{number}.py": "" for number in range(26)},
        "ether/x: 26 modules, 25 is the limit",
    ),
    "a long function": (long_functions, {"ether/a.py": LONG}, "ether/a.py:1: endless has 61 lines, 60 is the limit"),
    "rules that look at a clock": (
        impure_rules,
        {"ether/x/wait_rules.py": "from time import monotonic"},
        "ether/x/wait_rules.py:1: ether.x.wait_rules decides without I/O, and must not import time",
    ),
    "a protocol that locks": (
        impure_rules,
        {"ether/protocol/a.py": "def f():\n    import threading"},
        "ether/protocol/a.py:2: ether.protocol.a decides without I/O, and must not import threading",
    ),
    "a second user of sqlite3": (
        foreign_owners,
        {"ether/ledger/sqlite.py": "import sqlite3", "ether/a.py": "import sqlite3"},
        "ether/a.py:1: sqlite3 belongs to ether.ledger.sqlite",
    ),
    "a file that is synced elsewhere": (
        foreign_syncs,
        {"ether/a.py": "import os\nos.fsync(3)", "ether/ledger/durable.py": "import os\nos.fsync(3)"},
        "ether/a.py:2: fsync belongs to ether.ledger.durable",
    ),
    "fsync under its bare name": (
        foreign_syncs,
        {"ether/a.py": "from os import fsync"},
        "ether/a.py:1: fsync belongs to ether.ledger.durable",
    ),
    "a clock that somebody can set": (
        foreign_clocks,
        {"ether/a.py": "import time\nage = time.time() - 5", "broker/b.py": "import time\ntime.time()"},
        "ether/a.py:2: the time of day belongs to ether.system.clock",
    ),
    "today's date": (
        foreign_clocks,
        {"ether/a.py": "from datetime import datetime\nnow = datetime.now()\nit.now(1)"},
        "ether/a.py:2: the time of day belongs to ether.system.clock",
    ),
    "a late import": (
        late_imports,
        {"ether/a.py": "def f():\n    from ether import b", "ether/b.py": ""},
        "ether/a.py:2: late import of ether.b",
    ),
    "a permission for late imports that nothing needs": (
        late_imports,
        {"ether/pytest_plugin.py": "import ether.a", "ether/a.py": ""},
        "ether.pytest_plugin: no late import is left, take it out of LATE_IMPORTS",
    ),
    "two classes of one name": (
        names_with_two_meanings,
        {"ether/a.py": "class Thing: ...", "broker/b.py": "class Thing: ..."},
        "class Thing means several things: ether.a, broker.b",
    ),
    "a module called helpers": (
        vague_names,
        {"ether/x/helpers.py": "", "ether/utils.py": ""},
        "ether.x.helpers: a name that says nothing",
    ),
}


@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_violation_is_found(case: str, tmp_path: Path) -> None:
    rule, files, found = PLANTED[case]
    plant(tmp_path, files)
    assert rule(Tree(tmp_path)) == [found]
    assert violations(tmp_path) == [found]


@pytest.mark.parametrize("rule", TEST_RULES, ids=lambda rule: rule.__name__)
def test_the_tests_keep_their_rules(rule: Callable[[Tree], list[str]]) -> None:
    found = rule(Tree(ROOT, ("tests",)))
    assert not found, "\n".join(found)


SOON = "def soon(look, timeout_s=5.0):\n    return patience(timeout_s)\n"
WAITS = {
    "event.wait(5)": True,
    "event.wait(patience(5))": False,
    "event.wait(0.01)": False,
    "event.wait(5)  # bare: the number is what is tested": False,
    "thread.join(2.5)": True,
    "link.flush(10)": True,
    "heard.get(timeout=5)": True,
    "subprocess.run([], timeout=60)": True,
    "ether.get('a', 'b', timeout_s=30)": True,
    "deadline = time.monotonic() + 5": True,
    "deadline = time.monotonic() + patience(5)": False,
    "END_S = 5.0\nprocess.wait(END_S)": True,
    "END_S = patience(5.0)\nprocess.wait(END_S)": False,
    "with pytest.raises(TimeoutError):\n    event.wait(5)": False,
    "def hear(timeout_s=5.0):\n    return said.get(timeout=timeout_s)": True,
    "from parts import soon\nsoon(look, 5)": False,
    "def again(look, timeout_s=5.0):\n    return soon(look, timeout_s)\nagain(look, timeout_s=9)": False,
    "' '.join(words)\nnumbers.get(name)": False,
}
"""Code of tests, and whether its wait is a bare one."""


@pytest.mark.parametrize("text", WAITS)
def test_a_wait_that_does_not_go_through_patience_is_found(text: str, tmp_path: Path) -> None:
    plant(tmp_path, {"tests/parts.py": SOON, "tests/test_a.py": text})
    found = bare_waits(Tree(tmp_path, ("tests",)))
    assert len(found) == WAITS[text], found
    assert violations(tmp_path) == found


def plant(root: Path, files: Mapping[str, str]) -> None:
    """Write a small tree of packages, each folder of it with an `__init__.py`."""
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        for folder in file.parents:
            if folder == root:
                break
            (folder / "__init__.py").touch()
        file.write_text(text)


def test_each_rule_has_a_planted_violation() -> None:
    assert {rule for rule, _, _ in PLANTED.values()} == set(RULES)


# -- what ruff checks


def ruff_on(text: str, folder: Path) -> str:
    """What ruff says of a module of the house, by the rules about complexity and parameters in pyproject.toml."""
    ruff = Path(sys.executable).with_name("ruff")
    if not ruff.exists():
        pytest.skip("ruff is not installed: pip install -e '.[dev]'")
    plant(folder, {"ether/runs/planted.py": text})
    options = ["--config", str(ROOT / "pyproject.toml"), "--no-cache", "--output-format", "concise"]
    command = [str(ruff), "check", *options, "ether/runs/planted.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout


def branching(branches: int) -> str:
    return "def f(x: int) -> None:\n" + "".join(f"    if x == {n}:\n        print({n})\n" for n in range(branches))


def taking(parameters: int) -> str:
    return f"def f({', '.join(f'p{number}: int' for number in range(parameters))}) -> None:\n    print(p0)\n"


@pytest.mark.parametrize(
    ("at_the_limit", "above_it", "found"),
    [
        (branching(14), branching(15), "C901 `f` is too complex (16 > 15)"),
        (taking(8), taking(9), "PLR0913 Too many arguments in function definition (9 > 8)"),
    ],
    ids=["complexity", "parameters"],
)
def test_ruff_finds_what_is_too_much_for_one_function(
    at_the_limit: str, above_it: str, found: str, tmp_path: Path
) -> None:
    assert "All checks passed" in ruff_on(at_the_limit, tmp_path)
    assert found in ruff_on(above_it, tmp_path)


# -- what import-linter checks

BREACHES = {
    "ether is built in layers": "import ether.session.session",
    "the three houses touch only at the front door": "import hardware_adapters",
    "the broker knows nothing of ether": "import ether",
    "the broker is built in layers": "import broker.core.exchange",
    "the broker's codec and core do no I/O": "import socket",
    "adapters use only ether's public names": "import ether.session.session",
    "wire, spec and protocol do no I/O": "import threading",
    "each third-party engine has one owner": "import numpy",
    "test doubles stay out of production": "import ether.testing",
}
"""For each contract of pyproject.toml, an import that breaks it."""
PLACES = {
    "the broker knows nothing of ether": "broker",
    "the broker is built in layers": "broker/wire",
    "the broker's codec and core do no I/O": "broker/core",
    "adapters use only ether's public names": "hardware_adapters",
}


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("importlinter", reason="import-linter is not installed: pip install -e '.[dev]'")
    tool = Path(sys.executable).with_name("lint-imports")
    command = [str(tool), "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_import_contracts_hold() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def report_on_breaches(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What import-linter says of a copy of the house in which each contract is broken once: one run for all of them."""
    folder = tmp_path_factory.mktemp("house")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for number, (contract, line) in enumerate(BREACHES.items()):
        (folder / PLACES.get(contract, "ether/wire") / f"planted_{number}.py").write_text(f"{line}\n")
    done = lint_imports(folder)
    assert done.returncode == 1, done.stdout + done.stderr
    return re.sub(r"\x1b\[[\d;]*m", "", done.stdout)


@pytest.mark.parametrize("contract", BREACHES)
def test_a_planted_import_breaks_its_contract(contract: str, report_on_breaches: str) -> None:
    assert f"{contract} BROKEN" in report_on_breaches
    details = report_on_breaches.rpartition(f"{contract}\n---")[2].partition("\n---")[0]
    assert f"planted_{list(BREACHES).index(contract)}" in details


def test_each_contract_has_a_planted_import() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert {contract["name"] for contract in contracts} == set(BREACHES)


# -- the doors


def test_the_front_door_exports_what_it_says() -> None:
    import ether

    assert set(ether.__all__) == EXPORTS
    assert all(hasattr(ether, name) for name in EXPORTS)


def test_the_other_doors_exist() -> None:
    from ether.config import EtherConfig, EtherInstanceConfig
    from ether.testing import Lab
    from ether.utils import get_ether_logger

    assert all(callable(door) for door in (EtherConfig, EtherInstanceConfig, Lab, get_ether_logger))


HEAVY = [
    "paho",
    "numpy",
    "amqtt",
    "pydantic",
    "yaml",
    "asyncio",
    "ssl",
    "multiprocessing",
    "broker",
    "ether.config.models",
]


def test_importing_ether_imports_nothing_heavy() -> None:
    code = f"import json, sys, ether; print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    assert in_a_fresh_interpreter(code) == []


def test_importing_ether_does_nothing() -> None:
    code = """
import builtins, json, logging, os, socket, sys, threading
done = []
environment = os.environ
class Watched(dict):
    def __getitem__(self, key): done.append(f"read {key}"); return super().__getitem__(key)
    def get(self, key, *rest): done.append(f"read {key}"); return super().get(key, *rest)
sys.addaudithook(lambda name, args: done.append(name) if name in
    {"socket.__new__", "subprocess.Popen", "os.mkdir", "os.fork", "_thread.start_new_thread", "os.putenv"} else None)
threads = threading.active_count()
os.environ = Watched(environment)
import ether, ether.config, ether.utils, ether.errors, ether.log
os.environ = environment
done += [f"handler {handler}" for name in ("", "Ether") for handler in logging.getLogger(name).handlers]
print(json.dumps([done, threading.active_count() - threads]))
"""
    assert in_a_fresh_interpreter(code) == [[], 0]


def test_an_instances_process_loads_no_configuration_models_and_no_broker() -> None:
    code = """
import json, sys
import ether.launch.child_main
print(json.dumps([n for n in ("ether.config.models", "yaml", "amqtt", "broker", "numpy") if n in sys.modules]))
"""
    assert in_a_fresh_interpreter(code) == []
