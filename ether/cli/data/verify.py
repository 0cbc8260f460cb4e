"""`ether verify`: whether a ledger still holds what its writer wrote, and where it differs."""

from __future__ import annotations

from dataclasses import asdict

from ether.cli.data.recorded import Ledger, ledger_folder
from ether.cli.exits import Exit
from ether.cli.options import Json
from ether.cli.output import print_json, print_line
from ether.ledger.verify import verify as verify_ledger


def verify(ledger: Ledger = None, json: Json = False) -> int:
    """Check every byte of a ledger against what its writer noted; code 1 where something was changed or is gone."""
    report = verify_ledger(ledger_folder(ledger))
    if json:
        findings = [asdict(finding) for finding in report.findings]
        facts: dict[str, object] = {"ledger": str(report.folder), "records": report.records, "sealed": report.sealed}
        facts |= {"entries": report.entries, "signed": report.signed, "signers": list(report.signers)}
        print_json({**facts, "ok": report.ok, "findings": findings})
    else:
        print_line(str(report))
    return Exit.OK if report.ok else Exit.FAILED
