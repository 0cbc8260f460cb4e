"""Where ledgers are, so that a ledger is found by the name of its session.

`$XDG_DATA_HOME/ether/<session>`, else `~/.local/share/ether/<session>`; on Windows below `%LOCALAPPDATA%`. A session
that records elsewhere leaves a pointer, `.elsewhere/<session>` in the same folder: JSON with `session` and `folder`.

Promises: writer and readers ask the same functions, and a look-up makes no folder. A pointer to a folder that is gone
(a disk that is not plugged in) leads to an error that names the folder. The trap: a session's name may hold characters
that file systems refuse. So folders have escaped names, which `session_of()` undoes.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from ether.config.names import check_name
from ether.errors import ConfigError, NoLedger, SeveralLedgers

LEDGER_FILE = "ledger.db"
"""A folder with this file in it is a ledger."""
_ARCHIVED_FILE = "ledger.db.gz"
"""… or an archived volume of one."""

SESSION_VARIABLE = "ETHER_SESSION"
_POINTERS = ".elsewhere"
_ESCAPED = '%\\:*?"<>|'
_NAME_MAX_BYTES = 200
_POINTER_MAX_BYTES = 65_536


class LedgerPlace(NamedTuple):
    """A session and the folder of its ledger. `written`: unix seconds of the last write."""

    session: str
    folder: Path
    written: float


def data_folder(environment: Mapping[str, str]) -> Path:
    """The folder of this user's ledgers, which is not made. Raises `ConfigError` where the user has no home."""
    local = environment.get("LOCALAPPDATA") if sys.platform == "win32" else None
    given = environment.get("XDG_DATA_HOME") or local
    if given and os.path.isabs(given):
        return Path(given, "ether")
    home = environment.get("HOME")
    try:
        return Path(home if home and os.path.isabs(home) else Path.home(), ".local", "share", "ether")
    except RuntimeError as error:
        raise ConfigError(f"there is no folder for recordings: {error} Set XDG_DATA_HOME to one.") from error


def default_folder(session: str, environment: Mapping[str, str]) -> Path:
    """The folder of a session whose configuration names none."""
    return data_folder(environment) / folder_name(session)


def folder_name(session: str) -> str:
    """The session's name, escaped so that every file system takes it; a name above 200 bytes is cut, and has a hash
    instead of its end. Raises `InvalidName`."""
    check_name("session", session)
    ends = {0, len(session) - 1}  # a dot there hides a folder, or is lost on Windows
    name = "".join(
        f"%{ord(char):02x}" if char in _ESCAPED or (char == "." and at in ends) else char
        for at, char in enumerate(session)
    )
    if len(name.encode()) <= _NAME_MAX_BYTES:
        return name
    digest = blake2b(session.encode(), digest_size=8).hexdigest()
    return f"{name.encode()[: _NAME_MAX_BYTES - 20].decode('utf-8', 'ignore')}-{digest}"


def session_of(name: str) -> str:
    """The session whose folder has this name; only its beginning where the name was cut."""
    return unquote(name)


def leave_pointer(session: str, folder: str | os.PathLike[str], environment: Mapping[str, str]) -> None:
    """Write the pointer to a session's ledger that is not in the default folder. Raises `OSError`."""
    pointer = _pointer(session, environment)
    pointer.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = pointer.with_name(f"{pointer.name}.{os.urandom(4).hex()}.new")
    try:
        temporary.write_text(json.dumps({"session": session, "folder": str(Path(folder).absolute())}), "utf-8")
        temporary.replace(pointer)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def list_ledgers(environment: Mapping[str, str]) -> list[LedgerPlace]:
    """Every ledger of this user that is found by name, the last one written to first."""
    found = {place.folder: place for place in _all_places(environment)}
    return sorted(found.values(), key=lambda place: place.written, reverse=True)


def find_ledger(session: str | os.PathLike[str] | None, environment: Mapping[str, str]) -> Path:
    """The folder of a ledger. `session` is a session's name, or the folder itself (a path, or text that is one). None
    means the session that `ETHER_SESSION` names, else the ledger that was last written to.

    Raises `NoLedger`, which lists the sessions that have a ledger, and `SeveralLedgers`.
    """
    wanted = session if session is not None else environment.get(SESSION_VARIABLE) or None
    if wanted is None:
        ledgers = list_ledgers(environment)
        if not ledgers:
            raise NoLedger(None, data_folder(environment))
        return ledgers[0].folder
    if not isinstance(wanted, str) or _looks_like_a_path(wanted):
        return _checked(Path(wanted), environment)
    return _named(wanted, environment)


def _named(session: str, environment: Mapping[str, str]) -> Path:
    places = [default_folder(session, environment), *_pointed(session, environment)]
    found = list(dict.fromkeys(folder for folder in places if is_ledger(folder)))
    if len(found) > 1:
        raise SeveralLedgers(session, found)
    if found:
        return found[0]
    # Where there is a pointer, the error names the folder that it leads to, and not the default one.
    raise NoLedger(session, places[-1], [place.session for place in list_ledgers(environment)])


def is_ledger(folder: Path) -> bool:
    """Whether there is a ledger in this folder."""
    return (folder / LEDGER_FILE).is_file() or (folder / _ARCHIVED_FILE).is_file()


def _looks_like_a_path(text: str) -> bool:
    return "/" in text or os.sep in text or is_ledger(Path(text))


def _checked(folder: Path, environment: Mapping[str, str]) -> Path:
    if not is_ledger(folder):
        raise NoLedger(str(folder), folder, [place.session for place in list_ledgers(environment)])
    return folder.absolute()


def _pointer(session: str, environment: Mapping[str, str]) -> Path:
    return data_folder(environment) / _POINTERS / folder_name(session)


def _pointed(session: str, environment: Mapping[str, str]) -> list[Path]:
    folder = _read_pointer(_pointer(session, environment))
    return [] if folder is None else [folder]


def _read_pointer(pointer: Path) -> Path | None:
    """The folder that the pointer names; None where the file is missing or is no pointer."""
    try:
        with pointer.open(encoding="utf-8") as file:
            pointer_value = json.loads(file.read(_POINTER_MAX_BYTES))
        return Path(pointer_value["folder"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _all_places(environment: Mapping[str, str]) -> Iterator[LedgerPlace]:
    home = data_folder(environment)
    for entry in _entries(home):
        if entry.name != _POINTERS and is_ledger(entry):
            yield LedgerPlace(session_of(entry.name), entry, _written(entry))
    for entry in _entries(home / _POINTERS):
        folder = _read_pointer(entry)
        if not entry.name.endswith(".new") and folder is not None and is_ledger(folder):
            yield LedgerPlace(session_of(entry.name), folder, _written(folder))


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _written(folder: Path) -> float:
    """Unix seconds of the last write. SQLite writes to its log first, so the newest of the ledger's files counts."""
    times = [0.0]
    for name in (LEDGER_FILE, f"{LEDGER_FILE}-wal", "head"):
        try:
            times.append((folder / name).stat().st_mtime)
        except FileNotFoundError:
            continue
    return max(times)
