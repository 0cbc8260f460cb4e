"""`NOTHING`: what a method returns that has nothing to say. No message is published and nothing is recorded; None, by
contrast, is a message without content.

Promise: there is one such object in each process. Copying and pickling keep it, and a class that returns it works
without Ether, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from pydantic_core import CoreSchema


class Nothing:
    """The type of `NOTHING`, for a hint: `def stage(self, n: int) -> dict[str, float] | Nothing`. It counts as false,
    so that `if result:` does what it says."""

    __slots__ = ()
    _only: Nothing | None = None

    def __new__(cls) -> Nothing:
        if cls._only is None:
            cls._only = super().__new__(cls)
        return cls._only

    def __repr__(self) -> str:
        return "ether.NOTHING"

    def __bool__(self) -> Literal[False]:
        return False

    def __reduce__(self) -> str:
        return "NOTHING"  # pickle and copy look it up by this name in this module

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> CoreSchema:
        """In a hint it stands for None: a caller of a method that has nothing to say receives None."""
        from pydantic_core import core_schema

        return core_schema.none_schema()


NOTHING: Final = Nothing()
