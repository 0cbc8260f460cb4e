"""The text of a failure of user code: one sentence with everything that helps, and the traceback of the user's code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

_OWN_CODE = str(Path(__file__).resolve().parents[1])
_LIMIT = 2000
"""Characters of a sentence: a payload of megabytes in an exception's text must not flood a console."""


def describe_failure(what: str, error: BaseException, details: Mapping[str, object]) -> str:
    """`what: ValueError: text [topic='data', message_id=…]`."""
    facts = ", ".join(f"{key}={value}" for key, value in details.items() if value is not None and key != "method")
    text = f"{what}: {type(error).__name__}: {text_of(error)}" + (f" [{facts}]" if facts else "")
    return text if len(text) <= _LIMIT else f"{text[:_LIMIT]}..."


def text_of(error: BaseException) -> str:
    """The text of an exception. Never raises, although a user's own `__str__` may run."""
    if isinstance(error, SystemExit):
        return f"called sys.exit({error.code!r}); an instance ends by ether.shutdown() in the main program"
    try:
        return str(error)
    except Exception:  # noqa: BLE001  a user's own __str__ runs here
        return "(an exception whose text cannot be shown)"


def user_traceback(error: BaseException) -> TracebackType | None:
    """The traceback from the first frame that is not Ether's; the whole one where all frames are Ether's."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code.co_filename.startswith(_OWN_CODE):
        traceback = traceback.tb_next
    return traceback or error.__traceback__
