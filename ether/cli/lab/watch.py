"""`ether run --watch`: a saved file gives the instances that are made of it their new code.

Promises: an instance whose file does not compile, whose constructor raises or that cannot take over the state goes on
as it was, and one sentence says why. Instances that need each other (`after:`) get their new code in that order.

The traps: an editor writes a file in several steps, so a change counts when two looks in a row find the same. And
Python knows its compiled files by the second in which the source was saved, and its size: of two edits in one second it
would not notice the second one. So the compiled file of a changed source is removed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ether.cli.exits import sentence_of
from ether.cli.output import remark
from ether.config import EtherInstanceConfig
from ether.errors import EtherError
from ether.launch.reload.source_files import SourceFiles, state_of

_LOOK_S = 0.1
_SETTLE_S = 0.03
_STOP_S = 2.0
"""For a change that is being made when everything ends."""

State = tuple[int, int] | None
Say = Callable[[str, str, str, float], None]
"""Told of each change: the instance, the names of the saved files, why it was not made (or nothing), the seconds."""


class Watch:
    """Looks after the source files of some instances, on a thread of its own."""

    def __init__(
        self,
        instances: Mapping[str, EtherInstanceConfig],
        sources: SourceFiles,
        reload: Callable[[str], None],
        say: Say,
        configuration: Path | None = None,
    ) -> None:
        """`reload` gives an instance its new code, and raises an `EtherError` where it goes on with the old."""
        self._instances, self._sources, self._reload, self._say = instances, sources, reload, say
        self._configuration = configuration
        self._stop = threading.Event()
        self._files: dict[str, frozenset[Path]] = {}
        self._states: dict[Path, State] = {}
        self._note_files()
        self._thread = threading.Thread(target=self._run, name="ether-watch", daemon=True)

    @property
    def files(self) -> frozenset[Path]:
        """All files that are watched."""
        return frozenset().union(*self._files.values())

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; returns when a change that is being made is made, or after a moment."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_S)

    def _run(self) -> None:
        while not self._stop.wait(_LOOK_S):
            self.look()

    def look(self) -> None:
        """Look once, and change what is to be changed."""
        if not (changed := self._changed()):
            return
        self._note_files()
        if self._configuration in changed:
            changed.discard(self._configuration)
            remark(f"{self._configuration.name} was saved: what it says counts from the next start on")
        wrong = {path: why for path in changed if (why := _wrong_in(path))}
        for name in in_order(self._instances):
            if mine := changed & self._files[name]:
                self._change(name, mine, wrong)

    def _change(self, name: str, changed: Iterable[Path], wrong: Mapping[Path, str]) -> None:
        began = time.monotonic()
        saved = ", ".join(sorted(path.name for path in changed))
        why = next((f"{name} goes on with its code of before: {wrong[path]}" for path in changed if path in wrong), "")
        if not why:
            try:
                self._reload(name)
            except (EtherError, KeyError, OSError) as error:
                why = sentence_of(error) if isinstance(error, EtherError) else str(error)
        self._say(name, saved, why.partition("\n")[0], time.monotonic() - began)

    def _note_files(self) -> None:
        self._files = {name: self._sources.of_class(each.class_path) for name, each in self._instances.items()}
        for path in self.files.union([self._configuration] if self._configuration else []):
            self._states.setdefault(path, state_of(path))

    def _changed(self) -> set[Path]:
        """The files that were saved since the last look; of one that is being written, none yet."""
        changed = {path for path, state in self._states.items() if (now := state_of(path)) != state and now is not None}
        while changed:
            seen = {path: state_of(path) for path in changed}
            if self._stop.wait(_SETTLE_S):
                return set()
            if seen == {path: state_of(path) for path in changed}:
                changed = {path for path in changed if seen[path] is not None}  # one that is gone may come again
                break
        for path in changed:
            self._states[path] = state_of(path)
            with contextlib.suppress(OSError, NotImplementedError):
                Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
        return changed


def in_order(instances: Mapping[str, EtherInstanceConfig]) -> list[str]:
    """The names, each behind those of its `after:`."""
    ordered: dict[str, None] = {}

    def add(name: str) -> None:
        if name in instances and name not in ordered:
            for other in instances[name].after:
                if other != name:
                    add(other)
            ordered[name] = None

    for name in instances:
        add(name)
    return list(ordered)


def _wrong_in(path: Path) -> str:
    """What keeps a file from being compiled, with its line; empty where nothing does."""
    try:
        compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        return f"SyntaxError: {error.msg} ({path.name}:{error.lineno})"
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        return f"{path.name} cannot be read: {error}"
    return ""
