"""Calls by Pyro5, direct: no broker between the two processes, and a connection for each calling thread.

Text goes by Pyro5's default serializer. An array goes as bytes by its `marshal` serializer: the default one would turn
it into base64, which alone takes several times as long as the whole call does without.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy
from calls_rig import CALL_WITHIN_S, END_WITHIN_S, Array, OpenCaller, Setup, main, require, server


@contextmanager
def serve(setup: Setup) -> Iterator[str]:
    from Pyro5.api import Daemon, config, expose

    config.SOCK_NODELAY = True

    @expose
    class Echo:
        def echo(self, what: Any) -> Any:
            return what

    path = os.path.join(setup.folder, f"pyro-{os.getpid()}") if setup.unix_socket else None
    daemon = Daemon(host=setup.host, unixsocket=path)
    address = str(daemon.register(Echo()))
    loop = threading.Thread(target=daemon.requestLoop, daemon=True)
    loop.start()
    try:
        yield address
    finally:
        daemon.shutdown()
        loop.join(END_WITHIN_S)


class PyroCaller:
    """Belongs to one thread."""

    def __init__(self, proxy: Any, array_proxy: Any) -> None:
        self._proxy, self._array_proxy = proxy, array_proxy

    def echo(self, text: str) -> str:
        answer: str = self._proxy.echo(text)
        return answer

    def echo_array(self, array: Array) -> Array:
        return numpy.frombuffer(self._array_proxy.echo(array.tobytes()))


@contextmanager
def connect(setup: Setup) -> Iterator[OpenCaller]:
    require("Pyro5", "Pyro5")
    from Pyro5.api import Proxy, config

    config.SOCK_NODELAY, config.COMMTIMEOUT = True, CALL_WITHIN_S

    @contextmanager
    def open_caller() -> Iterator[PyroCaller]:
        with Proxy(address) as proxy, Proxy(address) as array_proxy:
            array_proxy._pyroSerializer = "marshal"
            yield PyroCaller(proxy, array_proxy)

    with server(setup) as address:
        yield open_caller


if __name__ == "__main__":
    main(connect, serve=serve)
