"""`ether pair NAME`: shows a token and a code, waits for one device, and lets it in."""

from __future__ import annotations

import os
import time
from typing import Annotated

import typer

from ether.cli.exits import Exit
from ether.cli.options import Json
from ether.cli.output import harmless, print_json, print_line, remark
from ether.security.pairing_code import VALID_S
from ether.session.trust.lab import LabAuthority
from ether.session.trust.pairing import PORT, Joined, Pairing
from ether.system.clock import wall_time
from ether.system.lab_folders import AUTHORITY

DeviceName = Annotated[str, typer.Argument(metavar="NAME", help="How the device is called from now on, such as pi3.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="The port to wait at; another where it is taken.")]
Password = Annotated[
    bool,
    typer.Option("--password", help="For a device that cannot hold a certificate: show a password for it alone."),
]
Valid = Annotated[
    float, typer.Option("--timeout", "-t", metavar="SECONDS", min=1.0, max=VALID_S, help="How long to wait.")
]


def pair(
    name: DeviceName, port: Port = PORT, timeout: Valid = VALID_S, password: Password = False, json: Json = False
) -> int:
    """Let another machine into this machine's lab. What is shown is typed there; it is good once, for ten minutes, and
    the first wrong guess ends it. Exit code 1 where nobody came in. With --password it waits for nobody: a device that
    knows MQTT and TLS alone enters by the user and the password that are shown, this once."""
    lab = LabAuthority.load_or_make(os.environ, wall_time())
    if password:
        _show_password(lab, name, lab.admit_by_password(name, wall_time()), json)
        return Exit.OK
    pairing = Pairing(lab, name, valid_s=timeout, port=port)
    try:
        _show(pairing, timeout, json)
        joined = pairing.wait()
    finally:
        pairing.close()
    _show_joined(joined, json)
    return Exit.OK


def _show(pairing: Pairing, timeout_s: float, json: bool) -> None:
    if json:
        print_json({"token": pairing.token.text, "code": pairing.code, "port": pairing.port}, lines=True)
        return
    where = "" if pairing.port == PORT else f":{pairing.port}"
    print_line(f"On {pairing.name}, type one of these within {timeout_s / 60:.0f} min:")
    print_line(f"  ether join {pairing.token.text}")
    print_line(f"  ether join {pairing.code}    (or with --at and this machine's address{where})")
    remark("waiting; Ctrl-C ends it")


def _show_password(lab: LabAuthority, name: str, password: str, json: bool) -> None:
    authority = os.path.join(lab.folder, AUTHORITY)
    if json:
        print_json({"name": name, "user": name, "password": password, "authority": authority}, lines=True)
        return
    print_line(f"user      {name}")
    print_line(f"password  {password}    (shown this once)")
    print_line(f"authority {authority}    (the broker's certificate is signed by it; it is no secret)")
    remark(
        "over TLS, at the port that the session's `broker: {listen: lan, password_port: 8885}` opens; what it may do"
    )
    remark(
        f"stands in `security: {{devices: {{{name}: {{publishes: [TOPIC], hears: [TOPIC]}}}}}}`, or is what guests may"
    )


def _show_joined(joined: Joined, json: bool) -> None:
    if json:
        print_json(
            {"name": joined.name, "host": joined.host, "address": joined.address, "fingerprint": joined.fingerprint},
            lines=True,
        )
        return
    ends = time.strftime("%Y-%m-%d", time.localtime(joined.ends))
    where = harmless(f"host {joined.host} at {joined.address}, key {joined.fingerprint}, until {ends}")
    print_line(f"{joined.name} is a member now: {where}")
    remark(f"if that is not your device: ether revoke {joined.name}")
