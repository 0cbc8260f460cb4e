"""The front door: the class of the one object that users know."""

from ether.api.front_door import Ether

__all__ = ["Ether"]
