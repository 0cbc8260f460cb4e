"""`ether`: which commands there are, how they are loaded, and with which code the program ends.

This is the one lazy import of the command line: only the module of the command on the command line is imported (for
shell completion, too); the other commands are known by name and one line of help. So command modules import what they
need at their top. Commands return their exit code, or None for success. A user's mistake is one sentence on standard
error and a code of `Exit`; any other exception is a defect of Ether's, and is shown with its traceback.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import typer
import typer.core

from ether.cli.exits import Exit, exit_code_of, sentence_of
from ether.cli.options import with_flat_options
from ether.cli.output import ReaderGone, remark
from ether.errors import EtherError
from ether.version import VERSION

PROGRAM = "ether"
COMPLETED = "_ETHER_COMPLETE"
"""The variable by which the shell says that it asks for completions."""


class CommandEntry(NamedTuple):
    """A command: its name, its function or group as `module:attribute`, and its line in the list."""

    name: str
    home: str
    help: str


ENTRIES = (
    CommandEntry("run", "ether.cli.lab.run:run", "Start a configuration here, and show what it prints, until Ctrl-C."),
    CommandEntry("up", "ether.cli.lab.detached:up", "The same; with -d without this terminal."),
    CommandEntry("down", "ether.cli.lab.down:down", "Shut a running session down, in order."),
    CommandEntry("ps", "ether.cli.lab.ps:ps", "Who is in the session, in which state."),
    CommandEntry("sessions", "ether.cli.lab.sessions:sessions", "Which sessions run here and in reach."),
    CommandEntry("start", "ether.cli.lab.start_stop:start", "Start one instance of a running session."),
    CommandEntry("stop", "ether.cli.lab.start_stop:stop", "Stop one instance, in order."),
    CommandEntry("restart", "ether.cli.lab.start_stop:restart", "Stop one instance and start it again."),
    CommandEntry("call", "ether.cli.lab.call:call", "Call a method of an instance."),
    CommandEntry("alarms", "ether.cli.lab.alarms:app", "Alarms and their states; ack, shelve, unshelve."),
    CommandEntry("topic", "ether.cli.lab.topic:app", "Topics: list, echo, hz, bw, pub."),
    CommandEntry("logs", "ether.cli.lab.logs:logs", "The log of every instance; change levels."),
    CommandEntry(
        "status", "ether.cli.data.status:status", "What is saved of what was to be saved, and what is missing."
    ),
    CommandEntry("rescue", "ether.cli.data.rescue:rescue", "Bring home what ended programs have left unsaved."),
    CommandEntry("verify", "ether.cli.data.verify:verify", "Whether a ledger is what was written."),
    CommandEntry(
        "ledger", "ether.cli.data.ledger:app", "Volumes, backups, archives and deletions of what was recorded."
    ),
    CommandEntry("data", "ether.cli.data.data:data", "What was recorded: records, topics, ledgers."),
    CommandEntry("find", "ether.cli.data.find:find", "Runs of all ledgers, by what was said of them: animal=7."),
    CommandEntry("runs", "ether.cli.runs.runs:runs", "Named runs: how they ended, how many trials are done."),
    CommandEntry("export", "ether.cli.data.export:export", "Write recorded values to a Parquet, CSV or HDF5 file."),
    CommandEntry("report", "ether.cli.data.report:report", "Write a run as one HTML file, for a lab book."),
    CommandEntry("play", "ether.cli.data.play:play", "Publish recorded messages again into a running session."),
    CommandEntry("top", "ether.cli.lab.top:top", "A live table: state, rates, queues, CPU, memory."),
    CommandEntry(
        "dashboard",
        "ether.cli.lab.dashboard:dashboard",
        "The session as a page in the browser, live; calls, runs, safe state.",
    ),
    CommandEntry("graph", "ether.cli.lab.graph:graph", "Who publishes to whom."),
    CommandEntry("why", "ether.cli.data.why:why", "Where a recorded value came from, back to the first message."),
    CommandEntry("diff", "ether.cli.data.diff:diff", "What differed between two recorded runs."),
    CommandEntry(
        "doctor", "ether.cli.machines.doctor:doctor", "Look for what is wrong with this machine and the session."
    ),
    CommandEntry(
        "instance", "ether.cli.lab.instance:instance", "Run one instance of a configuration, as a service does."
    ),
    CommandEntry("agent", "ether.cli.machines.agent:agent", "Run instances here for sessions elsewhere."),
    CommandEntry(
        "connect", "ether.cli.machines.connect:connect", "Lines for mosquitto_sub, MQTT Explorer, Node-RED and others."
    ),
    CommandEntry("rights", "ether.cli.machines.rights:rights", "What each device may publish, hear and call, and why."),
    CommandEntry(
        "service", "ether.cli.machines.service:app", "Services that run after a reboot: install, status, logs, remove."
    ),
    CommandEntry("pair", "ether.cli.security.pair:pair", "Let another machine into this machine's lab."),
    CommandEntry("join", "ether.cli.security.join:join", "Make this machine a member of a lab, by what pair shows."),
    CommandEntry("members", "ether.cli.security.members:members", "The machines of this lab, and until when."),
    CommandEntry("revoke", "ether.cli.security.revoke:revoke", "Put a machine out of the lab, at once."),
    CommandEntry("secret", "ether.cli.security.secret:app", "The values that !secret NAME stands for."),
    CommandEntry(
        "plan", "ether.cli.runs.plan:plan", "Check an experiment, its time and its disk, before anything moves."
    ),
    CommandEntry("validate", "ether.cli.make.validate:validate", "Check a configuration without starting anything."),
    CommandEntry("schema", "ether.cli.make.schema:schema", "The JSON Schema of a configuration, for editors."),
    CommandEntry("demo", "ether.cli.make.demo:demo", "Run a small lab that comes with Ether, to look at."),
    CommandEntry("new", "ether.cli.make.new:new", "Make a project that runs."),
)

GROUPS = {
    "Begin": ("demo", "new", "validate", "plan", "schema", "run", "up", "down"),
    "See and change what runs": (
        "ps", "top", "dashboard", "graph", "logs", "alarms", "topic", "call", "start", "stop", "restart",
    ),
    "What was recorded": (
        "status", "data", "runs", "find", "why", "diff", "export", "report", "play", "verify", "rescue", "ledger",
    ),
    "Machines and other programs": (
        "sessions", "doctor", "connect", "agent", "instance", "service", "pair", "join", "members", "revoke", "rights",
        "secret",
    ),
}  # fmt: skip
"""The commands as `ether --help` lists them: by what one wants."""


class GroupedCommands(typer.core.TyperGroup):
    """Lists its commands by groups."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each group; what is in none comes last."""
        names = self.list_commands(ctx)
        rest = tuple(name for name in names if not any(name in group for group in GROUPS.values()))
        limit = formatter.width - 6 - max(map(len, names))
        for title, group in (*GROUPS.items(), ("More", rest)):
            commands = [(name, self.get_command(ctx, name)) for name in group if name in names]
            rows = [(name, each.get_short_help_str(limit)) for name, each in commands if each is not None]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows, col_max=max(map(len, names)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if COMPLETED in os.environ:
        return _complete(words)
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
    except Exception:  # noqa: BLE001  the last catch: what arrives here is a defect of Ether's, and is shown whole
        remark(traceback.format_exc().rstrip())
        return _complain("this is a defect of Ether's, not yours; please report it with the lines above", Exit.DEFECT)


def _complete(words: list[str]) -> int:
    """Print what could stand in the shell's line. An error would be printed into that line, so nothing is."""
    try:
        return _perform(words)
    except (Exception, KeyboardInterrupt):  # noqa: BLE001  the last catch, as above
        return Exit.OK


def _perform(words: list[str]) -> int:
    app = _application(_command_name(words))
    command = typer.main.get_command(app)
    code = command.main(args=words or ["--help"], prog_name=PROGRAM, standalone_mode=False)
    return code if isinstance(code, int) else Exit.OK


def _command_name(words: Sequence[str]) -> str | None:
    """The first word that is no option. While the shell completes a line, that line is in the environment instead:
    in `COMP_WORDS` (bash) or `_TYPER_COMPLETE_ARGS` (other shells), with the program's name as its first word."""
    if COMPLETED in os.environ:
        line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""
        words = line.split()[1:]
    return next((word for word in words if not word.startswith("-")), None)


def _application(name: str | None) -> typer.Typer:
    """The application with every command, of which only the one called `name` is loaded."""
    app = typer.Typer(
        cls=GroupedCommands,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        help="Ordinary Python classes as a lab.",
    )
    app.callback()(_root)
    for entry in ENTRIES:
        if entry.name != name:
            app.command(entry.name, help=entry.help)(_not_loaded)
        elif isinstance(found := _load(entry.home), typer.Typer):
            for command in found.registered_commands:
                command.callback = command.callback and with_flat_options(command.callback)
            app.add_typer(found, name=entry.name, help=entry.help)
        else:
            app.command(entry.name)(with_flat_options(found))
    return app


def _load(home: str) -> Any:
    module, _, attribute = home.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _not_loaded() -> None:
    """Takes the place of a command that is only listed."""


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
    remark(f"{PROGRAM}: {sentence}")
    return code


if __name__ == "__main__":
    sys.exit(main())
