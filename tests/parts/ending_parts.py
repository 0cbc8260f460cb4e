"""Classes whose code leaves something behind: processes of every kind, threads, `atexit` functions, loops; instances
import them by name."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from ether import ether, ether_cleanup, ether_get, ether_save_all, ether_sub

DAEMON = "import os, sys\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\nexec(sys.argv[1])"
"""A classical daemon: two forks and a session of its own."""
STAYS = "import os, time\nopen({file!r}, 'w').write(str(os.getpid()))\ntime.sleep(300)"
DEAF = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + STAYS


class Starter:
    """Starts processes. Each notes its number in a file of the folder."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.kept: list[object] = []

    @ether_get
    def start(self, kinds: list[str]) -> int:
        for kind in kinds:
            getattr(self, f"_{kind}")(os.fspath(self.folder / f"{kind}-{os.getpid()}"))
        return os.getpid()

    def _popen(self, file: str) -> None:
        self.kept.append(subprocess.Popen([sys.executable, "-c", STAYS.format(file=file)]))

    def _deaf(self, file: str) -> None:
        self.kept.append(subprocess.Popen([sys.executable, "-c", DEAF.format(file=file)]))

    def _setsid(self, file: str) -> None:
        command = [sys.executable, "-c", STAYS.format(file=file)]
        self.kept.append(subprocess.Popen(command, start_new_session=True))

    def _bare(self, file: str) -> None:
        """Nothing in its environment, and a session of its own."""
        command = [sys.executable, "-c", STAYS.format(file=file)]
        self.kept.append(subprocess.Popen(command, start_new_session=True, env={}))

    def _daemon(self, file: str) -> None:
        subprocess.run([sys.executable, "-c", DAEMON, STAYS.format(file=file)], check=True)

    def _fork(self, file: str) -> None:
        if os.fork() == 0:
            exec(STAYS.format(file=file))

    def _pool(self, file: str) -> None:
        pool = multiprocessing.get_context("fork").Pool(2)
        Path(file).write_text(str(pool.apply(os.getpid)))
        self.kept.append(pool)

    def _spawn(self, file: str) -> None:
        process = multiprocessing.get_context("spawn").Process(target=_stays, args=(file,))
        process.start()
        self.kept.append(process)

    def _thread(self, file: str) -> None:
        threading.Thread(target=time.sleep, args=(300,), daemon=False).start()

    def _atexit(self, file: str) -> None:
        atexit.register(time.sleep, 300)

    def _loop(self, file: str) -> None:
        ether.pub(None, topic="endless")

    @ether_sub(topic="endless")
    def loop(self) -> None:
        ether.pub(os.getpid(), topic="looping")
        while True:
            time.sleep(0.01)


def _stays(file: str) -> None:
    Path(file).write_text(str(os.getpid()))
    time.sleep(300)


class Saver:
    """Takes its time to save, and to clean up, and notes that it has done both to the end."""

    def __init__(self, folder: str, seconds: float) -> None:
        self.folder, self.seconds = Path(folder), seconds

    @ether_sub(topic="endless")
    def loop(self) -> None:
        ether.pub(os.getpid(), topic="looping")
        while True:
            time.sleep(0.01)

    @ether_save_all
    def save(self) -> None:
        time.sleep(self.seconds)
        (self.folder / "saved").touch()

    @ether_cleanup
    def clean(self) -> None:
        time.sleep(self.seconds)
        (self.folder / "clean").touch()
