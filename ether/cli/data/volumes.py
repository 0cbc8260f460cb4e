"""`ether ledger volumes`: of which volumes a ledger is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ether.cli.data.recorded import Ledger, ledger_folder, shown_time
from ether.cli.options import Json
from ether.cli.output import print_json, print_line, print_table
from ether.ledger.life.backup import backups_of
from ether.ledger.reader import LedgerReader, RecordFilter
from ether.ledger.volumes import FOLDER, closed_volumes, read_facts, size_of

_COLUMNS = {
    "volume": "VOLUME", "rows": "ROWS", "begun": "BEGUN", "closed": "CLOSED", "bytes": "BYTES", "deleted": "DELETED",
    "archived": "ARCHIVED",
}  # fmt: skip


def volumes(ledger: Ledger = None, json: Json = False) -> None:
    """Show the volumes of a ledger, oldest first: rows, time, size, what was deleted; and its backups."""
    folder = ledger_folder(ledger)
    rows, backups = _rows(folder), backups_of(folder)
    if json:
        print_json({"ledger": str(folder), "volumes": rows, "backups": backups})
        return
    print_line(str(folder))
    print_table([_shown(row) for row in rows], _COLUMNS, nothing="no volumes")
    for each in backups:
        print_line(f"backed up to {each['backup']} at {shown_time(float(each['at']))}, up to row {each['last']:,}")


def _rows(folder: Path) -> list[dict[str, Any]]:
    with LedgerReader.open(folder) as reader:
        current = reader.volumes[-1]
        beginning, last = current.beginning, current.count()
        begun = next((record.received for record in current.records(RecordFilter(()), limit=1)), None)
    rows = []
    for closed in closed_volumes(folder, beginning.volume):
        facts = read_facts(closed.folder)
        row: dict[str, Any] = {"volume": closed.number, "folder": str(closed.folder), "bytes": size_of(closed.folder)}
        if facts is not None:
            row |= {
                "first": facts.first, "last": facts.last, "begun": facts.received[0], "closed": facts.closed,
                "deleted": facts.last - facts.first + 1 - facts.rows, "archived": bool(facts.database),
            }  # fmt: skip
        rows.append(row)
    rows.append({
        "volume": beginning.volume, "folder": str(folder), "bytes": size_of(folder, without=FOLDER),
        "first": beginning.first, "last": last, "begun": begun, "closed": None, "deleted": 0, "archived": False,
    })  # fmt: skip
    return rows


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    if "first" not in row:
        return {"volume": row["volume"], "rows": "cannot be read: ether verify says more", "bytes": f"{row['bytes']:,}"}
    is_empty = row["last"] < row["first"]
    return {
        "volume": row["volume"], "rows": "none" if is_empty else f"{row['first']:,} to {row['last']:,}",
        "begun": "" if row["begun"] is None else shown_time(row["begun"]),
        "closed": "current" if row["closed"] is None else shown_time(row["closed"]),
        "bytes": f"{row['bytes']:,}", "deleted": f"{row['deleted']:,}" if row["deleted"] else "",
        "archived": "yes" if row["archived"] else "",
    }  # fmt: skip
