"""A disk that loses power: what a program really wrote and synced, and what of it may be left at any moment.

A program runs under strace. Its writes, syncs, truncations, renames … are replayed on a model of a disk that promises
only what POSIX does: bytes are safe after a sync of their file, names after a sync of their folder. At a crash every
write that was not synced is dropped, kept, or torn by sectors; of the changes of names in a folder that was not synced,
the first few are kept.

The trap: what is written through a memory map is not seen. Such files (SQLite's `-shm`) are left out: `SCRATCH`.
Nor is it seen that `read` moves the place where the same descriptor writes next.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from patience import patience

SECTOR_BYTES = 512
SCRATCH = "-shm"
_END = -1
"""Where a file that was opened to append to is written."""
_CALLS = (
    "pwrite64,write,lseek,fsync,fdatasync,ftruncate,rename,renameat,renameat2,unlink,unlinkat,openat,mkdir,mkdirat,"
    "rmdir,close,sync_file_range,fallocate,copy_file_range,sendfile,writev,pwritev,pwritev2,link,linkat,truncate"
)
_LINE = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+)", re.DOTALL)
_UNFINISHED = re.compile(r"^(\d+) +(.*) <unfinished \.\.\.>$", re.DOTALL)
_RESUMED = re.compile(r"^(\d+) +<\.\.\. \w+ resumed>(.*)$", re.DOTALL)
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_OPEN = re.compile(r"^(\d+|AT_FDCWD)<((?:\\x[0-9a-f]{2})*)>")


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


@dataclass(frozen=True)
class Call:
    """A system call that succeeded; `path` of the file that it was made on, `data` of a write, `said` on stdout."""

    name: str
    path: str
    other: str = ""
    offset: int = 0
    data: bytes = b""
    creates: bool = False
    truncates: bool = False


def require_strace() -> None:
    """Skip the test where programs cannot be traced."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    done = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"strace cannot trace here: {done.stderr.decode().strip()}")


def recorded(command: list[str], trace: Path, *, fault: str = "", timeout_s: float = 120) -> list[Call]:
    """Run the command and those that it starts; what they did to files, and what they wrote to standard output.

    `fault` is what strace's `-e inject=` takes: system calls that fail on the way."""
    traced = [
        "strace",
        "-f",
        "-y",
        "-xx",
        "-s",
        "100000000",
        "-e",
        "signal=none",
        "-e",
        f"trace={_CALLS}",
        "-o",
        str(trace),
    ]
    traced += ["-e", f"inject={fault}"] if fault else []
    done = subprocess.run([*traced, *command], capture_output=True, check=False, timeout=patience(timeout_s))
    assert done.returncode in (0, -9, 137), done.stderr.decode()
    return list(_calls(trace))


def _calls(trace: Path) -> Iterator[Call]:
    unfinished: dict[str, str] = {}
    positions: dict[tuple[str, str], int] = {}
    for line in trace.read_text().splitlines():
        if begun := _UNFINISHED.match(line):
            unfinished[begun[1]] = begun[2]
            continue
        if resumed := _RESUMED.match(line):
            line = f"{resumed[1]} {unfinished.pop(resumed[1])}{resumed[2]}"
        read = _LINE.match(line)
        if read and read[4].startswith("-"):
            if read[2] in ("fsync", "fdatasync"):
                yield Call("sync_failed", _bytes(_OPEN.match(read[3])[2]).decode())  # type: ignore[index]
        elif read:
            call = _call(read[1], read[2], read[3], int(read[4]), positions)
            if call:
                yield call


def _call(pid: str, name: str, arguments: str, returned: int, positions: dict[tuple[str, str], int]) -> Call | None:
    texts = [_bytes(text) for text in _TEXT.findall(arguments)]
    opened = _OPEN.match(arguments)
    path = _bytes(opened[2]).decode(errors="replace") if opened else ""
    key = (pid, opened[1] if opened else "")
    match name:
        case "pwrite64":
            return Call("write", path, offset=int(arguments.rsplit(", ", 1)[1]), data=texts[0][:returned])
        case "write":
            if key[1] == "1":
                return Call("said", path, data=texts[0])
            at = positions.get(key, 0)
            positions[key] = at if at == _END else at + returned
            return Call("write", path, offset=at, data=texts[0][:returned])
        case "lseek":
            positions[key] = _END if positions.get(key) == _END else returned
        case "openat":
            positions[pid, str(returned)] = _END if "O_APPEND" in arguments else 0
            return Call(
                "open", _joined(path, texts[0]), creates="O_CREAT" in arguments, truncates="O_TRUNC" in arguments
            )
        case "ftruncate":
            return Call("truncate", path, offset=int(arguments.rsplit(", ", 1)[1]))
        case "fsync" | "fdatasync":
            return Call("sync", path)
        case "rename" | "renameat" | "renameat2":
            return Call("rename", texts[0].decode(), other=texts[1].decode())
        case "link" | "linkat":
            return Call("link", texts[0].decode(), other=texts[1].decode())
        case "unlink" | "unlinkat" | "rmdir":
            return Call("unlink", _joined(path, texts[0]))
        case "mkdir" | "mkdirat":
            return Call("mkdir", _joined(path, texts[0]))
        case "sendfile" | "close" | "sync_file_range":
            return None
        case _:
            return Call("unknown", path or texts[0].decode(), other=name)
    return None


def _joined(folder: str, name: bytes) -> str:
    return str(Path(folder, name.decode(errors="replace"))) if folder else name.decode(errors="replace")


Pending = tuple[int, bytes] | int
"""An unsynced change of a file: bytes at an offset, or a new length."""


@dataclass
class _File:
    safe: bytearray = field(default_factory=bytearray)
    pending: list[Pending] = field(default_factory=list)
    size: int = 0
    """As the program sees it."""

    def change(self, change: Pending) -> None:
        if not isinstance(change, int):
            at, data = change
            change = (self.size, data) if at == _END else change
            self.size = max(self.size, change[0] + len(data))
        else:
            self.size = change
        self.pending.append(change)


@dataclass
class _Folder:
    safe: dict[str, _File | _Folder] = field(default_factory=dict)
    now: dict[str, _File | _Folder] = field(default_factory=dict)
    pending: list[dict[str, _File | _Folder | None]] = field(default_factory=list)

    def change(self, **names: _File | _Folder | None) -> None:
        """Names that come and go, all at once."""
        self.pending.append(names)
        _apply(self.now, names)

    def sync(self) -> None:
        self.safe = dict(self.now)
        self.pending.clear()


def _apply(entries: dict[str, _File | _Folder], names: dict[str, _File | _Folder | None]) -> None:
    for name, node in names.items():
        if node is None:
            entries.pop(name, None)
        else:
            entries[name] = node


@dataclass
class Crash:
    """What is left after the power went at call number `point`."""

    point: int
    said: list[str]
    """The lines that the program had written to its standard output."""
    survivors: list[tuple[str, int, bytes]]
    """Writes that nobody had synced and that are wholly there all the same: path below the root, offset, data."""


class Disk:
    """The model. `root` is a folder that was there, empty, before the program ran."""

    def __init__(self, root: Path) -> None:
        self._prefix = f"{root}/"
        self._root = _Folder()
        self._said = b""

    def crashes(self, calls: list[Call], points: int, seed: int, into: Path) -> Iterator[tuple[Crash, Path]]:
        """That many crashes at random calls, each with a folder that holds what is left; it is removed afterwards."""
        calls = [call for call in calls if call.name == "said" or self._is_here(call.path)]
        chance = random.Random(seed)
        chosen = sorted(chance.randrange(len(calls) + 1) for _ in range(points))
        done = 0
        for number, point in enumerate(chosen):
            for call in calls[done:point]:
                self.do(call)
            done = point
            folder = into / f"crash{number}"
            crash = Crash(point, self._said.decode().splitlines(), [])
            self._put(self._root, folder, crash, random.Random(f"{seed} {number}"), "")
            yield crash, folder
            shutil.rmtree(folder)

    def _is_here(self, path: str) -> bool:
        return f"{path}/".startswith(self._prefix) and not path.endswith(SCRATCH)

    def do(self, call: Call) -> None:
        """What the call changes."""
        if call.name == "said":
            self._said += call.data
        else:
            assert call.name != "unknown", f"{call.other} is not modelled"
            getattr(self, f"_{call.name}")(call)

    def _place(self, path: str) -> tuple[_Folder, str]:
        *folders, name = path.removeprefix(self._prefix).split("/")
        at = self._root
        for folder in folders:
            inner = at.now[folder]
            assert isinstance(inner, _Folder)
            at = inner
        return at, name

    def _file(self, path: str) -> _File | None:
        folder, name = self._place(path)
        node = folder.now.get(name)
        return node if isinstance(node, _File) else None

    def _open(self, call: Call) -> None:
        if f"{call.path}/" == self._prefix:
            return
        folder, name = self._place(call.path)
        if call.creates and name not in folder.now:
            folder.change(**{name: _File()})
        file = self._file(call.path)
        if call.truncates and file:
            file.change(0)

    def _write(self, call: Call) -> None:
        if file := self._file(call.path):  # not one that has no name any more
            file.change((call.offset, call.data))

    def _truncate(self, call: Call) -> None:
        if file := self._file(call.path):
            file.change(call.offset)

    def _sync(self, call: Call) -> None:
        if f"{call.path}/" == self._prefix:
            self._root.sync()
            return
        folder, name = self._place(call.path)
        node = folder.now.get(name)
        if isinstance(node, _Folder):
            node.sync()
        elif node:
            for change in node.pending:
                _change(node.safe, change)
            node.pending.clear()

    def _sync_failed(self, call: Call) -> None:
        """The system says so once, forgets what was not written, and calls the next sync a success. What it shows of
        the file until then is only in its memory."""
        folder, name = self._place(call.path)
        node = folder.now.get(name)
        if isinstance(node, _File):
            node.pending.clear()

    def _rename(self, call: Call) -> None:
        old_folder, old = self._place(call.path)
        new_folder, new = self._place(call.other)
        node = old_folder.now[old]
        if old_folder is new_folder:
            old_folder.change(**{new: node, old: None})
        else:
            new_folder.change(**{new: node})
            old_folder.change(**{old: None})

    def _link(self, call: Call) -> None:
        """The file has two names from now on; what was written to it counts under both."""
        old_folder, old = self._place(call.path)
        new_folder, new = self._place(call.other)
        new_folder.change(**{new: old_folder.now[old]})

    def _unlink(self, call: Call) -> None:
        folder, name = self._place(call.path)
        folder.change(**{name: None})

    def _mkdir(self, call: Call) -> None:
        folder, name = self._place(call.path)
        folder.change(**{name: _Folder()})

    def _put(self, folder: _Folder, path: Path, crash: Crash, chance: random.Random, below: str) -> None:
        path.mkdir()
        left = dict(folder.safe)
        for names in folder.pending[: chance.randint(0, len(folder.pending))]:
            _apply(left, names)
        for name, node in left.items():
            if isinstance(node, _Folder):
                self._put(node, path / name, crash, chance, f"{below}{name}/")
            else:
                (path / name).write_bytes(_left_of(node, crash, chance, below + name))


def _left_of(file: _File, crash: Crash, chance: random.Random, path: str) -> bytes:
    """The file's safe bytes, with some of what was not synced."""
    left = bytearray(file.safe)
    kept, torn = chance.choice([(0.0, 0.0), (1.0, 0.0), (0.5, 0.0), (0.3, 0.6), (0.9, 0.1)])
    for change in file.pending:
        fate = chance.random()
        if fate < kept:
            _change(left, change)
            if not isinstance(change, int):
                crash.survivors.append((path, *change))
        elif fate < kept + torn and not isinstance(change, int):
            for piece in _sectors(change):
                if chance.random() < 0.5:
                    _change(left, piece)
    return bytes(left)


def _sectors(change: tuple[int, bytes]) -> Iterator[tuple[int, bytes]]:
    offset, data = change
    at = 0
    while at < len(data):
        size = SECTOR_BYTES - (offset + at) % SECTOR_BYTES
        yield offset + at, data[at : at + size]
        at += size


def _change(content: bytearray, change: Pending) -> None:
    if isinstance(change, int):
        del content[change:]
        content.extend(bytes(change - len(content)))
        return
    offset, data = change
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data
