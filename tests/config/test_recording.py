"""What a configuration says of recording."""

from __future__ import annotations

from typing import Any

import pytest

from ether.config import load_config
from ether.errors import ConfigError
from ether.launch.recording_setup import records_strangers

PRIVATE: Any = {"engine": "amqtt"}


@pytest.mark.parametrize(
    ("broker", "strangers", "recorded"),
    [
        (PRIVATE, "auto", False),
        (PRIVATE, True, True),
        ({"port": 1883}, "auto", True),
        ({"listen": "lan", "engine": "mosquitto"}, "auto", True),
        ("mqtt://plant.example", "auto", True),
        ("mqtt://plant.example", False, False),
    ],
)
def test_strangers_are_recorded_where_there_can_be_some(broker: Any, strangers: Any, recorded: bool) -> None:
    config = load_config({"broker": broker, "record": {"strangers": strangers}})
    assert records_strangers(config) is recorded


@pytest.mark.parametrize(
    ("short", "topics"), [("all", "all"), (["a", "b/#"], ("a", "b/#")), ({"topics": "camera/#"}, ("camera/#",))]
)
def test_the_short_spellings(short: Any, topics: Any) -> None:
    config = load_config({"record": short})
    assert config.record is not None
    assert config.record.topics == topics


@pytest.mark.parametrize("wrong", ["everything", 7, {"topics": ["a/#/b"]}, {"topics": [""]}, {"outbox": {"max_mb": 0}}])
def test_what_cannot_be_recorded_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="record"):
        load_config({"record": wrong})
