"""The front door: the class of the object `ether`, the one object that users need."""

from ether.api.front_door import Ether

__all__ = ["Ether"]
