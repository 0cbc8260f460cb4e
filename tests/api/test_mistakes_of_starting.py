"""Mistakes of a first hour that need processes of their own: what a class's file does, what an instance is given, and
where the broker is to listen. Each is said with where, what, and what to do; the others are in `test_mistakes.py`."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_params import EMBEDDED
from patience import patience

from ether import Ether
from ether.errors import AnswerNotSent, BrokerFailed, EncodeError, StartFailed

FILES = {
    "early_name": "class Cam:\n    @ether_get\n    def one(self): return 1\n",
    "early_package": "import pandaz\n\n\nclass Cam: ...\n",
    "early_syntax": "class Cam:\n    def one(self:\n        return 1\n",
    "early_port": "class Cam:\n    def __init__(self, port='COM7'):\n        raise OSError(f'cannot open {port}')\n",
    "early_value": "Cam = 5\n",
}
"""Modules whose class cannot be used, each for another reason."""

SAYS = {
    "early_name": ("NameError: name 'ether_get' is not defined", 'early_name.py", line 2, in Cam'),
    "early_package": ("ModuleNotFoundError: No module named 'pandaz'", 'early_package.py", line 1, in <module>'),
    "early_syntax": ("SyntaxError: '(' was never closed", 'early_syntax.py", line 2'),
    "early_port": ("OSError: cannot open COM7", 'early_port.py", line 3, in __init__'),
    "early_value": ("early_value.Cam: is a int, neither a class nor a function that makes an object",),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture(params=EMBEDDED)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


pytestmark = [pytest.mark.in_turn("engine"), pytest.mark.slow("instances of their own")]


@pytest.mark.usefixtures("folder")
def test_a_class_that_cannot_be_used_is_said_with_its_line(engine: str) -> None:
    """All at once: each instance has a reason of its own, which ends with the sentence, without Ether's lines."""
    instances = {name: {"class_path": f"{name}.Cam"} for name in FILES}
    with pytest.raises(StartFailed) as failed, Ether() as own:
        own.tap({"session": "early", "broker": {"engine": engine}, "instances": instances}, timeout_s=patience(60))
    assert set(failed.value.reasons) == set(FILES)
    for name, texts in SAYS.items():
        reason = failed.value.reasons[name]
        assert all(text in reason for text in texts), reason
        assert not re.search(r'File "[^"]*/(ether|importlib)/', reason), reason


def test_a_constructor_that_takes_its_time_is_said_to_be_at_work(engine: str, folder: Path) -> None:
    (folder / "early_slow.py").write_text("import time\n\n\nclass Cam:\n    def __init__(self): time.sleep(60)\n")
    cam = {"class_path": "early_slow.Cam"}
    with pytest.raises(StartFailed) as failed, Ether() as own:
        own.tap({"broker": {"engine": engine}, "instances": {"cam": cam}}, timeout_s=patience(4))
    reason = failed.value.reasons["cam"]
    assert "early_slow.Cam is still being imported or built (pid " in reason
    assert "timeout_s=… (--timeout) gives it more time" in reason


def test_an_argument_of_a_constructor_that_cannot_travel(engine: str) -> None:
    lens = {"class_path": "mistake_parts.Lens", "kwargs": {"glass": [1, object()]}}
    with pytest.raises((EncodeError, StartFailed)) as failed, Ether() as own:
        own.tap({"broker": {"engine": engine}, "instances": {"lens": lens}}, timeout_s=patience(10))
    assert "instances.lens.kwargs.glass[1]: an object of type object cannot travel; convert it to" in str(failed.value)


def test_a_port_that_another_program_has(engine: str) -> None:
    with socket.socket() as taken, Ether() as own:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        says = rf"127\.0\.0\.1:{port}: another program listens there; stop it or set port 0 for a free one"
        with pytest.raises(BrokerFailed, match=f"Cannot listen on {says}"):
            own.tap({"broker": {"engine": engine, "port": port}}, timeout_s=patience(10))


@pytest.fixture
def session(engine: str) -> Iterator[Ether]:
    with Ether() as own:
        cam = {"class_path": "mistake_parts.Camera"}
        own.tap({"broker": {"engine": engine}, "instances": {"cam": cam}}, timeout_s=patience(30))
        yield own


def test_calls_that_an_instance_cannot_answer(session: Ether) -> None:
    with pytest.raises(AnswerNotSent) as caught:
        session.get("cam", "bad_result", timeout_s=patience(10))
    assert caught.value.ran
    assert str(caught.value).startswith(
        "cam.bad_result ran, but its answer cannot travel: EncodeError: cannot send images"
    )
    refused = session.save("cam", "snap", {"exposure": 1.0})
    assert refused["status"] == "error"
    assert "'snap' of Camera is marked ether_get, not ether_save" in refused["message"], refused
