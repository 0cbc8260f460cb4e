"""The house keeps its shape: who imports whom, what is exported, what an import costs and does not do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

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


def test_the_import_contracts_hold() -> None:
    pytest.importorskip("importlinter", reason="import-linter is not installed: pip install -e '.[dev]'")
    tool = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([str(tool)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


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


def test_no_module_is_longer_than_it_should_be() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for package in ("ether", "broker", "hardware_adapters")
        for path in (ROOT / package).rglob("*.py")
    }
    assert {path: length for path, length in lengths.items() if length > 400} == {}
