"""The same session twice, a session that is not there, and a proxy whose instance was restarted (instances.md I10,
first-hour.md H2, H3, H7)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kept_parts import Worker

from ether import Ether
from ether.errors import NameTaken, NotAllowedHere, SessionNotFound

WORKER = {"instances": {"w": {"class_path": "kept_parts.Worker"}}}


@pytest.fixture
def ether() -> Iterator[Ether]:
    own = Ether()
    yield own
    own.shutdown()


def config(session: str = "twice", **more: Any) -> dict[str, Any]:
    return {"session": session, **WORKER, **more}


def test_h7a_a_cell_that_taps_again_does_nothing(ether: Ether) -> None:
    ether.tap(config())
    pid = ether.get("w", "pid")
    assert ether.tap(config()) is ether
    assert ether.get("w", "pid") == pid
    with pytest.raises(NotAllowedHere, match="restart=True"):
        ether.tap(config(begin_within_s=3.0))


def test_h3_a_script_that_runs_twice_joins_its_session(ether: Ether) -> None:
    ether.tap(config())
    pid = ether.get("w", "pid")
    with Ether().tap(config()) as second:
        assert second.get("w", "pid") == pid
        assert second.session_id == "twice"
    assert ether.get("w", "pid") == pid  # it has not ended what it has not started
    with pytest.raises(NameTaken):
        Ether().tap(config(begin_within_s=3.0))


def test_h2_a_session_that_is_not_there_is_said_with_those_that_are(
    ether: Ether, caplog: pytest.LogCaptureFixture
) -> None:
    ether.tap(config("bench"))
    with pytest.raises(SessionNotFound, match=r"named 'bnech' is running .*there is: bench. Did you mean 'bench'\?"):
        Ether().tap(session="bnech", start=False)
    with Ether().tap(session="bench", start=False) as joined:
        assert joined.get("w", "add", {"a": 1, "b": 2}) == 3
    with caplog.at_level(logging.WARNING), Ether().tap(session="bnech"):
        pass
    assert "no session 'bnech' was found, so one was started; there is: bench. Did you mean 'bench'?" in caplog.text


def test_start_false_without_any_session() -> None:
    with pytest.raises(SessionNotFound, match="no session is running here or in reach"):
        Ether().tap(start=False)


def test_h7b_a_cell_that_hosts_again_hosts_the_new_object(ether: Ether) -> None:
    class Other(Worker):
        pass

    ether.tap(session="cells")
    first = Worker("first")
    ether.host(first, "meter")
    ether.host(first, "meter")
    ether.host(Worker("second"), "meter")
    assert ether.get("meter", "add", {"a": 1, "b": 2}) == 3
    assert ether._launch is not None
    assert ether._launch._local_instances.object_of("meter") is not first
    with pytest.raises(NameTaken, match=r"that is this program: ether\.unhost\('meter'\)"):
        ether.host(Other(), "meter")
    ether.host(Other(), "meter", takeover=True)
    assert ether.get("meter", "add", {"a": 2, "b": 2}) == 4


def test_h7d_a_proxy_sees_what_its_instance_has_gained(
    ether: Ether, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "parts_h7d.py"
    file.write_text("from ether import ether_get\nclass W:\n    @ether_get\n    def one(self): return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    ether.tap({"instances": {"w": {"class_path": "parts_h7d.W"}}})
    w: Any = ether.instance("w")
    assert dir(w) == ["one"]
    with pytest.raises(AttributeError, match="has no method 'two'"):
        w.two(1)
    with file.open("a") as more:
        more.write("    @ether_get\n    def two(self, n): return 2 * n\n")
    text = file.read_text().replace("def one(self): return 1", "def one(self, n=1): return n")
    file.write_text(text)
    ether.restart("w")
    assert w.two(4) == 8
    assert w.one(n=7) == 7  # the signature that it has now
    assert dir(w) == ["one", "two"]
