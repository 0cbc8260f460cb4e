"""`ether demo`: a small lab that comes with Ether, run in this terminal, so that who has just installed it sees one
without a file of their own.

It is the template `demo` of `ether new`, made in a folder that is removed at the end; with FOLDER it stays there.
"""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ether import Ether
from ether.api.page_process import PageProcess
from ether.cli.lab.foreground import Foreground, events_to_stdout, make_importable
from ether.cli.make.new import make_project
from ether.cli.make.templates import TEMPLATES
from ether.cli.options import Json, Timeout, Where
from ether.cli.output import remark
from ether.config import load_config

DEMO = "demo"

Folder = Annotated[
    str | None, typer.Argument(metavar="[FOLDER]", help="Make its files here, and keep them; else they are removed.")
]
Seconds = Annotated[
    float | None, typer.Option("--seconds", metavar="SECONDS", min=0.1, help="End by itself after so long.")
]
Page = Annotated[bool, typer.Option("--page", help="Open the session as a page in the browser, too.")]


def demo(
    folder: Folder = None,
    *,
    where: Where,
    seconds: Seconds = None,
    page: Page = False,
    timeout: Timeout = 30.0,
    json: Json = False,
) -> int:
    """Run an oven, its regulator and a display, each in a process of its own, until Ctrl-C."""
    with _made(folder) as made:
        path = str(made / "ether.yaml")
        config = load_config(path)
        session = where.session or os.environ.get("ETHER_SESSION") or str(config.session)
        make_importable(path)
        _introduce(folder)
        with events_to_stdout(json) as events, PageProcess() as shown:
            own = Ether()
            foreground = Foreground(own, config, events)
            if page:
                foreground.on_ready.append(lambda: shown.start(str(own.session_id)))
            code = foreground.run(where, timeout, start=False, lasts_s=seconds)
    remark(f"every message was recorded: ether data {session}, ether why --last temperature --steps 5 -s {session}")
    remark("a project of your own: ether new mylab")
    return code


@contextmanager
def _made(folder: str | None) -> Iterator[Path]:
    """The folder with the demo's files."""
    if folder is not None:
        make_project(Path(folder), TEMPLATES[DEMO])
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory(prefix="ether-demo-") as empty:
        inside = Path(empty, DEMO)  # the session is called after its folder
        make_project(inside, TEMPLATES[DEMO])
        yield inside


def _introduce(folder: str | None) -> None:
    remark("An oven, its regulator and a display, each in a process of its own. In another terminal:\n")
    for line in TEMPLATES[DEMO].tries.splitlines():
        remark(f"    {line}")
    if folder is None:
        remark("\nIts few lines of Python and YAML, to read and to change: ether demo FOLDER\n")
    else:
        remark(f"\nIts few lines of Python and YAML are in {shlex.quote(folder)}: change them, then ether run there.\n")
