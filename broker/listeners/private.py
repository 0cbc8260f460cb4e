"""The private folder: where secrets and sockets of one broker lie, and how they disappear.

Promise: what is written here can be read by its owner only, from the first byte; `remove` takes the folder away with
everything in it and never fails because something of it is gone already.
The trap: `shutil.rmtree` would do, but importing it brings three compression libraries into the supervisor.
"""

import os


def create() -> str:
    """A new folder of mode 0700 in the system's place for temporary files; the caller removes it."""
    parent = next(place for place in _temporary_places() if os.path.isdir(place))
    path = os.path.join(parent, f"ether-broker-{os.urandom(8).hex()}")
    os.mkdir(path, 0o700)
    return path


def _temporary_places() -> list[str]:
    named = [os.environ[key] for key in ("TMPDIR", "TEMP", "TMP") if os.environ.get(key)]
    return [*named, "/tmp", os.getcwd()]


def write(folder: str, name: str, text: str) -> str:
    """Write a file that only its owner can read, and give its path back."""
    path = os.path.join(folder, name)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def remove(folder: str) -> None:
    """Remove the folder and what is in it; links are removed, not followed."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            remove(entry.path)
        else:
            remove_file(entry.path)
    try:
        os.rmdir(folder)
    except OSError:
        return


def remove_file(path: str) -> None:
    """Remove one file or socket, if it is there."""
    try:
        os.unlink(path)
    except OSError:
        return
