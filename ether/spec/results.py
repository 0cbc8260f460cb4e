"""Checks what a method returned against its return hint.

Promises: lenient, as for arguments (an int fits a float); an instance of the hinted model or dataclass is returned
unchanged; keys that a typed dict does not name are kept. A hint that is missing, `Any`, or impossible to check accepts
every value: a return hint is a promise to the caller, and no reason to refuse the class.

The trap: `-> None` on a method that returns a value is a hint that was not updated. The value is passed on, because
losing a measurement would be worse.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ether.errors import MarkError, ResultInvalid
from ether.spec.arguments import problems_of
from ether.spec.array_hints import PLAIN, plain_integers
from ether.spec.hints import result_hint, validator_of
from ether.spec.nothing import NOTHING


class Results:
    """Checks the results of one method."""

    def __init__(self, method: Callable[..., Any], name: str, *, enforced: bool = True) -> None:
        """`method` may be bound, a plain function or `async`; `name` is for the sentence of an error. Without
        `enforced` every value is accepted: the class is a driver of somebody else's, whose hints may be wrong."""
        self.name = name
        self._validate = _validator(result_hint(method)) if enforced else None

    def check(self, value: Any) -> Any:
        """The value converted to its hint (3 becomes 3.0); `NOTHING` is None for a caller. Raises `ResultInvalid` that
        names each wrong place."""
        if value is NOTHING:
            return None
        if self._validate is None:
            return value
        try:
            return self._validate(value if type(value) in PLAIN else plain_integers(value))
        except ValueError as error:
            from pydantic_core import ValidationError

            if not isinstance(error, ValidationError):
                raise
            invalid = ResultInvalid(self.name, problems_of(error, "result"))
            invalid.after = self.name
            raise invalid from error


def _validator(hint: Any) -> Callable[[Any], Any] | None:
    if hint is None or hint is type(None):
        return None
    try:
        return validator_of(hint, extra="allow")
    except MarkError:
        return None
