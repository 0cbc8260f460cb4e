"""The one parser of brokers' URLs, and what is done to them."""

from __future__ import annotations

import pytest

from ether.config.broker_url import broker_address, complete_url, url_with, url_without_credentials
from ether.errors import ConfigError


@pytest.mark.parametrize(
    ("typed", "url"),
    [
        ("bench-pc", "mqtts://bench-pc"),
        ("192.168.1.5:1884", "mqtts://192.168.1.5:1884"),
        ("::1", "mqtt://[::1]"),
        ("[::1]:5", "mqtt://[::1]:5"),
        ("127.0.0.2:5", "mqtt://127.0.0.2:5"),
        ("fe80::1", "mqtts://[fe80::1]"),
        ("[fe80::1]:5", "mqtts://[fe80::1]:5"),
        ("mqtts://h", "mqtts://h"),
        ("unix:///x", "unix:///x"),
        ("wss://h/x", "wss://h/x"),
    ],
)
def test_what_people_type(typed: str, url: str) -> None:
    assert complete_url(typed) == url


@pytest.mark.parametrize(
    "url", ["mqtt://h", "mqtts://h:1", "mqtt://[::1]:5", "unix:///run/b.sock", "ws://h", "wss://[::1]:5/a/b%20"]
)
def test_credentials_are_put_in_and_taken_out(url: str) -> None:
    with_them = url_with(url, "me@x", "p/:@ß")
    address = broker_address(with_them)
    assert (address.username, address.password) == ("me@x", "p/:@ß")
    assert url_without_credentials(with_them) == url
    assert broker_address(url_with(with_them, "other", "p")).username == "other"


def test_the_rule_is_the_callers() -> None:
    with pytest.raises(ConfigError, match="my rule"):
        broker_address("ftp://h", "my rule")
