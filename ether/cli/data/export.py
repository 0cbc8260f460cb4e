"""`ether export`: recorded values as one file that other programs read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ether.cli.data.recorded import RecordQuery
from ether.cli.exits import CommandMistake, Exit
from ether.cli.options import Json
from ether.cli.output import print_json, print_line
from ether.reading.export import exports
from ether.reading.export.tables import Exported

Target = Annotated[Path, typer.Option("--to", "-o", metavar="FILE", help="Where to: .parquet, .csv, .h5.")]
Format = Annotated[
    str | None, typer.Option("--format", "-f", metavar="FORMAT", help="parquet, csv, hdf5; else by the name's ending.")
]


def export(
    to: Target,
    query: RecordQuery,
    form: Format = None,
    json: Json = False,
) -> int:
    """Write records to one file, with where they come from in it (CSV: in a .json file beside it)."""
    if form is not None and form not in exports.EXPORTS:
        raise CommandMistake(f"found --format {form}; there are {', '.join(exports.EXPORTS)}")
    form = form or exports.form_of(to)
    done = exports.export(query.records(), to, form)
    if json:
        print_json(_facts(done))
    else:
        beside = "".join(f" and {path}" for path in done.beside)
        columns = f" with {len(done.columns)} columns" if done.columns else ""  # PROV-JSON and crates have none
        print_line(f"{done.records:,} records{columns} are in {done.path}{beside}")
    return Exit.OK


def _facts(done: Exported) -> dict[str, object]:
    return {
        "path": str(done.path),
        "form": done.form,
        "records": done.records,
        "columns": list(done.columns),
        "beside": [str(path) for path in done.beside],
    }
