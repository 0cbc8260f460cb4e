"""What a session records, into which folder, and how much each process keeps while no recorder can take it.

Short spellings: `record: all`, `record: [temperature, "camera/#"]`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from ether.config.part import ConfigPart
from ether.config.problems import shown
from ether.config.volumes import parse_keep, parse_rotation
from ether.errors import ConfigError

ALL = "all"
LONGEST_SYNC_S = 5.0
"""A trial is over when its values are on disk: it takes so much longer."""
RECORD_RULE = "expected all, a list of topics such as [temperature, camera/#], or a mapping such as {topics: all}."


class OutboxOptions(ConfigPart):
    """What each process keeps for the recorder."""

    max_mb: float = Field(
        512.0, gt=0, le=1_000_000, description="megabytes of what no recorder has acknowledged, for each process"
    )
    max_age_s: float = Field(604_800.0, gt=0, description="seconds after which what nobody recorded is given up")
    when_full: Literal["block", "drop-oldest", "drop-new"] = Field(
        "block",
        description="block: whoever saves waits 10 s for room, then gets an error; drop-oldest, drop-new: what is"
        " dropped is named in the record",
    )


def _list_of_topics(value: Any) -> Any:
    return [value] if isinstance(value, str) and value != ALL else value


def _check_topics(topics: Any) -> Any:
    if topics == ALL:
        return topics
    for topic in topics:
        if not topic or topic != topic.strip() or "#" in topic.split("/")[:-1]:
            raise ConfigError(f"{topic!r} is not a topic or a filter of topics (+ one level, # all that follow).")
    return topics


def _check_rotation(words: Any) -> Any:
    if words is not None:
        parse_rotation(words)
    return words


def _check_keep(words: Any) -> Any:
    if words is not None:
        parse_keep(words)
    return words


class Recording(ConfigPart):
    """What is recorded, and where."""

    topics: Annotated[
        Literal["all"] | tuple[str, ...], BeforeValidator(_list_of_topics), AfterValidator(_check_topics)
    ] = Field("all", description="all, or a list of topics; + and # are wildcards")
    folder: str | None = Field(
        None,
        min_length=1,
        description="the ledger's folder; left out, one in the user's data folder",
    )
    logs: bool = Field(True, strict=True, description="whether log records and changes of state are recorded, too")
    strangers: Literal["auto"] | bool = Field(
        "auto",
        description="whether messages of programs that are not Ether's are recorded on the session's own topics; auto:"
        " unless the broker is this session's alone, on this machine, at a port of its own choice",
    )
    rotate: Annotated[str | tuple[str, ...] | None, AfterValidator(_check_rotation)] = Field(
        None,
        description="when a volume of the ledger is closed: hour, day, week, month, a size such as 500MB, or"
        " [500MB, day]; left out, never",
    )
    keep: Annotated[str | dict[str, str] | None, AfterValidator(_check_keep)] = Field(
        None,
        description="how long what is recorded is kept: 30d, or by topic {camera/#: 7d, '#': 1y}; left out, for ever",
    )
    until_backed_up: bool = Field(
        False,
        strict=True,
        description="whether nothing is deleted before ether ledger backup has it",
    )
    sync_every_s: float = Field(
        0.0,
        ge=0,
        le=LONGEST_SYNC_S,
        description="saves SD cards: at most one transaction in so many seconds, so values are acknowledged later",
    )
    outbox: OutboxOptions = Field(OutboxOptions(), description="what each process keeps until it is recorded")


def _spelled_out(value: Any) -> Any:
    """The mapping that a short spelling stands for."""
    if value is None or isinstance(value, (dict, Recording)):
        return value
    if value is True or value == ALL:
        return {"topics": ALL}
    if isinstance(value, (list, tuple)):
        return {"topics": value}
    raise ConfigError(f"found {shown(value)}; {RECORD_RULE}")


RecordField = Annotated[
    Recording | None,
    BeforeValidator(_spelled_out, json_schema_input_type=Literal["all"] | list[str] | Recording | None),
]
