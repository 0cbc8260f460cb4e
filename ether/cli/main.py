"""`ether`: which commands there are, how they are found, and with which code the program ends.

Only the module of the command that was asked for is imported; the others are known by name and one line of help.
Commands return their exit code, or None for success. A mistake of the user's is one sentence on standard error and
a code of `Exit`; anything else that is raised is a defect of Ether's, and shows its traceback.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import typer

from ether.cli.exits import Exit, exit_code_of, sentence_of
from ether.cli.output import ReaderGone
from ether.errors import EtherError
from ether.version import VERSION

PROGRAM = "ether"


class CommandEntry(NamedTuple):
    """A command: its name, where its function or group is, and its line in the list."""

    name: str
    home: str
    help: str


ENTRIES = (
    CommandEntry("run", "ether.cli.lab.run:run", "Start a configuration here, and show what it prints, until Ctrl-C."),
    CommandEntry("up", "ether.cli.lab.detached:up", "The same; with -d without this terminal."),
    CommandEntry("down", "ether.cli.lab.keep:down", "Shut a running session down, in order."),
    CommandEntry("ps", "ether.cli.lab.members:ps", "Who is in the session, in which state."),
    CommandEntry("sessions", "ether.cli.lab.members:sessions", "Which sessions run here and in reach."),
    CommandEntry("start", "ether.cli.lab.keep:start", "Start one instance of a running session."),
    CommandEntry("stop", "ether.cli.lab.keep:stop", "Stop one instance, in order."),
    CommandEntry("restart", "ether.cli.lab.keep:restart", "Stop one instance and start it again."),
    CommandEntry("call", "ether.cli.lab.call:call", "Call a method of an instance."),
    CommandEntry("topic", "ether.cli.lab.topic:app", "Topics: list, echo, hz, bw, pub."),
    CommandEntry("logs", "ether.cli.lab.logs:logs", "The log of every instance; change levels."),
    CommandEntry(
        "status", "ether.cli.data.status:status", "What is saved of what was to be saved, and what is missing."
    ),
    CommandEntry("verify", "ether.cli.data.verify:verify", "Whether a ledger is what was written."),
    CommandEntry("data", "ether.cli.data.data:data", "What was recorded: records, topics, ledgers."),
    CommandEntry("runs", "ether.cli.runs.runs:runs", "Named runs: how they ended, how many trials are done."),
    CommandEntry("export", "ether.cli.data.export:export", "Write recorded values to a Parquet, CSV or HDF5 file."),
    CommandEntry("play", "ether.cli.data.play:play", "Publish recorded messages again into a running session."),
    CommandEntry("top", "ether.cli.lab.top:top", "A live table: state, rates, queues, CPU, memory."),
    CommandEntry("graph", "ether.cli.lab.members:graph", "Who publishes to whom."),
    CommandEntry("why", "ether.cli.data.why:why", "Where a recorded value came from, back to the first message."),
    CommandEntry("diff", "ether.cli.data.differences:diff", "What differed between two recorded runs."),
    CommandEntry(
        "doctor", "ether.cli.machines.doctor:doctor", "Look for what is wrong with this machine and the session."
    ),
    CommandEntry(
        "instance", "ether.cli.lab.instance:instance", "Run one instance of a configuration, as a service does."
    ),
    CommandEntry("agent", "ether.cli.machines.agent:agent", "Run instances here for sessions elsewhere."),
    CommandEntry(
        "service", "ether.cli.machines.service:app", "Services that run after a reboot: install, status, logs, remove."
    ),
    CommandEntry(
        "plan", "ether.cli.runs.plan:plan", "Check an experiment, its time and its disk, before anything moves."
    ),
    CommandEntry("validate", "ether.cli.make.files:validate", "Check a configuration without starting anything."),
    CommandEntry("schema", "ether.cli.make.files:schema", "The JSON Schema of a configuration, for editors."),
    CommandEntry("new", "ether.cli.make.scaffold:new", "Make a project that runs."),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _perform(words)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except ReaderGone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except typer.TyperException as error:
        return _complain(_usage_sentence(words, error), Exit.USAGE)
    except EtherError as error:
        return _complain(sentence_of(error), exit_code_of(error))
    except Exception:  # noqa: BLE001  the last seam: whatever comes here is a defect of Ether's, and is shown whole
        import traceback

        traceback.print_exc()
        return _complain("this is a defect of Ether's, not yours; please report it with the lines above", Exit.DEFECT)


def _perform(words: list[str]) -> int:
    everything = "_ETHER_COMPLETE" in os.environ  # the shell asks what could stand here
    wanted = next((word for word in words if not word.startswith("-")), None)
    app = _application(lambda entry: everything or entry.name == wanted)
    command = typer.main.get_command(app)
    code = command.main(args=words or ["--help"], prog_name=PROGRAM, standalone_mode=False)
    return code if isinstance(code, int) else Exit.OK


def _application(wanted: Callable[[CommandEntry], bool]) -> typer.Typer:
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, help="Ordinary Python classes as a lab.")
    app.callback()(_root)
    for entry in ENTRIES:
        found = _load(entry.home) if wanted(entry) else _not_loaded
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=entry.name, help=entry.help)
        else:
            app.command(entry.name, help=None if wanted(entry) else entry.help)(found)
    return app


def _load(home: str) -> Any:
    module, _, attribute = home.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _not_loaded() -> None:
    """Stands in the list for a command that was not asked for."""


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"ether {VERSION}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Ordinary Python classes as parts of a running lab. `ether COMMAND --help` says more about each."""


def _usage_sentence(words: list[str], error: typer.TyperException) -> str:
    command = next((word for word in words if word in {entry.name for entry in ENTRIES}), "")
    said = " ".join(error.format_message().split()).rstrip(".")
    return f"{said}; {PROGRAM} {command} --help says what can stand here".replace("  ", " ")


def _complain(sentence: str, code: int) -> int:
    print(f"{PROGRAM}: {sentence}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
