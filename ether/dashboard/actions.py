"""What a person does on the page, carried out by the page's own client: calls, runs, the safe state.

Each action is recorded with who, from where and what became of it, where the session is recorded; and is listed on the
page. An action never raises: what went wrong is its answer.
"""

from __future__ import annotations

import getpass
import itertools
import time
from collections.abc import Mapping
from typing import Any

from ether.dashboard.access import Browser
from ether.dashboard.shown import plain
from ether.dashboard.watched_lab import WatchedLab
from ether.errors import CallError, EtherError, RemoteError
from ether.launch.guest import Guest
from ether.log import get_ether_logger
from ether.runs.run_control import ask_run
from ether.session.watching.safety import make_safe
from ether.spec.marks import MarkKind
from ether.system.clock import wall_time

logger = get_ether_logger("dashboard")

RECORDED_AS = "page"
"""Under this name actions are recorded."""
_LISTED = 100
_CALL_MAX_S = 3600.0
_RUN_S = 5.0
_RUN_VERBS = ("pause", "resume", "stop")


class Mistake(Exception):
    """What was asked for cannot be understood; the text says why."""


class Actions:
    """Carries out actions. Its methods wait, and are called from any thread but the event loop's."""

    def __init__(self, lab: WatchedLab) -> None:
        self._lab = lab
        self._numbers = itertools.count(1)
        self._person = _person()

    def do(self, name: str, said: Mapping[str, Any], browser: Browser) -> dict[str, Any]:
        """Carry out one action, and note it."""
        carry_out = {"call": self._call, "safe": self._safe, "serve": self._serve, "run": self._run}.get(name)
        if carry_out is None:
            return {"ok": False, "error": f"the page knows no action {name!r:.40}"}
        client = self._client()
        if client is None:
            answer = {"ok": False, "error": "the page has no connection to the session; nobody was asked"}
        else:
            began = time.monotonic()
            try:
                answer = {"ok": True, **carry_out(client, said)}
            except Mistake as error:
                return {"ok": False, "error": str(error)}
            except RemoteError as error:
                told = {"class": error.remote_class, "traceback": error.remote_traceback}
                answer = {"ok": False, "error": f"{error.remote_class}: {error.remote_message}", **told}
            except (EtherError, LookupError, ValueError, TypeError, OSError) as error:
                answer = {"ok": False, "error": str(error), "class": type(error).__name__}
            answer["took_s"] = round(time.monotonic() - began, 4)
        self._note(client, name, said, browser, answer)
        return answer

    def _client(self) -> Guest | None:
        membership = self._lab.membership
        return None if membership is None else membership.client

    def _note(
        self, client: Guest | None, name: str, said: Mapping[str, Any], browser: Browser, answer: Mapping[str, Any]
    ) -> None:
        became = "done" if answer["ok"] else str(answer["error"])[:500]
        note = {
            "time": wall_time(), "by": self._person, "from": f"{browser.name}, {browser.address}", "action": name,
            "said": plain(said, items=20, depth=4), "became": became,
        }  # fmt: skip
        number = next(self._numbers)  # of one action, however many threads note theirs
        self._lab.versions.put("actions", str(number), note)
        if number > _LISTED:
            self._lab.versions.put("actions", str(number - _LISTED), None)
        logger.info("%s (%s): %s %s: %s", note["by"], note["from"], name, note["said"], became)
        if client is not None and client.record_writer is not None and client.record_writer.recorders():
            try:
                client.record(note, RECORDED_AS)
            except EtherError as error:
                logger.warning("an action could not be recorded: %s", error)

    # -- the actions

    def _call(self, client: Guest, said: Mapping[str, Any]) -> dict[str, Any]:
        service, method, params = said.get("instance"), said.get("method"), said.get("params")
        kind, timeout_s = said.get("kind"), said.get("timeout_s")
        if not (isinstance(service, str) and isinstance(method, str) and (params is None or isinstance(params, dict))):
            raise Mistake("a call needs instance, method, and params by name")
        if timeout_s is not None and not (isinstance(timeout_s, (int, float)) and 0 < timeout_s <= _CALL_MAX_S):
            raise Mistake(f"timeout_s is a number of seconds, above 0 and up to {_CALL_MAX_S:g}")
        if kind == "save":
            status = client.save(service, method, params or None, timeout_s)
            if status.get("status") == "error":
                raise CallError(str(status.get("error")))
            return {"value": plain(status)}
        value = client.call(service, method, params or None, timeout_s, MarkKind.GET)
        return {"value": plain(value)}

    def _safe(self, client: Guest, said: Mapping[str, Any]) -> dict[str, Any]:
        why = str(said.get("why") or "")[:200]
        asked = f"asked for by {self._person} on the page" + (f": {why}" if why else "")
        return {"answers": {name: each._asdict() for name, each in make_safe(client.session, asked).items()}}

    def _serve(self, client: Guest, said: Mapping[str, Any]) -> dict[str, Any]:
        return {"answers": {name: each._asdict() for name, each in make_safe(client.session, "").items()}}

    def _run(self, client: Guest, said: Mapping[str, Any]) -> dict[str, Any]:
        verb, program, why = said.get("do"), said.get("program"), str(said.get("why") or "")[:500]
        if verb not in _RUN_VERBS or not isinstance(program, str):
            raise Mistake(f"a run is told one of {', '.join(_RUN_VERBS)}, by the name of its program")
        answer = ask_run(client, program, verb, why or f"asked for by {self._person} on the page", _RUN_S)
        if answer is None:
            raise KeyError(f"{program} leads no run, or did not answer within {_RUN_S:g} s")
        return {"run": answer.get("run")}


def _person() -> str:
    """The user of this process: the page runs in a person's name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name
        return "somebody"
