"""What every test is held to: nothing that it started outlives it, and nobody publishes, waits or calls user code under
a lock that forbids it (`lock_watch`; ETHER_LOCK_WATCH=0 switches that off). Warnings are errors (pyproject.toml).

Which tests run, and in how many processes, is decided in parts/lanes.py: its hooks are imported here. In which order
the processes get them is decided in parts/distribution.py.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import databases
import distribution
import lock_watch
import pytest
from engine_params import On
from hypothesis import HealthCheck, settings
from lanes import (  # noqa: F401  hooks
    fast_lane,
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_ignore_collect,
    pytest_report_teststatus,
    pytest_runtest_makereport,
    pytest_runtest_protocol,
    pytest_runtest_setup,
    pytest_terminal_summary,
    pytest_xdist_auto_num_workers,
)
from lanes import pytest_configure as _configure_lanes
from patience import patience
from running_brokers import session_broker

_GRACE_S = patience(2.0)
_MAIN = sys.modules.get("__main__")

# Tests start hundreds of Pythons, and compiling takes each of them as long as the rest of its start. What one of them
# has compiled serves the others, also where the environment says that nothing is to be kept.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# What pytest collects are some hundred thousand objects that stay until the end. The garbage collector would look at
# all of them time and again: meanwhile, where it finds nothing, and in every test.
gc.disable()


def pytest_collection_finish() -> None:
    gc.enable()
    gc.collect()
    gc.freeze()


# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("ether", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fast", settings.get_profile("ether"), max_examples=20)
settings.load_profile("ether")


def pytest_configure(config: pytest.Config) -> None:
    """Before any test module is imported: decorators there read the profile and the lane."""
    _configure_lanes(config)
    config.pluginmanager.register(distribution)
    if fast_lane():
        settings.load_profile("fast")


# Where tests run in the background of a script Ctrl-C is ignored, and every program that they start would inherit it.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


if os.environ.get("ETHER_LOCK_WATCH") != "0":
    lock_watch.install()
databases.install()


def _threads() -> frozenset[threading.Thread]:
    return frozenset(threading.enumerate())


def _children() -> frozenset[str]:
    """Processes that this one started and that have not been waited for (Linux)."""
    found: set[str] = set()
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/children") as listed:
                found.update(listed.read().split())
        except OSError:
            continue  # a thread that has ended meanwhile
    return frozenset(found)


def _sockets() -> frozenset[str]:
    """Open sockets of this process (Linux)."""
    found: set[str] = set()
    for entry in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{entry}")
        except OSError:
            continue  # the descriptor of this very listing
        if target.startswith("socket:"):
            found.add(target)
    return frozenset(found)


_WATCHED: dict[str, Callable[[], frozenset[object]]] = {  # type: ignore[dict-item]
    "threads": _threads,
    "databases": databases.open_databases,
}
if sys.platform == "linux":
    _WATCHED |= {"children": _children, "sockets": _sockets}  # type: ignore[dict-item]


def _leaked(before: dict[str, frozenset[object]]) -> dict[str, list[object]]:
    return {kind: sorted(new, key=str) for kind, look in _WATCHED.items() if (new := look() - before[kind])}


@pytest.fixture(autouse=True)
def nothing_outlives_its_test() -> Iterator[None]:
    """Threads, children, sockets and databases of a test end with it; the ending ones get a moment."""
    before = {kind: look() for kind, look in _WATCHED.items()}
    yield
    lock_watch.check()
    deadline = time.monotonic() + _GRACE_S
    ending = threading.Event()
    while _leaked(before) and time.monotonic() < deadline:
        gc.collect()
        ending.wait(0.02)
    leaked = _leaked(before)
    assert not leaked, f"left behind by this test: {leaked}"
    assert sys.modules.get("__main__") is _MAIN, "this test left another __main__ behind, or none"


@pytest.fixture(autouse=True)
def on() -> Iterator[On]:
    """`ether.tap(…, broker=on(engine))`. A stock broker ends behind everything that the test has made, because this
    fixture is made first."""
    with ExitStack() as brokers:
        yield lambda engine: brokers.enter_context(session_broker(engine))


@pytest.fixture
def rounds() -> int:
    """How often a test about chance repeats itself: twice, or 20 times with ETHER_LONG=1."""
    return 20 if os.environ.get("ETHER_LONG") == "1" else 2


@pytest.fixture(autouse=True, scope="module")
def folders_of_their_own() -> Iterator[None]:
    """No test finds a session of the machine's user or of another file's, nor what that one has left, nor leaves
    anything in that user's folders. A short path, because sockets lie below it."""
    with tempfile.TemporaryDirectory(prefix="er-") as folder, pytest.MonkeyPatch.context() as environment:
        for variable in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
            place = Path(folder) / variable[4:7].lower()
            place.mkdir(mode=0o700)
            environment.setenv(variable, str(place))
        environment.setenv("ETHER_MDNS", "0")
        for variable in ("ETHER_BROKER", "ETHER_SESSION", "ETHER_KEY"):
            environment.delenv(variable, raising=False)
        yield
