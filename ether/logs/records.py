"""A log record as it is published: plain values, bounded in size. Making one never fails.

The trap: a record holds the user's own objects, whose `__str__` is user code that may raise, log, or return megabytes.
It is called here, on the thread that logs, because the objects may change a moment later.
"""

from __future__ import annotations

import logging
from typing import Any

from ether.connection.causes import current
from ether.log import UserTracebacks
from ether.secret_values import hidden

MESSAGE_MAX = 8_192
"""Characters of a message; a longer one is cut at its end."""

EXCEPTION_MAX = 16_384
"""Characters of a traceback; a longer one is cut in the middle, because its end says what happened."""

_NAME_MAX = 200
_SHORT_MAX = 500
_CAUSE_KEYS = ("method", "topic", "source")
_STANDARD_LEVELS = frozenset(("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"))
_tracebacks = UserTracebacks()


def record_value(record: logging.LogRecord, instance: str) -> dict[str, Any]:
    """The value that is published for a record. `level` comes early, so that a reader finds it without decoding."""
    details = record.__dict__.get("ether")
    details = details if isinstance(details, dict) else {}
    cause = current()
    value: dict[str, Any] = {
        "time": float(record.created),
        "level": record.levelname,
        "logger": _head(record.name, _NAME_MAX),
        "instance": instance,
        "pid": record.process or 0,
        "message": _head(hidden(_message(record)), MESSAGE_MAX),
        "message_id": _text_or_none(details.get("message_id")) or cause.message_id,
        "trace": cause.trace,
    }
    if record.levelname not in _STANDARD_LEVELS:
        value["level"] = _head(str(record.levelname), _NAME_MAX)
        value["level_number"] = record.levelno
    if exception := _exception(record):
        value["exception"] = _ends(hidden(exception), EXCEPTION_MAX)
    if known := {key: _shown(details[key]) for key in _CAUSE_KEYS if details.get(key) is not None}:
        value["cause"] = known
    return value


def shortened(value: dict[str, Any]) -> dict[str, Any]:
    """The same record for a broker that takes no larger one: the beginning of its message, without its traceback."""
    short = {key: known for key, known in value.items() if key not in ("exception", "cause")}
    return {**short, "message": _head(value["message"], _SHORT_MAX)}


def size_of(value: dict[str, Any]) -> int:
    """About how many bytes a queued record takes."""
    return 500 + len(value["message"]) + len(value.get("exception", ""))


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001  the arguments' own code runs here
        return f"{_shown(record.msg)} (its arguments do not fit: {type(error).__name__}: {_shown(error)})"


def _exception(record: logging.LogRecord) -> str:
    """Traceback and stack, as the standard library prints them."""
    try:
        told = record.exc_text or ""
        if record.exc_info and record.exc_info[0] is not None:
            told = _tracebacks.formatException(record.exc_info)
        return "\n".join(filter(None, (told, record.stack_info)))
    except Exception as error:  # noqa: BLE001  the exception's own code runs here
        return f"(a traceback that cannot be shown: {type(error).__name__})"


def _shown(value: object) -> str:
    try:
        return _head(str(value), _NAME_MAX)
    except Exception:  # noqa: BLE001  the value's own code runs here
        return f"({type(value).__name__}, which cannot be shown)"


def _text_or_none(value: object) -> str | None:
    return _head(value, _NAME_MAX) if isinstance(value, str) else None


def _head(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}... (cut: {len(text):,} characters in all)"


def _ends(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    head, tail = text[: limit // 4], text[-limit * 3 // 4 :]
    return f"{head}\n... (cut: {len(text):,} characters in all)\n{tail}"
