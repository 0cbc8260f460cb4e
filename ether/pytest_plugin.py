"""The pytest fixture `ether_lab`. No other module of Ether is imported before a test uses it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ether.testing.lab import Lab


@pytest.fixture
def ether_lab() -> Iterator[Callable[..., Lab]]:
    """A function that makes a `Lab`, with the same arguments; every lab is closed at the end of the test."""
    from ether.testing.lab import Lab

    with ExitStack() as open_labs:

        def make(*args: Any, **kwargs: Any) -> Lab:
            return open_labs.enter_context(Lab(*args, **kwargs))

        yield make
