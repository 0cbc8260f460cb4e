"""`ether doctor --broker URL`: what a broker carries of what Ether needs, found by trying, as text and as JSON."""

from __future__ import annotations

import os
import sys
from typing import Any

from ether.cli.exits import Exit
from ether.cli.options import Where
from ether.cli.output import print_line, print_table, remark
from ether.config.broker_url import complete_url, url_with
from ether.errors import ConfigError
from ether.security.lab_key import load_key
from ether.session.broker_probe import BrokerFindings, CapabilityVerdict, Finding, judge, probe_broker
from ether.session.discovery.search import may_be_plain
from ether.transport.endpoint import Endpoint
from ether.wire.topics import check_session_name

_COLUMNS = {"status": "", "name": "WHAT", "found": "FOUND"}


def broker_findings(where: Where) -> BrokerFindings:
    """Try the broker that was named. Where it wants a user and the URL names none, it may be that of a session on the
    network: then with the lab key, as `ether.tap()` does."""
    url = complete_url(str(where.broker))
    session = None if where.session is None else check_session_name(where.session)
    endpoint = Endpoint.from_url(url)
    if sys.stderr.isatty():
        remark(f"trying {endpoint.address}; this takes up to 10 s")
    facts = probe_broker(endpoint, session)
    wants_user = facts.entries and all(entry.refusal and entry.credentials for entry in facts.entries)
    if wants_user and endpoint.username is None and (with_key := _with_lab_key(url)) is not None:
        facts = probe_broker(with_key, session)
    return judge(facts)


def _with_lab_key(url: str) -> Endpoint | None:
    if not may_be_plain(os.environ):
        return None
    try:
        key = load_key(os.environ)
    except ConfigError:
        return None
    if key is None:
        return None
    credentials = key.credentials()
    return Endpoint.from_url(url_with(url, credentials.username, credentials.password))


def exit_code(found: BrokerFindings) -> Exit:
    """How the command ends."""
    if not found.entered:
        return Exit.BROKER
    return Exit.OK if found.carries_a_session else Exit.FAILED


def findings_to_value(found: BrokerFindings) -> dict[str, Any]:
    """As JSON."""
    return {
        "address": found.address,
        "software": found.software,
        "took_s": round(found.took_s, 1),
        "findings": [{"status": status_of(each), **each.to_value()} for each in found.findings],
        "settings": list(found.settings),
    }


def print_findings(found: BrokerFindings) -> None:
    """A table of everything, then a paragraph for each finding that needs one, then what to set."""
    print_line(f"{found.address}{f' ({found.software})' if found.software else ''}: {found.took_s:.1f} s")
    print_table([_row(each) for each in found.findings], _COLUMNS, nothing="")
    for each in found.findings:
        if each.verdict is not CapabilityVerdict.YES and (text := _explained(each)):
            print_line(f"\n{each.name}: {text}")
    if found.settings:
        print_line("\nIn a Mosquitto's mosquitto.conf, these lines mend what can be mended:")
        for line in found.settings:
            print_line(f"    {line}")


def status_of(finding: Finding) -> str:
    """As the other findings of `ether doctor` say it: ok, warn or fail."""
    if finding.verdict is CapabilityVerdict.YES:
        return "ok"
    return "fail" if finding.prevents else "warn"


def _row(finding: Finding) -> dict[str, object]:
    found = f"{finding.value} ({finding.measured})" if finding.measured else finding.value
    return {"status": status_of(finding), "name": finding.name, "found": found}


def _explained(finding: Finding) -> str:
    """What it means, what Ether does instead, what to do: one sentence each."""
    sentences = [finding.consequence, finding.instead, finding.advice]
    return " ".join(f"{text[0].upper()}{text[1:]}{'' if text[-1] in '.?!' else '.'}" for text in sentences if text)
