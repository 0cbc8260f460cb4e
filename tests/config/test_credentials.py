"""Credentials are unguessable and do not show."""

from __future__ import annotations

import pytest

from ether.security import Credentials


def test_the_password_is_in_no_repr() -> None:
    credentials = Credentials("me", "hush")
    assert "hush" not in f"{credentials} {credentials!r}"
    assert "me" in repr(credentials)


def test_random_credentials_differ_and_suit_urls_and_files() -> None:
    made = [Credentials.random() for _ in range(50)]
    assert len({one.username for one in made}) == len({one.password for one in made}) == 50
    assert all(len(one.password) >= 43 for one in made)
    assert all((one.username + one.password).replace("-", "").replace("_", "").isalnum() for one in made)


def test_credentials_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Credentials("a", "b").password = "c"  # type: ignore[misc]
