"""`ether ps` where the broker cannot be reached: what the programs of this machine knew last."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_line import ENGINES, ether
from running_brokers import RunningBroker, running_broker, soon

from ether import Ether
from ether.errors import LifecycleFailed
from ether.session.offline import FILE_NAME, read_last_known

FAR = {"name": "far", "state": "ready", "birth": "b", "kind": "instance", "class": "Camera", "host": "pi3", "pid": 7}


@pytest.fixture(params=ENGINES)
def broker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningBroker]:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "parts"))
    with running_broker(request.param) as running:
        yield running


@contextmanager
def lab(broker: RunningBroker) -> Iterator[Ether]:
    own = Ether()
    own.tap({"session": "bench", "instances": {"w": {"class_path": "kept_parts.Worker"}}}, broker=broker.url_tcp)
    try:
        link = own._joined("a test").link
        link.publish("ether/1/bench/state/far", FAR | {"keeper": "main"}, retain=True)
        assert soon(lambda: len(own.instances()) == 2, 10)
        yield own
        link.withdraw("ether/1/bench/state/far")
    finally:
        try:
            own.shutdown()
        except LifecycleFailed:
            pass  # its broker was killed on purpose


def test_ps_says_since_when_it_hears_nothing(broker: RunningBroker, tmp_path: Path) -> None:
    with lab(broker) as own:
        before = time.time()
        broker.kill()
        assert soon(lambda: len(read_last_known(os.environ)) == 1, 10)
        shown = ether(tmp_path, "ps")
        assert shown.code == 0, shown
        far, w = shown.out.splitlines()[1:3]
        assert far.startswith("far")
        assert "offline since 20" in far
        assert "offline" not in w
        assert " ready " in w
        assert "offline since 20" in shown.err
        assert "this is what main" in shown.err
        told = ether(tmp_path, "ps", "--session", "bench", "--broker", broker.url_tcp, "--json").json
        assert told["session"] == "bench"
        assert before - 1 < told["offline_since"] < time.time()
        offline = {row["name"]: row["offline_since"] for row in told["members"]}
        assert offline == {"far": told["offline_since"], "w": None}
        here = {member["name"]: (member["last_known"], member["offline_since"]) for member in own.instances()}
        assert here == dict.fromkeys(("far", "w"), (True, told["offline_since"]))
        ether(tmp_path, "ps", "--session", "other", "--broker", broker.url_tcp).assert_mistake(5, "cannot reach")
        assert_ignored_when_its_program_is_dead()
        broker = broker.restart()
        assert soon(lambda: read_last_known(os.environ) == [], 10)
        assert soon(lambda: "ready" in states_of_w(tmp_path), 15)


def states_of_w(folder: Path) -> list[str]:
    """As who joins now is told by the broker, where everybody comes back in their own time."""
    told = ether(folder, "ps", "--json").json
    assert told["offline_since"] is None
    return [row["state"] for row in told["members"] if row["name"] == "w"]


def assert_ignored_when_its_program_is_dead() -> None:
    (file,) = Path(os.environ["XDG_RUNTIME_DIR"]).glob(f"*/{FILE_NAME}")
    told = json.loads(file.read_text())
    told["record"]["pid"] = 2**22 - 1
    file.write_text(json.dumps(told))
    assert read_last_known(os.environ) == []
    assert not file.exists()
    told["record"]["pid"] = os.getpid()
    file.touch(mode=0o600)
    file.write_text(json.dumps(told))
    assert len(read_last_known(os.environ)) == 1
