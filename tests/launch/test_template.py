"""Instances that are forked from a template: nothing of one is in another, and the template may die at any time.

Most other suites start their instances this way, too; with `ETHER_TEMPLATE=0` in the environment they do not.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_params import On
from patience import patience
from running_brokers import soon

from ether import Ether
from ether.errors import LifecycleFailed, StartFailed
from ether.launch.process_group import make_group
from ether.launch.template import client
from ether.launch.template.client import Template

pytestmark = pytest.mark.skipif(
    not client.template_wanted(), reason="only Linux has the template process, and ETHER_TEMPLATE=0 switches it off"
)
resource = pytest.importorskip("resource", reason="only POSIX systems have limits of resources")
HAS_NUMPY = importlib.util.find_spec("numpy") is not None
BORN = {"class_path": "template_parts.Born"}


@pytest.fixture
def ether() -> Iterator[Ether]:
    own = Ether()
    yield own
    try:
        own.shutdown()
    except LifecycleFailed:
        pass  # what was killed on purpose cannot be asked


@pytest.fixture
def template(tmp_path: Path) -> Iterator[Template]:
    """A template process without a session."""
    group = make_group(str(tmp_path / "folder"))
    made = Template(lambda: group)
    yield made
    made.close()
    group.close()


def template_of(ether: Ether, name: str = "a") -> int:
    """The process from which an instance was forked."""
    parent = int(ether.get(name, "facts")["parent"])
    assert parent != os.getpid(), "it was not forked"
    return parent


def test_instances_that_are_forked_have_nothing_in_common(
    ether: Ether, on: On, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOLD_BY_THE_LAUNCHER", "yes")
    preload = ["template_parts", *(["numpy"] if HAS_NUMPY else [])]
    ether.tap({"instances": {"a": BORN, "b": BORN}, "preload": preload}, broker=on("amqtt"))
    facts = [ether.get(name, "facts") for name in ("a", "b")]
    for name, each in zip(("a", "b"), facts, strict=True):
        assert each["parent"] == facts[0]["parent"] != os.getpid()
        assert each["leads"], "it leads no process group"
        assert each["folder"] == str(tmp_path)
        assert each["words"] == ["instance"]
        assert each["command"] == [b"instance", name.encode()]
        assert each["shown"] == [f"ETHER_PROCESS_OF={each['mark']}"], "the system shows another mark"
        assert each["told"] == "yes"
        assert each["main"] == "ether/__main__.py"
        assert each["child_signal"]
        assert not each["threads"]
    one, other = facts
    assert one["mark"] != other["mark"]
    assert not set(one["files"]) & set(other["files"]), "an open file is shared"
    assert not [pair for pair in zip(one["chance"], other["chance"], strict=True) if pair[0] == pair[1]]
    assert [ether.get(name, "keep", {"value": name}) for name in ("a", "b")] == [1, 1], "memory is shared"


def test_fork_false_starts_an_instance_by_itself(ether: Ether, on: On) -> None:
    ether.tap({"instances": {"a": BORN, "b": {**BORN, "fork": False}}}, broker=on("amqtt"))
    assert template_of(ether) != os.getpid()
    facts = ether.get("b", "facts")
    assert (facts["parent"], facts["words"]) == (os.getpid(), ["instance"])


@pytest.mark.parametrize("why", ["ETHER_TEMPLATE=0", "no handles of processes", "another system"])
def test_without_a_template_instances_are_started_by_themselves(
    ether: Ether, on: On, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    if why == "ETHER_TEMPLATE=0":
        monkeypatch.setenv("ETHER_TEMPLATE", "0")
    elif why == "another system":
        monkeypatch.setattr(client.sys, "platform", "darwin")
    else:
        monkeypatch.delattr(os, "pidfd_open")
    ether.tap({"instances": {"a": BORN}}, broker=on("amqtt"))
    assert ether.get("a", "facts")["parent"] == os.getpid()


def test_a_template_that_is_killed_is_replaced_and_its_instances_live_on(ether: Ether, on: On) -> None:
    kept = {**BORN, "restart": "on-failure"}
    ether.tap({"instances": {"a": kept, "b": BORN}}, broker=on("amqtt"))
    before, pid = template_of(ether), ether.get("a", "pid")
    comes_back = threading.Event()
    ether.on_change(lambda told: comes_back.set() if told["state"] == "restarting" else None)
    os.kill(before, signal.SIGKILL)
    assert [ether.get(name, "facts")["words"] for name in ("a", "b")] == [["instance"]] * 2
    os.kill(pid, signal.SIGKILL)  # nobody can tell how it ended, and it is a failure
    assert comes_back.wait(patience(10))
    assert ether.get("a", "pid", timeout_s=patience(10)) != pid  # it waits for the restart
    assert template_of(ether) != before
    ether.remove("b")  # its end is in order, and its exit code is its own word
    ether.add("c", BORN)
    assert template_of(ether, "c") == template_of(ether)
    ether.shutdown()


def test_an_instance_is_started_where_the_template_dies_in_the_middle_of_a_fork(
    template: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()
    send = client.send

    def sent(to: Any, message: Any, files: Any = ()) -> None:
        send(to, message, files)
        if files:
            asked.set()

    monkeypatch.setattr(client, "send", sent)
    first = template.fork("first", "")
    assert first is not None
    running = template._running
    assert running is not None
    process = running._process
    process.send_signal(signal.SIGSTOP)
    asked.clear()
    second: list[Any] = []
    thread = threading.Thread(target=lambda: second.append(template.fork("second", "")))
    thread.start()
    assert asked.wait(patience(5))
    process.kill()
    thread.join()
    (forked,) = second
    assert forked is not None
    for each in (first, forked):  # the end of its standard input is the end of its launcher
        each.stdin.close()
        code = each.wait()
        each.stdout.close()
        each.stderr.close()
    assert code == 3


def test_a_fork_that_the_system_refuses_is_said_and_the_next_one_is_made(template: Template) -> None:
    template.begin()
    first = template.fork("first", "")
    assert first is not None
    assert template._running is not None
    pid = template._running._process.pid
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (7, limits[1]))
    with pytest.raises(OSError, match="Too many open files"):
        template.fork("second", "")
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    third = template.fork("third", "")
    assert third is not None
    assert template._running._process.pid == pid
    for each in (first, third):
        each.kill()
        assert each.wait() == -signal.SIGKILL
        for stream in (each.stdin, each.stdout, each.stderr):
            stream.close()


def test_an_instance_for_which_there_is_no_process_is_named_and_the_others_are_ready(
    ether: Ether, on: On, monkeypatch: pytest.MonkeyPatch
) -> None:
    fork = Template.fork

    def refused(template: Template, name: str, mark: str) -> Any:
        if name == "b":
            raise OSError(12, "Cannot allocate memory")
        return fork(template, name, mark)

    monkeypatch.setattr(Template, "fork", refused)
    with pytest.raises(StartFailed) as error:
        ether.tap({"instances": {"a": BORN, "b": BORN, "c": BORN}}, broker=on("amqtt"))
    assert list(error.value.reasons) == ["b"]
    assert "Cannot allocate memory" in str(error.value)


def test_of_fifty_instances_one_dies_at_once_and_is_the_only_one_that_is_named(ether: Ether, on: On) -> None:
    instances = {f"i{n}": {**BORN, "kwargs": {"dies": n == 20}} for n in range(50)}
    with pytest.raises(StartFailed) as error:
        ether.tap({"instances": instances}, broker=on("mosquitto"), timeout_s=patience(60))
    assert list(error.value.reasons) == ["i20"]
    assert "killed by signal 9" in str(error.value)


def test_another_environment_is_that_of_the_next_instance(
    ether: Ether, on: On, monkeypatch: pytest.MonkeyPatch
) -> None:
    ether.tap({"instances": {"a": BORN}}, broker=on("amqtt"))
    before = template_of(ether)
    monkeypatch.setenv("TOLD_BY_THE_LAUNCHER", "later")
    ether.add("b", BORN)
    facts = ether.get("b", "facts")
    assert facts["told"] == "later"
    assert facts["parent"] != before
    ether.remove("a")
    assert soon(lambda: not Path(f"/proc/{before}").exists(), 5), "a template without instances goes on"


def test_a_preloaded_module_that_was_edited_is_imported_anew(
    ether: Ether, on: On, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else an instance would run what is not there any more, and be recorded as made by what is."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(version: int) -> None:
        text = "from ether import ether_get\n\n\nclass Lab:\n    @ether_get\n    def version(self):\n        return "
        (tmp_path / "edited_lab.py").write_text(f"{text}{version}\n")

    write(1)
    lab = {"class_path": "edited_lab.Lab"}
    ether.tap({"instances": {"a": lab, "b": BORN}, "preload": ["edited_lab"]}, broker=on("amqtt"))
    before = template_of(ether, "b")
    write(1000)
    ether.add("c", lab)
    ether.add("d", BORN)
    assert [ether.get(name, "version") for name in ("a", "c")] == [1, 1000]
    assert template_of(ether, "d") != before


def test_where_no_template_comes_up_it_is_said_and_instances_are_started_by_themselves(
    ether: Ether, on: On, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(client, "module_command", lambda: [sys.executable, "-c", "raise SystemExit(3)"])
    with caplog.at_level(logging.WARNING, "Ether"):
        ether.tap({"instances": {"a": BORN}}, broker=on("amqtt"))
    assert ether.get("a", "facts")["parent"] == os.getpid()
    assert len([r for r in caplog.records if "not forked from a template process" in r.getMessage()]) == 1


FAULTS = {
    "fine": ("import json\nX = 1\n", ""),
    **({"shuffles": ("import numpy\nnumpy.random.rand()\n", "draws random numbers")} if HAS_NUMPY else {}),
    "seeds": ("import random\nrandom.seed(7)\n", "draws random numbers"),
    "draws": ("import uuid\nSERIAL = uuid.uuid4()\n", "draws random numbers when it is imported (draws)"),
    "maker": ("import random\nGENERATOR = random.Random()\n", "draws random numbers when it is imported (maker)"),
    "raises": ("1 / 0\n", "cannot be imported: ZeroDivisionError"),
    "opens": ("import socket\nS = socket.socket()\n", "keeps open, for all instances together: socket:"),
    "starts": ("import subprocess\nP = subprocess.Popen(['true'])\n", "has started a process"),
    "threads": (
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n",
        "has started 1 thread",
    ),
}


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    folder = tmp_path / "modules"
    folder.mkdir()
    for name, (text, _) in FAULTS.items():
        Path(folder, f"harm_{name}.py").write_text(text)
    return folder


def test_the_end_does_not_wait_for_an_import_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after Ctrl-C, while other threads wait for their instances' processes."""
    held, imported = tmp_path / "held", tmp_path / "imported"
    os.mkfifo(held)
    (tmp_path / "hanging_library.py").write_text(
        f"from pathlib import Path\nPath({str(imported)!r}).touch()\nopen({str(held)!r}).read()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    group = make_group(str(tmp_path / "folder"))
    template = Template(lambda: group, ["hanging_library"])
    made: list[object] = []
    waiting = [threading.Thread(target=lambda: made.append(template.fork("a", ""))) for _ in range(2)]
    try:
        for each in waiting:
            each.start()
        assert soon(imported.exists, timeout_s=10)
    finally:
        template.close()
        for each in waiting:
            each.join(patience(10))
        group.close()
    assert made == [None, None]


def test_modules_that_must_not_be_shared_are_found(modules: Path) -> None:
    """One behind the other in one process; threads come last, because they stay, as a child does that nobody awaits."""
    libraries = ["numpy"] if HAS_NUMPY else []
    names = [*libraries, *(f"harm_{name}" for name in FAULTS)]
    code = (
        "import json, sys\nfrom ether.launch.template.preload import import_and_look\n"
        f"sys.path.insert(0, {str(modules)!r})\n"
        f"print(json.dumps([import_and_look(name) for name in {names!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = dict(zip(names, json.loads(done.stdout), strict=True))
    for library in libraries:
        assert found[library] is None
    assert found["harm_fine"] is None
    for name, (_, why) in FAULTS.items():
        assert (found[f"harm_{name}"] or "").startswith(why.replace("(", "(harm_")), (name, found)


def test_a_module_that_starts_threads_is_not_preloaded_and_said(
    ether: Ether, on: On, modules: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.syspath_prepend(str(modules))
    preload = ["harm_fine", "harm_threads"]
    with caplog.at_level(logging.WARNING, "Ether"):
        ether.tap({"instances": {"a": BORN}, "preload": preload}, broker=on("amqtt"))
    (said,) = [r.getMessage() for r in caplog.records if "preload" in r.getMessage()]
    assert "harm_threads has started 1 thread" in said
    template_of(ether)


def test_the_end_of_the_launcher_is_the_end_of_all(tmp_path: Path) -> None:
    """A program that is killed leaves neither its template process nor what was forked from it."""
    program = tmp_path / "program.py"
    program.write_text(
        "import json, threading\nfrom ether import ether\n"
        f"ether.tap({{'instances': {{'a': {BORN!r}}}}}, broker={{'engine': 'amqtt'}})\n"
        "print(json.dumps([ether.get('a', 'pid'), ether.get('a', 'facts')['parent']]), flush=True)\n"
        "threading.Event().wait()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent / "parts")}
    with subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, env=environment) as launcher:
        assert launcher.stdout is not None
        pids = json.loads(launcher.stdout.readline())
        launcher.kill()
    assert soon(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 3)
