"""`ether doctor`: looks for faults on this machine, on the way to a session, and in the session."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence

from ether import Ether
from ether.cli.exits import Exit, NoSession, sentence_of
from ether.cli.lab.joined import joined
from ether.cli.machines.broker import broker_findings, exit_code, findings_to_value, print_findings
from ether.cli.machines.checks import Check, machine_checks, mosquitto_program, shown
from ether.cli.machines.probe import session_checks
from ether.cli.options import Json, Where
from ether.cli.output import print_json, print_line, print_table, remark
from ether.errors import EtherError
from ether.log import uninstall_console
from ether.session.discovery.search import SearchStep, explore

_COLUMNS = {"status": "", "name": "WHAT", "detail": "FOUND"}


def doctor(where: Where, json: Json = False) -> int:
    """Check this machine, look for sessions in every place, and measure one: the one that runs, or one that is started
    for this and ends with it. Exit code 1 where something is wrong.

    With --broker, instead: find out within 10 s what that broker carries of what Ether needs, by trying, and leave
    nothing behind. With --session, too, the rights are tried in that session's topics, and it is measured where it
    runs. Exit code 5 where the broker lets nobody in, 1 where it carries no session."""
    if where.broker is not None:
        return _broker(where, json)
    if sys.stderr.isatty():
        remark("looking; this takes a few seconds")
    checks = [*machine_checks(), *_discovery(where), *_session(where)]
    failed = [check for check in checks if check.status == "fail"]
    if json:
        print_json({"ok": not failed, "checks": [check.to_value() for check in checks]})
    else:
        _print_checks(checks)
    return Exit.FAILED if failed else Exit.OK


def _print_checks(checks: Sequence[Check]) -> None:
    print_table([shown(check) for check in checks], _COLUMNS, nothing="")
    for check in checks:
        if check.hint and check.status != "ok":
            print_line(f"\n{check.name}: {check.hint}")


def _broker(where: Where, json: bool) -> int:
    found = broker_findings(where)
    checks = list(_named_session(where)) if found.entered and where.session is not None else []
    code = exit_code(found)
    if code is Exit.OK and any(check.status == "fail" for check in checks):
        code = Exit.FAILED
    if json:
        broker = findings_to_value(found)
        print_json({"ok": code is Exit.OK, "broker": broker, "checks": [check.to_value() for check in checks]})
    else:
        print_findings(found)
        if checks:
            print_line("")
            _print_checks(checks)
    return code


def _named_session(where: Where) -> Iterator[Check]:
    try:
        with joined(where) as client:
            yield from session_checks(client)
    except NoSession:
        yield Check("session", "ok", f"{where.session} does not run; its rights were tried")
    except EtherError as error:
        yield Check("session", "fail", sentence_of(error))


def _discovery(where: Where) -> Iterator[Check]:
    try:
        for step in explore(session=where.session, broker=where.broker, environment=os.environ):
            yield _step_check(step)
    except EtherError as error:
        yield Check("discovery", "fail", sentence_of(error))


def _step_check(step: SearchStep) -> Check:
    names = ", ".join(f"{found.name} at {found.address}" for found in step.found) or "nothing"
    detail = f"{names} ({step.detail})" if step.detail else names
    refused = "; ".join(str(error) for error in step.refused.values())
    return Check(f"discovery: {step.name}", "warn" if refused else "ok", detail, refused)


def _session(where: Where) -> Iterator[Check]:
    try:
        with joined(where) as client:
            yield from session_checks(client)
    except NoSession as error:
        if where != Where():
            yield Check("session", "fail", sentence_of(error))
        else:
            yield Check("session", "ok", "none runs; the broker is tried by one of our own")
            yield from _own_session()
    except EtherError as error:
        yield Check("session", "fail", sentence_of(error))


def _own_session() -> Iterator[Check]:
    uninstall_console()  # first: it restores the level that the logger had before
    logging.getLogger("Ether").setLevel(logging.WARNING)
    own = Ether()
    engine = "amqtt" if mosquitto_program() is None else "mosquitto"
    try:
        with own.tap({"broker": {"engine": engine}}), joined(Where(own.session_id)) as client:
            yield from session_checks(client)
    except EtherError as error:
        yield Check("broker", "fail", sentence_of(error), "a session cannot be started on this machine")
