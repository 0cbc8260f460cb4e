"""The private folder, which holds the secrets and sockets of one broker, and its removal.

Promise: only the owner can read the files, from their first byte on; `remove` removes the folder with all its
contents, and does not fail where some of them are gone already.
The trap: `shutil.rmtree` would do, but its import loads three compression libraries into the supervisor.
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
    """Write a file that only its owner can read; returns its path."""
    path = os.path.join(folder, name)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def remove(folder: str) -> None:
    """Remove the folder and its contents; links are removed, not followed."""
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
