"""`ether up`: as `ether run`; with `-d` a session without a terminal.

With `-d` it starts `ether run --json` as a process of its own, in an operating-system session of its own, with standard
error in a file. The first line of JSON on that process's standard output says that the session is ready, or why not;
after that line nobody reads its standard output.
"""

from __future__ import annotations

import json as json_text
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from ether.cli.config_file import ConfigFile, chosen_file
from ether.cli.exits import CommandMistake, Exit
from ether.cli.lab.foreground import refuse_running, running_record
from ether.cli.lab.run import Join, Record, Sim, Start, recorded, run
from ether.cli.options import Json, Timeout, Where
from ether.cli.output import print_json, print_line, remark
from ether.config import load_config
from ether.logs.session_file import log_path
from ether.session.name_claim import new_session_name

_GRACE_S = 20.0
"""Added to the time-out of the start: the interpreter has to start, and a failed start has to be cleaned up."""

_TAIL_BYTES = 4000


def up(
    file: ConfigFile = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when it is ready, and let it run.")] = False,
    *,
    where: Where,
    start: Start = False,
    sim: Sim = False,
    join: Join = False,
    record: Record = False,
    timeout: Timeout = 30.0,
    json: Json = False,
) -> int:
    """Start a configuration; with -d without this terminal: it goes on running until `ether down`."""
    if not detach:
        return run(file, where=where, start=start, sim=sim, join=join, record=record, timeout=timeout, json=json)
    path = chosen_file(file, Path.cwd())
    config = recorded(load_config(path), record)
    refuse_running(config, where, sim=sim)
    name = where.session or config.session or new_session_name()
    command = [sys.executable, "-m", "ether.cli.main", "run", path, "--session", name, "--timeout", str(timeout)]
    command += ["--json", *(["--broker", where.broker] if where.broker else []), *(["--start"] if start else [])]
    command += [*(["--sim"] if sim else []), *(["--join"] if join else []), *(["--record"] if record else [])]
    output = _output_file(name, beside=running_record(config, where) is not None)
    event, code = _start(command, output, timeout + _GRACE_S)
    if event.get("event") != "ready":
        return _say_why_not(name, event, code, output, as_json=json)
    if json:
        print_json({**{key: event[key] for key in ("session", "pid", "instances")}, "output": output})
    else:
        print_line(
            f"session {name} runs (pid {event['pid']}); its output goes to {output}, ether down -s {name} ends it"
        )
    return Exit.OK


def _output_file(session: str, *, beside: bool) -> Path:
    """An empty file for the output; one of its own `beside` a program that runs in this session already."""
    path = log_path(session).with_suffix(f".{os.getpid()}.out" if beside else ".out")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_bytes(b"")
    except OSError as error:
        raise CommandMistake(f"cannot write {path}: {error.strerror or error}") from error
    return path


def _start(command: list[str], output: Path, timeout_s: float) -> tuple[dict[str, Any], int | None]:
    """Returns the first event of the process (empty where there was none) and its exit code (None while it runs)."""
    with open(output, "ab") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=file, **_without_a_terminal()
        )
    assert process.stdout is not None
    event = _event(_first_line(process.stdout, timeout_s))
    if event is None:
        process.terminate()
    if event is not None and event.get("event") == "ready":
        process.returncode = 0  # it outlives this command, which never waits for it: Popen must not warn of that
        code = None
    else:
        code = _end(process)
    process.stdout.close()  # only now: closing waits while the reading thread is in `readline`
    return event or {}, code


def _event(line: bytes | None) -> dict[str, Any] | None:
    """The event in a line of JSON: None where no line came in time, empty where the process ended without one."""
    if line is None:
        return None
    try:
        event = json_text.loads(line or b"{}")
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def _end(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _without_a_terminal() -> dict[str, Any]:
    if sys.platform == "win32":
        return {"creationflags": subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _first_line(stream: IO[bytes], timeout_s: float) -> bytes | None:
    """The first line of the stream, empty at its end; None where none came in time."""
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=lambda: lines.put(stream.readline()), name="ether-up", daemon=True).start()
    try:
        return lines.get(timeout=timeout_s)
    except queue.Empty:
        return None


def _say_why_not(name: str, event: dict[str, Any], code: int | None, output: Path, *, as_json: bool) -> int:
    why = event.get("error") or f"its process ended with code {code}"
    if as_json:
        print_json({"session": name, "error": why, "output": output})
    remark(f"ether: session {name} did not start: {why}")
    if not event:
        remark(_tail(output))
    remark(f"its whole output is in {output}")
    return code or Exit.FAILED


def _tail(path: Path) -> str:
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        return file.read().decode("utf-8", "replace").rstrip()
