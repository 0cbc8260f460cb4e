"""The text of a failure of user code: one sentence with everything that helps."""

from __future__ import annotations

from collections.abc import Mapping

from ether.connection.worker import Stopped
from ether.secret_values import hidden

_LIMIT = 2000
"""Characters of a sentence: a payload of megabytes in an exception's text must not flood a console."""


def describe_failure(what: str, error: BaseException, details: Mapping[str, object]) -> str:
    """`what: ValueError: text [topic='data', message_id=…]`."""
    return failure_sentence(what, type(error).__name__, text_of(error), details)


def failure_sentence(what: str, kind: str, told: str, details: Mapping[str, object]) -> str:
    """The same of an exception of which only the class (`kind`) and the text (`told`) are known."""
    facts = ", ".join(f"{key}={value}" for key, value in details.items() if value is not None and key != "method")
    text = f"{what}: {kind}: {told}" + (f" [{facts}]" if facts else "")
    return text if len(text) <= _LIMIT else f"{text[:_LIMIT]}..."


def text_of(error: BaseException) -> str:
    """The text of an exception. Never raises, although a user's own `__str__` may run."""
    if isinstance(error, SystemExit) and not isinstance(error, Stopped):
        return f"called sys.exit({error.code!r}); an instance ends by ether.shutdown() in the main program"
    try:
        return hidden(str(error))
    except BaseException:  # noqa: BLE001  a user's own __str__ runs here
        return "(an exception whose text cannot be shown)"
