"""10,000 failing or invalid messages of many kinds: the instance lives, each failure is told, or counted in a sum."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator

import pytest
from patience import patience
from running_brokers import engines, mosquitto_missing

from ether import Ether

needs_mosquitto = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
ENGINES = [pytest.param(engine, marks=needs_mosquitto if engine == "mosquitto" else ()) for engine in engines]

MESSAGES = 10_000 if os.environ.get("ETHER_LONG") == "1" else 5_000

TOLD = re.compile(
    r"failed: (?:(?:the same error|an error of this kind) (?:once|([\d,]+) times) more in \d+ s \([\d,]+ in all\): )?"
    r"(\w+): "
)

# topic, raw body, the error that must be told
KINDS: list[tuple[str, bytes, str]] = [
    ("fail", b'{"how": "value"}', "ValueError"),
    ("fail", b'{"how": "exit"}', "SystemExit"),
    ("fail", b'{"how": "unicode"}', "UnicodeDecodeError"),
    ("fail", b'{"how": "memory"}', "MemoryError"),
    ("fail", b'{"how": "silent"}', "Unspeakable"),
    ("fail", b'{"how": "group"}', "ExceptionGroup"),
    ("fail", b"{}", "ValidationFailed"),
    ("int", b'{"value": "seven"}', "ValidationFailed"),
    ("int", b'{"value": null}', "ValidationFailed"),
    ("int", b"[1, 2]", "ValidationFailed"),
    ("int", b"", "ValidationFailed"),
    ("int", b"{broken", "DecodeError"),
    ("int", b"\xff\xfe", "ValidationFailed"),
    ("int", b"[" * 2000, "DecodeError"),
    ("unsendable", b"", "EncodeError"),
]


@pytest.fixture
def ether() -> Iterator[Ether]:
    own = Ether()
    yield own
    own.shutdown()


@pytest.mark.parametrize("engine", ENGINES)
def test_ten_thousand_failures(ether: Ether, engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    ether.tap({"instances": {"typed": {"class_path": "lab_parts.Typed"}}}, broker={"engine": engine})
    launch = ether._launch
    assert launch is not None
    transport = launch.session.link.transport
    sent: Counter[str] = Counter()
    with ether.subscribe("doubled") as doubled:
        for number in range(MESSAGES):
            topic, body, error = KINDS[number % len(KINDS)]
            transport.publish(launch.topics.data(topic), body, timeout_s=patience(60))
            sent[error] += 1
        ether.pub({"value": 21}, topic="int")
        assert doubled.get(timeout_s=patience(60)).value == 42
    ether.shutdown()
    told: Counter[str] = Counter()
    for times, error in TOLD.findall(capsys.readouterr().err):
        told[error] += int(times.replace(",", "")) if times else 1
    assert told == sent
    assert sum(told.values()) == MESSAGES
