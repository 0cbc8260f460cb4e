"""`ether dashboard`: one page in the browser that shows a running session, and lets its owner act.

A process of its own, so that nothing of the lab depends on it: it may be killed at any moment.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import socket
import threading
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from ether.cli import completion
from ether.cli.exits import CommandMistake
from ether.cli.lab.joined import found_session
from ether.cli.options import BrokerUrl, Where
from ether.cli.output import print_json, print_line, remark
from ether.dashboard import LOOPBACK
from ether.log import get_ether_logger, install_console

if TYPE_CHECKING:
    from ether.session.trust.lab import ServerFiles

Session = Annotated[
    str | None,
    typer.Argument(metavar="SESSION", help="The session; else the one that runs.", autocompletion=completion.sessions),
]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; else any free one.")]
Listen = Annotated[
    str | None,
    typer.Option(
        "--listen",
        metavar="ADDRESS",
        help="Serve an address of this machine in the network, encrypted; with --read-only in the plain.",
    ),
]
ReadOnly = Annotated[bool, typer.Option("--read-only", help="Show, and let nobody act.")]
NoBrowser = Annotated[bool, typer.Option("--no-browser", help="Print the link, and open no browser.")]
View = Annotated[
    str, typer.Option("--view", help="Open this view: what stands after # in the page's address, such as values.")
]
EndsWithInput = Annotated[
    bool, typer.Option("--ends-with-input", hidden=True, help="End when standard input ends, with who has started it.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the link as JSON.")]


def dashboard(
    session: Session = None,
    broker: BrokerUrl = None,
    port: Port = 0,
    listen: Listen = None,
    read_only: ReadOnly = False,
    no_browser: NoBrowser = False,
    view: View = "",
    ends_with_input: EndsWithInput = False,
    json: Json = False,
) -> None:
    """Open the page of a running session in the browser, until Ctrl-C. The link opens one browser, once."""
    address = address_of(listen)
    missing = [name for name in ("numpy", "starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise CommandMistake(f"the page needs {' and '.join(missing)}: pip install 'ether-medium[dashboard]'")
    from ether.dashboard.server import PageServer, ServerOptions

    install_console()
    get_ether_logger(log_level="INFO" if not json else "WARNING")
    found = found_session(Where(session, broker))
    try:
        tls = None if address == LOOPBACK or read_only else lab_files(address)
        server = PageServer(found.name, broker, ServerOptions(address, port, read_only, tls))
    except OSError as error:
        raise CommandMistake(f"{address}:{port} cannot be listened on: {error.strerror or error}") from error

    def ready() -> None:
        link = server.new_link() + (f"#{view}" if view else "")
        if json:
            paired = {} if (code := server.new_code()) is None else {"code": code[0], "pair": code[1]}
            print_json({"session": found.name, "link": link, **paired}, lines=True)
        else:
            print_line(link)
            remark("this link opens one browser, once, within ten minutes; Ctrl-C ends the page, and nothing else")
            if tls is not None and (code := server.new_code()) is not None:
                print_line(f"{code[0]}  at {code[1]}")
                remark(
                    "where a link cannot be pasted, on a phone: type this code there; it, too, opens one browser, once"
                )
                remark(f"browsers that know {tls.authority} as an authority show no warning; else compare with")
                remark(f"SHA-256 {fingerprint(tls.certificate)}")
        if ends_with_input:
            threading.Thread(target=_await_end_of_input, args=(server.stop,), daemon=True).start()
        if not no_browser and not json:
            webbrowser.open(link)

    server.run(found, ready)


def _await_end_of_input(then: Callable[[], object]) -> None:
    with suppress(OSError):
        while os.read(0, 4096):
            pass
    then()


def address_of(listen: str | None) -> str:
    """The address to listen on."""
    if listen is None:
        return LOOPBACK
    try:
        given = ipaddress.ip_address(listen)
    except ValueError:
        raise CommandMistake(
            f"found --listen {listen!r:.60}; expected an address of this machine, such as 192.168.1.5"
        ) from None
    if given.is_unspecified:
        raise CommandMistake(f"found --listen {listen}, which is no address to open; name the one of the network")
    return str(given)


def lab_files(address: str) -> ServerFiles:
    """What the page needs to speak TLS at this address: the certificate of a server of this machine's lab, which is
    made where there is none. Raises what the lab refuses."""
    from ether.session.trust.lab import LabAuthority
    from ether.system.clock import wall_time

    lab = LabAuthority.load_or_make(os.environ, wall_time())
    return lab.server_files(socket.gethostname(), [address], wall_time())


def fingerprint(certificate: str) -> str:
    """As browsers show it."""
    import hashlib
    import ssl

    with open(certificate, encoding="ascii") as file:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(file.read())).digest().hex(":").upper()
