"""What an agent may run: the classes under the roots that its owner allows.

A root is a dotted name (`lab.cameras`: that module or package, or that one class) or a folder (`/home/pi/lab`: every
module in it). Nothing is allowed by default.

Promise: `check` returns only where the file of the class statement lies under a root, and so does every file through
which the requested name leads there (imports of one module from another); and it runs no code of those files to find
out. The first trap: importing a module also runs the packages around it. The second: an allowed class is allowed with
all that it can do. Whoever may publish in the session chooses its arguments and calls its methods; a class that runs
shell commands is a shell.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from ether.config.names import current_class_path, is_class_path
from ether.errors import ConfigError, EtherError
from ether.runs.plan.class_lookup import SourcePlace, SourceUnclear, places_of


class ClassNotAllowed(EtherError, PermissionError):
    """A class that lies under none of the roots that the agent's owner allows. `roots` are the allowed ones."""

    def __init__(self, class_path: str, roots: Iterable[str], why: str) -> None:
        self.class_path, self.roots, self.why = class_path, tuple(roots), why
        listed = ", ".join(self.roots) or "nothing"
        super().__init__(
            f"{class_path} may not run here: {why}. This agent's owner allows {listed};"
            " more with `ether agent --allow ROOT` on its machine."
        )


@dataclass(frozen=True, slots=True)
class Roots:
    """The allowed roots: dotted names, and folders as absolute paths. Made by `roots_of`."""

    names: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()

    def __str__(self) -> str:
        return ", ".join([*self.names, *self.folders]) or "nothing"

    def check(self, class_path: str) -> None:
        """Return for a class that may run here; raises `ClassNotAllowed`."""
        roots = [*self.names, *self.folders]
        if not self.folders and not self._covers_name(class_path):
            raise ClassNotAllowed(class_path, roots, "it lies under none of the allowed roots")
        try:
            places = places_of(current_class_path(class_path), self.folders)
        except SourceUnclear as error:
            raise ClassNotAllowed(class_path, roots, str(error)) from error
        for place in places:
            if not self._covers(place):
                raise ClassNotAllowed(class_path, roots, f"it is {place.class_path} in {place.file}")

    def covers(self, class_path: str) -> bool:
        """The same as an answer."""
        try:
            self.check(class_path)
        except ClassNotAllowed:
            return False
        return True

    def _covers(self, place: SourcePlace) -> bool:
        inside = (os.path.commonpath([folder, place.file]) == folder for folder in self._folders_on(place))
        return self._covers_name(place.class_path) or any(inside)

    def _folders_on(self, place: SourcePlace) -> list[str]:
        """The folders on the drive of that file: on Windows paths on different drives cannot be compared."""
        drive = os.path.splitdrive(place.file)[0]
        return [folder for folder in self.folders if os.path.splitdrive(folder)[0] == drive]

    def _covers_name(self, class_path: str) -> bool:
        return any(class_path == name or class_path.startswith(f"{name}.") for name in self.names)


NO_ROOTS = Roots()


def roots_of(texts: Iterable[str]) -> Roots:
    """The roots as an owner writes them: a text that holds a slash or begins with `.` or `~` is a folder. Raises
    `ConfigError`."""
    names: list[str] = []
    folders: list[str] = []
    for text in texts:
        if os.sep in text or "/" in text or text[:1] in (".", "~"):
            folders.append(_folder(text))
        elif text.isidentifier() or is_class_path(text):
            names.append(text)
        else:
            raise ConfigError(f"{text!r} is no root: expected a dotted name (lab.cameras) or a folder (/home/pi/lab).")
    return Roots(tuple(dict.fromkeys(names)), tuple(dict.fromkeys(folders)))


REGISTRY = "registry:"
"""Begins a line of the file that says what `--allow-registry` says."""


def read_roots(path: str) -> list[str]:
    """The roots in a file, one on each line; `#` begins a comment, and `registry:` the roots of the classes that may be
    marked from elsewhere. Raises `ConfigError`."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the list of what is allowed cannot be read: {error}.", file=path) from error
    roots = (line.partition("#")[0].strip() for line in lines)
    return [root for root in roots if root]


def _folder(text: str) -> str:
    path = os.path.realpath(os.path.expanduser(text))
    if not os.path.isdir(path):
        raise ConfigError(f"{text!r} is no root: there is no folder {path}.")
    if path == os.path.dirname(path):
        raise ConfigError(f"{text!r} is no root: it would allow every class of this machine.")
    return path
