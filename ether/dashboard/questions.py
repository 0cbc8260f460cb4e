"""What the page asks for once: an instance's methods, a run's trials, where a value comes from, what differed, exports.

What reads the ledger is the command line itself, in a process of its own, so that a page that explains a large tree
goes on showing the lab. Arguments travel as a list, behind `--`: nothing that a browser says is an option or a command.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ether.dashboard.members import methods_of
from ether.dashboard.shown import plain
from ether.dashboard.watched_lab import WatchedLab
from ether.launch.child import module_command, start_environment

FORMS = ("csv", "parquet", "hdf5")
_ENDINGS = {"csv": ".csv", "parquet": ".parquet", "hdf5": ".h5"}
_COMMAND_S = 60.0
_RECORD = re.compile(r"[0-9a-f]{8}[0-9a-f-]*|(row\s*|#)?[0-9]+", re.IGNORECASE)
_TREE_ITEMS = 2000


class NotAnswered(Exception):
    """Why a question has no answer."""


class Questions:
    """Answers questions. Its methods wait, and are called from any thread but the event loop's."""

    def __init__(self, lab: WatchedLab) -> None:
        self._lab = lab

    def answer(self, name: str, said: Mapping[str, str]) -> Any:
        """The answer as JSON data; raises `NotAnswered`."""
        ask = {"methods": self._methods, "run": self._run, "why": self._why, "diff": self._diff}.get(name)
        if ask is None:
            raise NotAnswered(f"the page knows no question {name!r:.40}")
        return ask(said)

    def _methods(self, said: Mapping[str, str]) -> Any:
        membership = self._lab.membership
        client = None if membership is None else membership.client
        member = None if client is None else client.session.announcement(said.get("instance", ""))
        if member is None:
            raise NotAnswered(f"there is no instance {said.get('instance', '')!r:.80} now")
        return {"instance": member.name, "class": member.about.get("class", ""), "methods": methods_of(member)}

    def _run(self, said: Mapping[str, str]) -> Any:
        found = self._lab.run_of(said.get("run", ""))
        if found is None:
            raise NotAnswered(f"the recorder knows no run {said.get('run', '')!r:.80}")
        return found

    def _why(self, said: Mapping[str, str]) -> Any:
        what, last = said.get("what", ""), ["--last"] if said.get("last") else []
        if not last and not _RECORD.fullmatch(what):  # the command also takes FILE:ROW, and no browser opens files here
            raise NotAnswered(f"found {what!r:.80}; expected an id or a row; a topic goes with last=1")
        tree = self._told("why", "--json", "--steps", "200", *last, what=[what])
        return plain(tree, items=_TREE_ITEMS, depth=10)

    def _diff(self, said: Mapping[str, str]) -> Any:
        found = self._told("diff", "--json", what=[said.get("a", ""), said.get("b", "")])
        return plain(found, items=_TREE_ITEMS, depth=10)

    def export(self, said: Mapping[str, str]) -> tuple[Path, str]:
        """Write records to a file; returns it, to be deleted by the caller with its folder, and its name for people."""
        form = said.get("form", "csv")
        if form not in FORMS:
            raise NotAnswered(f"there is no form {form!r:.40}; there are {', '.join(FORMS)}")
        options = [f"--{key}={said[key]}" for key in ("topic", "run") if said.get(key)]
        folder = Path(tempfile.mkdtemp(prefix="ether-export-"))
        name = f"{self._session}{_ENDINGS[form]}"
        path = folder / f"export{_ENDINGS[form]}"
        words = ("export", "--json", f"--to={path}", f"--format={form}", *options)
        try:
            self._told(*words, what=[self._session], named=False)
        except NotAnswered:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        if not path.is_file():
            shutil.rmtree(folder, ignore_errors=True)
            raise NotAnswered("there is nothing to export")
        return path, name

    @property
    def _session(self) -> str:
        return "" if self._lab.membership is None else self._lab.membership.session

    def _told(self, *words: str, what: list[str], named: bool = True) -> Any:
        session = ["-s", self._session] if named else []
        command = [*module_command(), *words, *session, "--", *what]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_COMMAND_S, check=False, env=start_environment()
            )
        except subprocess.TimeoutExpired:
            raise NotAnswered(f"ether {words[0]} took longer than {_COMMAND_S:g} s") from None
        except (OSError, ValueError) as error:  # no room for a process; a NUL in an argument
            raise NotAnswered(f"ether {words[0]} could not be started: {error}") from None
        try:
            return json.loads(done.stdout)
        except ValueError:
            said = done.stderr.strip().removeprefix("ether: ") or f"ether {words[0]} ended with {done.returncode}"
            raise NotAnswered(said[:2000]) from None
