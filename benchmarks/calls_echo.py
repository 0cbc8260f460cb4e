"""The user's class that `calls_ether.py` calls."""

from __future__ import annotations

from typing import Any

import numpy

from ether import ether_get


class Echo:
    """Gives back what it is given."""

    @ether_get
    def echo(self, text: str) -> str:
        return text

    @ether_get
    def echo_array(self, array: numpy.ndarray[Any, Any]) -> numpy.ndarray[Any, Any]:
        return array
