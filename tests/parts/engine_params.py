"""The brokers that suites are parametrized over, as pytest takes them: those that are not installed are skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from running_brokers import ONLY_3_1_1, STOCK, STOCK_PERSISTENT, engines, every_engine, mosquitto_missing, only_engine

NEEDS_MOSQUITTO = pytest.mark.skipif(mosquitto_missing is not None, reason=mosquitto_missing or "")


def engine_params(names: Iterable[str]) -> list[Any]:
    """Parameters for these engines."""
    return [pytest.param(name, marks=() if name.startswith("amqtt") else NEEDS_MOSQUITTO) for name in names]


EMBEDDED = engine_params(engines if only_engine is None else [])
EVERY = engine_params(every_engine)
"""The embedded ones and a stock Mosquitto; in the long form one with persistence, and one of MQTT 3.1.1 alone, too."""
EVERY_AND_3_1_1 = (
    EVERY if only_engine is not None or ONLY_3_1_1 in every_engine else [*EVERY, *engine_params([ONLY_3_1_1])]
)
"""The same, and in the short form, too, one that speaks MQTT 3.1.1 alone."""
STOCKS = engine_params([name for name in every_engine if name in (STOCK, STOCK_PERSISTENT)])

On = Callable[[str], Any]
"""What the fixture `on` gives: from an engine's name to what `ether.tap(broker=…)` takes."""


def argument(broker: Any) -> str:
    """A broker as a script of the examples takes it: an engine, or a URL."""
    return str(broker["engine"]) if isinstance(broker, dict) else str(broker)
