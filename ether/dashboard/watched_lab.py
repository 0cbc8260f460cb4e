"""What the page shows of a session, kept up to date: members, heartbeats, topics, logs, run, proof, machines.

Three threads: one decodes values and log records, twenty times a second; one collects heartbeats and looks at the
members; one asks the recorder and the program that leads the run, which may take seconds. Everything that they find
goes into `versions`, from which each browser gets what it lacks.

Promise: nothing waits for the page, and while no browser is open it only counts. The trap: a session may go and come
back under the threads; each takes `membership.client` anew for every round.
"""

from __future__ import annotations

import operator
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from ether.connection.link import Inbound
from ether.dashboard.members import flow_row, member_row
from ether.dashboard.membership import NAME, PageMembership
from ether.dashboard.pace import Pace
from ether.dashboard.shown import plain
from ether.dashboard.values import Values
from ether.dashboard.versions import Versions
from ether.errors import EtherError, PayloadError
from ether.launch.guest import Guest
from ether.log import get_ether_logger
from ether.logs.lines import LogLine
from ether.logs.session_file import read_back
from ether.protocol.presence import Announcement
from ether.protocol.run_record import RUNNING, RunState
from ether.recording.recorder_page import recorders_of
from ether.recording.tags import Tag
from ether.runs.outlook_rules import outlook
from ether.runs.run_control import ask_run
from ether.session.watching.flow import flow_of
from ether.session.watching.heartbeats import Heartbeats, activity_value
from ether.spec.marks import MarkKind
from ether.system.clock import wall_time
from ether.system.health import read_health

logger = get_ether_logger("dashboard")

LOGS_KEPT = 2000
_PAST_LINES = 300
_READ_S = 0.05
_BEATS_S = 0.4
_ASK_S = 1.0
_ASK_TIMEOUT_S = 5.0
_RUNS_EVERY_S = 5.0
_RUN_SHARE = 20.0
"""A run that goes on is worth more of the recorder's time than a proof."""
_PROOF_EVERY_S = 2.0
_HEALTH_EVERY_S = 5.0
_MOST_RUNS = 200
_MOST_TRIALS = 2000
_LOG_TEXT = 4000


class WatchedLab:
    """Watches from `start()` until `close()`."""

    def __init__(self) -> None:
        self.versions = Versions()
        self.values = Values()
        self.membership: PageMembership | None = None
        self._watchers: Callable[[], int] = lambda: 0
        self._beats: Heartbeats | None = None
        self._logs: deque[Inbound] = deque(maxlen=LOGS_KEPT)
        """What came and is not decoded yet: the newest ones, because older ones would not be kept anyway."""
        self._log_number = 0
        self._tag: Tag | None = None
        self.guests: str | None = None
        """What the session's rights say of guests, as last told by the program that leads it; "" without rights, None
        before it was heard."""
        self._members: tuple[bool, list[Announcement]] = (False, [])
        self._unfed: list[str] = []
        """What instances hear and no instance publishes: topics of programs without Ether are among them."""
        self._run_over = ""
        """The run whose end is known: there is nothing more to ask."""
        self._proof_pace, self._runs_pace = Pace(_PROOF_EVERY_S), Pace(_RUNS_EVERY_S)
        self._run_pace = Pace(_ASK_S, share=_RUN_SHARE)
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._rounds, args=(step, pause_s), name=f"ether-page-{name}", daemon=True)
            for name, step, pause_s in (
                ("values", self._read_values, _READ_S),
                ("members", self._look_at_members, _BEATS_S),
                ("questions", self._ask, _ASK_S),
            )
        ]

    def start(self, membership: PageMembership, watchers: Callable[[], int]) -> None:
        """Begin; `watchers` tells how many browsers are open."""
        self.membership, self._watchers = membership, watchers
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the threads. The membership is closed after this."""
        self._over.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        if self._beats is not None and self._client is not None:
            self._beats.close()

    @property
    def _client(self) -> Guest | None:
        return None if self.membership is None else self.membership.client

    def joined(self, client: Guest) -> None:
        """The page is in a session, or in it again: listen there."""
        self._tag = None
        self.values.listen(client)
        client.link.listen(client.topics.log("+"), self._hear_log, now=self._hear_log, qos=0)
        client.link.listen(client.topics.run, self._hear_tag, now=self._hear_tag)
        client.link.listen(client.topics.health("+"), self._hear_health)
        self._beats = Heartbeats(client)
        if not self._log_number:
            self._read_past_log(client.topics.session)

    # -- what comes by itself

    def _hear_log(self, inbound: Inbound) -> bool:
        self._logs.append(inbound)
        inbound.done()
        return True

    def _hear_tag(self, inbound: Inbound) -> bool:
        tag = Tag.from_value(inbound.take())
        if tag is None and self._tag is not None:  # the run is over, and its tag was taken away: how it ended is asked
            tag = replace(self._tag, goes_on=False)
        self._tag = tag
        return True

    def _hear_health(self, inbound: Inbound) -> None:
        agent, value = inbound.delivery.topic.split("/")[-2], inbound.take()
        if isinstance(value, dict):
            self.versions.put("health", agent, plain(value))

    def _read_past_log(self, session: str) -> None:
        """Records from before the page came, where the session's file is on this machine."""
        try:
            lines = list(read_back(session, wall_time() - 3600))[-_PAST_LINES:]
        except (EtherError, OSError) as error:
            logger.debug("the log file cannot be read: %s", error)
            return
        for line in lines:
            self._put_log(line)

    def _put_log(self, line: LogLine) -> None:
        self._log_number += 1
        row = {
            "n": self._log_number, "time": line.time, "level": line.level, "by": line.instance,
            "text": line.message[:_LOG_TEXT], "id": line.message_id or "", "logger": line.logger,
        }  # fmt: skip
        self.versions.put("logs", str(self._log_number), row)
        if self._log_number > LOGS_KEPT:
            self.versions.put("logs", str(self._log_number - LOGS_KEPT), None)

    # -- the threads

    def _rounds(self, step: Callable[[], object], pause_s: float) -> None:
        while not self._over.wait(pause_s):
            try:
                step()
            except EtherError as error:
                logger.debug("the page could not look: %s", error)
            except Exception:  # one defect must not blind the whole page
                logger.exception("a part of the page failed")

    def _read_values(self) -> None:
        for _ in range(len(self._logs)):
            inbound = self._logs.popleft()
            try:
                line = LogLine.from_value(inbound.unpack().value, inbound.delivery.topic.rpartition("/")[2])
            except PayloadError:
                continue
            if line is not None:
                self._put_log(line)
        if self._watchers():
            for topic in self.values.read():
                self.versions.put("topics", topic.name, self.values.row(topic))

    def _look_at_members(self) -> None:
        client, beats = self._client, self._beats
        self._say_connection(client)
        if client is None or beats is None:
            return
        beats.collect(0.1)
        members = [member for member in client.session.announcements() if not member.name.startswith("ether-cli-")]
        if not self._watchers():
            return
        self._put_members(members, reached=client.link.offline_since is None)
        recorded = [topic for about in _recorders(client) for topic in about.topics or ()]
        self.values.listen_outside([*self._unfed, *recorded])
        rows = {each.name: activity_value(beats, each.name) for each in members if each.kind == "instance"}
        self.versions.put_all("beats", {name: _rounded(row) for name, row in rows.items() if row is not None})

    def _put_members(self, members: list[Announcement], *, reached: bool) -> None:
        """Announcements never change, so the same ones are the same news."""
        seen, self._members = self._members, (reached, members)
        if seen[0] == reached and len(seen[1]) == len(members) and all(map(operator.is_, seen[1], members)):
            return
        shown = members if reached else [member for member in members if not member.name.startswith(NAME)]
        self.versions.put_all("members", {each.name: member_row(each, reached=reached) for each in shown})
        flow = flow_of(members)
        self.versions.put("graph", "flow", flow_row(flow))
        self._unfed = [topic for topic, _ in flow.unfed]

    def _say_connection(self, client: Guest | None) -> None:
        membership = self.membership
        if membership is None:
            return
        since = membership.lost_since if client is None else client.link.offline_since
        info: Mapping[str, Any] = {} if client is None else client.session.info(0.5)
        known = self.versions.row("session", "session") or {}
        if info:
            self.guests = str(info.get("rights") or "").removeprefix("guests: ")
        row = {
            "session": membership.session, "broker": membership.url, "offline_since": since, "page": _page_name(client),
            "host": info.get("host") or known.get("host", ""), "since": info.get("since") or known.get("since"),
            "program": info.get("program") or "", "simulated": bool(info.get("simulated")),
            "led": bool(info) if since is None else known.get("led", False),
            "recorders": [about.name for about in _recorders(client)], "here": socket.gethostname(),
            "left_out": self.values.left_out,
        }  # fmt: skip
        self.versions.put("session", "session", row)

    # -- questions to others

    _health_at = float("-inf")

    def _ask(self) -> None:
        if not self._watchers():
            return
        now = time.monotonic()
        if now - self._health_at >= _HEALTH_EVERY_S:
            self._health_at = now
            self.versions.put("health", "", read_health(os.getcwd()).to_value() | {"host": socket.gethostname()})
        client = self._client
        recorders = _recorders(client)
        if client is None or client.link.offline_since is not None:
            return
        for about in recorders if self._proof_pace.due() else ():
            with self._proof_pace:
                proof = client.call(about.name, "proof", None, _ASK_TIMEOUT_S, MarkKind.GET)
            here = {facts.recorder: facts for facts in recorders_of(client.topics.session)}.get(about.name)
            more = {"host": about.host, "topics": about.topics, "at": round(wall_time(), 1)}
            if here is not None:
                more |= {"here": True, "free_bytes": here.free_bytes, "bytes_per_s": here.bytes_per_s}
            self.versions.put("proof", about.name, plain({**proof, **more}))
        if recorders:
            self._ask_for_runs(client, recorders[0].name)

    def _ask_for_runs(self, client: Guest, recorder: str) -> None:
        if self._runs_pace.due():
            with self._runs_pace:
                listed = client.call(recorder, "runs", {"run": None}, _ASK_TIMEOUT_S, MarkKind.GET)
            rows = [RunState.from_value(each) for each in listed[-_MOST_RUNS:]]
            self.versions.put_all("runs", {state.id: run_row(state) for state in rows})
        tag = self._tag
        if tag is None or f"{tag.run} {tag.turn}" == self._run_over or not self._run_pace.due():
            return
        with self._run_pace:
            states = client.call(recorder, "runs", {"run": tag.run}, _ASK_TIMEOUT_S, MarkKind.GET)
        for each in states:
            state = RunState.from_value(each)
            row = run_row(state) | trials_row(state) | {"trial": tag.trial if tag.goes_on else None}
            if state.status == RUNNING and tag.goes_on:
                answer = ask_run(client, str(state.owner.get("program")), "status", "", 1.0)
                row |= {"held_up_by": str((answer or {}).get("held_up_by") or ""), "answers": answer is not None}
            elif state.status != RUNNING:
                self._run_over = f"{tag.run} {tag.turn}"
            self.versions.put("run", "run", row)

    def run_of(self, run: str) -> dict[str, Any] | None:
        """One run with its trials, from the recorder; None where there is no such run."""
        client = self._client
        for about in _recorders(client):
            assert client is not None
            for each in client.call(about.name, "runs", {"run": run}, _ASK_TIMEOUT_S, MarkKind.GET):
                state = RunState.from_value(each)
                return run_row(state) | trials_row(state)
        return None

    def watch(self, plotted: Collection[str], shown: Collection[str]) -> None:
        """What the browsers have chosen."""
        self.values.watch(plotted, shown)


def run_row(state: RunState) -> dict[str, Any]:
    """A run in the list."""
    seen = outlook(state)
    return {
        "id": state.id, "status": state.status, "error": state.error[:500], "begun": state.begun, "ended": state.ended,
        "last": state.last, "resumed": state.resumed, "done": seen.done, "planned": seen.planned, "left_s": seen.left_s,
        "trial_s": seen.trial_s, "shortest_s": seen.shortest_s, "longest_s": seen.longest_s, "measured": seen.measured,
        "metadata": plain(dict(state.metadata)), "owner": plain(dict(state.owner)), "repeated": state.repeated,
        "order": "random" if any(plan.seed is not None for plan in state.plans) else "given",
    }  # fmt: skip


def trials_row(state: RunState) -> dict[str, Any]:
    """The trials of a run: number, condition, attempts, whether done or open, seconds, result."""
    conditions = {number: plan.condition(number) for plan in state.plans for number in plan.order}
    order = [number for plan in state.plans for number in plan.order]
    rows = []
    for number in order[:_MOST_TRIALS]:
        found = state.trials.get(number)
        facts = (0, None, False, None, None) if found is None else tuple(found.to_value())
        rows.append([number, plain(conditions.get(number)), *map(plain, facts)])
    return {"trials": rows, "trials_left_out": max(0, len(order) - _MOST_TRIALS)}


def _recorders(client: Guest | None) -> list[Any]:
    writer = None if client is None else client.record_writer
    return [] if writer is None else list(writer.recorders())


def _page_name(client: Guest | None) -> str:
    return "" if client is None else client.link.source


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    """So that a number that hardly moves is no news."""
    digits = {"busy_s": 1, "handled_hz": 1, "published_hz": 1, "cpu": 2, "memory_mb": 0}
    return {
        key: round(value, digits[key]) if key in digits and value is not None else value for key, value in row.items()
    }
