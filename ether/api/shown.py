"""What a notebook shows of lists that are for programs: a small table instead of forty lines of dicts."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ether.protocol.presence import Announcement
    from ether.session.session import Session

_COLUMNS = ("name", "state", "class", "host", "pid", "error")
_LONGEST = 200


class Rows(list[dict[str, Any]]):
    """Instances as dicts, for programs an ordinary list."""

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{column}</th>" for column in _COLUMNS)
        rows = ("".join(f"<td>{_cell(row.get(column))}</td>" for column in _COLUMNS) for row in self)
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def row_of(session: Session, member: Announcement) -> dict[str, Any]:
    """The name, state and error of a member, and, for a notebook, what it announces that is in a column."""
    about = {column: member.about[column] for column in ("class", "host", "pid") if column in member.about}
    return {"name": member.name, **session.reach_of(member), "error": member.error, **about}


def text_as_html(text: str) -> str:
    """A line of text."""
    return f"<p>{escape(text)}</p>"


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return escape(text if len(text) <= _LONGEST else text[:_LONGEST] + "…")
