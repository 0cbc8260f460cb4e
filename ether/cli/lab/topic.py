"""`ether topic list|echo|hz|bw|pub`: watches topics, and publishes to one.

Watching subscribes at QoS 0, so that a slow terminal never slows a sender down: messages that are lost on the way to
this command are lost here only.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from ether.cli import completion
from ether.cli.arguments import parse_params, shown_value
from ether.cli.exits import CommandMistake, Exit
from ether.cli.lab.call import Words, read_file
from ether.cli.lab.joined import joined
from ether.cli.options import Json, Where
from ether.cli.output import print_json, print_line, print_table, remark, to_json
from ether.connection.link import Inbound
from ether.errors import DecodeError
from ether.protocol.topic_typo_rules import topics_of, uses_of
from ether.session.client import Client, Message, Subscription
from ether.session.watching.rates import Meter, TopicRate, shown_bytes
from ether.wire.topics import OUTSIDE, check_topic_filter, matches

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)

Topic = Annotated[
    str,
    typer.Argument(metavar="TOPIC", help="A topic; + and # are wildcards.", autocompletion=completion.topics),
]
Count = Annotated[int | None, typer.Option("--count", "-n", min=1, help="End after so many.")]
Patience = Annotated[
    float | None,
    typer.Option("--timeout", "-t", metavar="SECONDS", min=0.1, help="End when nothing comes for so long."),
]
Window = Annotated[float, typer.Option("--window", "-w", metavar="SECONDS", min=0.1, help="Over how long it is taken.")]

_REPORT_S = 1.0
_SHOWN_HEARERS = 5

Seen = tuple[str, int, float]
"""A message that arrived: its MQTT topic, its size in bytes, and the time in seconds of the monotonic clock."""


@app.command("list")
def list_topics(
    where: Where,
    watch: Annotated[float, typer.Option("--for", metavar="SECONDS", min=0.0, help="How long to look.")] = 1.0,
    json: Json = False,
) -> None:
    """Show the topics that classes are marked with, and what passes within a second."""
    with joined(where) as client:
        meters = _watched(client, watch)
        rows = _topic_rows(client, meters)
    if json:
        print_json(rows)
        return
    shown = [{**row, "bw": shown_bytes(row["bytes_per_s"])} for row in rows]
    for row in shown:
        row |= {key: ", ".join(row[key]) or "-" for key in ("publishers", "subscribers")}
    columns = {"topic": "TOPIC", "publishers": "PUBLISHED BY", "subscribers": "HEARD BY", "hz": "HZ", "bw": "BYTES/S"}
    print_table(shown, columns, nothing="no topics")


def _watched(client: Client, seconds: float) -> dict[str, Meter]:
    began = time.monotonic()
    meters: dict[str, Meter] = {}
    with _passing(client, "#") as take:
        while (left := began + seconds - time.monotonic()) > 0:
            if (seen := take(left)) is not None:
                topic, size, at = seen
                meters.setdefault(client.topics.user_topic(topic), Meter(seconds, began)).take(at, size)
    return meters


def _topic_rows(client: Client, meters: dict[str, Meter]) -> list[dict[str, Any]]:
    now = time.monotonic()
    rows: dict[str, dict[str, Any]] = {}
    members = client.session.announcements()
    for key, column in (("publishes", "publishers"), ("subscribes", "subscribers")):
        for member in members:
            for topic in topics_of(member, key):
                row = rows.setdefault(topic, {"topic": topic, "publishers": [], "subscribers": []})
                row[column].append(member.name)
    for topic in meters:
        rows.setdefault(topic, {"topic": topic, "publishers": [], "subscribers": []})
    for topic, row in rows.items():
        rate = meters[topic].rate(now) if topic in meters else None
        row |= {"hz": rate.hz if rate else 0.0, "bytes_per_s": rate.bytes_per_s if rate else 0.0}
    return [rows[topic] for topic in sorted(rows)]


@contextmanager
def _passing(client: Client, topic: str) -> Iterator[Callable[[float], Seen | None]]:
    """Listens to a topic without decoding. Yields a function that waits for the next message, None when none comes in
    time."""
    arrived: queue.SimpleQueue[Seen] = queue.SimpleQueue()
    wanted = client.topics.data_filter(check_topic_filter(topic))

    def receive(inbound: Inbound) -> bool:
        arrived.put((inbound.delivery.topic, len(inbound.delivery.payload), time.monotonic()))
        inbound.done()
        return True

    def take(timeout_s: float) -> Seen | None:
        try:
            return arrived.get(timeout=timeout_s)
        except queue.Empty:
            return None

    client.link.listen(wanted, receive, now=receive, qos=0)
    try:
        yield take
    finally:
        client.link.unlisten(wanted, receive)


@app.command()
def echo(
    topic: Topic,
    where: Where,
    count: Count = None,
    timeout: Patience = None,
    json: Json = False,
) -> int:
    """Print every message on a topic until Ctrl-C. With --json one object a line: topic, value, time, source, id."""
    with joined(where) as client, client.subscribe(topic, qos=0) as messages:
        _say_listening(client, topic)
        try:
            return _echo(messages, topic, count, timeout, as_json=json)
        except KeyboardInterrupt:
            return Exit.OK


def _say_listening(client: Client, topic: str) -> None:
    """Say what is listened to, and where no instance publishes it, which topic was probably meant."""
    typo = client.topic_check.unpublished(topic)
    members = client.session.announcements()
    if typo is not None:
        remark(f"listening to {topic!r}; {typo}")
    elif topic.startswith(OUTSIDE) or any(matches(topic, use.topic) for use in uses_of(members, "publishes")):
        remark(f"listening to {topic!r}")
    else:
        remark(f"listening to {topic!r}, which no instance publishes (a program may)")


def _echo(messages: Subscription, topic: str, count: int | None, timeout_s: float | None, *, as_json: bool) -> Exit:
    left = count
    while left is None or left > 0:
        try:
            message = messages.get(timeout_s=timeout_s)
        except DecodeError as error:
            remark(f"a message cannot be read: {error}")
            continue
        except TimeoutError:
            remark(f"ether: no message on {topic!r} within {timeout_s:g} s")
            return Exit.TIMEOUT
        left = None if left is None else left - 1
        _show_message(message, as_json=as_json)
    return Exit.OK


def _show_message(message: Message, *, as_json: bool) -> None:
    value = to_json(message.value)
    if as_json:
        facts = {"topic": message.topic, "value": value, "time": message.time}
        print_json({**facts, "source": message.source, "id": message.id}, lines=True)
    else:
        print_line(f"{message.topic}: {shown_value(value)}")


@app.command()
def hz(
    topic: Topic,
    where: Where,
    window: Window = 10.0,
    count: Count = None,
    json: Json = False,
) -> int:
    """Print how often messages come, every second until Ctrl-C (or --count reports)."""
    return _report(topic, where, window, count, _hz_json if json else _hz_line)


@app.command()
def bw(
    topic: Topic,
    where: Where,
    window: Window = 10.0,
    count: Count = None,
    json: Json = False,
) -> int:
    """Print how many bytes pass, every second until Ctrl-C (or --count reports)."""
    return _report(topic, where, window, count, _bw_json if json else _bw_line)


def _report(
    topic: str,
    where: Where,
    window_s: float,
    count: int | None,
    say: Callable[[str, TopicRate, int], None],
) -> int:
    with joined(where) as client, _passing(client, topic) as take:
        _say_listening(client, topic)
        begin = time.monotonic()
        meter, said = Meter(window_s, begin), 0
        try:
            while count is None or said < count:
                _measure(take, meter, begin + (said + 1) * _REPORT_S)
                said += 1
                say(topic, meter.rate(time.monotonic()), meter.total)
        except KeyboardInterrupt:
            pass
    return Exit.OK


def _measure(take: Callable[[float], Seen | None], meter: Meter, until: float) -> None:
    while (left := until - time.monotonic()) > 0:
        if (seen := take(left)) is not None:
            meter.take(seen[2], seen[1])


def _hz_line(topic: str, rate: TopicRate, total: int) -> None:
    if rate.interval_mean_s is None:
        print_line(f"{rate.hz:.2f} Hz, {total} messages so far")
        return
    low, high, deviation = (1000 * (each or 0.0) for each in rate[5:])
    times = f"interval {1000 * rate.interval_mean_s:.1f} ms, min {low:.1f}, max {high:.1f}, deviation {deviation:.1f}"
    print_line(f"{rate.hz:.2f} Hz, {times}, {total} messages so far")


def _hz_json(topic: str, rate: TopicRate, total: int) -> None:
    print_json({"topic": topic, "total": total, **rate._asdict()}, lines=True)


def _bw_line(topic: str, rate: TopicRate, total: int) -> None:
    mean = shown_bytes(rate.mean_bytes)
    print_line(f"{shown_bytes(rate.bytes_per_s)}/s, mean message {mean}, {rate.hz:.2f} Hz, {total} messages so far")


_bw_json = _hz_json


@app.command()
def pub(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", autocompletion=completion.topics)],
    message: Words = None,
    *,
    where: Where,
    rate: Annotated[
        float | None, typer.Option("--rate", "-r", metavar="HZ", min=0.001, help="Again and again.")
    ] = None,
    count: Count = None,
    json: Json = False,
) -> int:
    """Publish a message: one value (JSON or text), or key=value pairs as a JSON object; nothing is an empty message."""
    if count is not None and rate is None:
        raise CommandMistake("--count goes with --rate")
    value = parse_params(message or [], (), read_file)
    with joined(where) as client:
        sent = _publish(client, topic, value, rate, count)
        client.link.flush(10.0)
        told = _told_hearers(client, topic)
    if json:
        print_json({"topic": topic, "value": value, "messages": sent})
    remark(told)
    return Exit.OK


def _told_hearers(client: Client, topic: str) -> str:
    """Who has heard what was published. (The topic that was probably meant is in the log already.)"""
    heard = uses_of(client.session.announcements(), "subscribes")
    mqtt_topic = client.topics.data(topic)
    names = dict.fromkeys(use.member for use in heard if matches(client.topics.data(use.topic), mqtt_topic))
    listed = ", ".join([*names][:_SHOWN_HEARERS]) + (f" and {len(names) - _SHOWN_HEARERS} more" if len(names) >
                                                      _SHOWN_HEARERS else "")  # fmt: skip
    return f"published on {topic!r}: {f'heard by {listed}' if names else 'no instance hears it (a program may)'}"


def _publish(client: Client, topic: str, value: object, rate_hz: float | None, count: int | None) -> int:
    client.publish(value, topic)
    if rate_hz is None:
        return 1
    begin, sent, never = time.monotonic(), 1, threading.Event()
    try:
        while count is None or sent < count:
            never.wait(max(0.0, begin + sent / rate_hz - time.monotonic()))
            client.publish(value, topic)
            sent += 1
    except KeyboardInterrupt:
        pass
    return sent
