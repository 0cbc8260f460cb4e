"""Calls by pyzmq through a broker process: REQ sockets, a proxy of ROUTER and DEALER, a REP socket."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from calls_rig import CALL_WITHIN_S, END_WITHIN_S, OpenCaller, OverBytes, Setup, main, require, server


def bind(socket: Any, setup: Setup, side: str) -> str:
    """Where the socket listens."""
    if setup.unix_socket:
        socket.bind(f"ipc://{os.path.join(setup.folder, f'zmq-{side}-{os.getpid()}')}")
    else:
        socket.bind(f"tcp://{setup.host}:*")
    return str(socket.last_endpoint.decode())


@contextmanager
def forward(setup: Setup) -> Iterator[str]:
    """The broker's process; its address is two, for callers and for servers."""
    import zmq

    context = zmq.Context()
    front, back = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    front.linger = back.linger = 0
    addresses = f"{bind(front, setup, 'front')} {bind(back, setup, 'back')}"

    def run() -> None:
        with front, back:
            try:
                zmq.proxy(front, back)
            except zmq.ContextTerminated:
                pass

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield addresses
    context.term()
    thread.join(END_WITHIN_S)


@contextmanager
def serve(_setup: Setup, back: str) -> Iterator[str]:
    """The server's process."""
    import zmq

    context = zmq.Context()
    replies = context.socket(zmq.REP)
    replies.linger = 0
    replies.connect(back)

    def run() -> None:
        with replies:
            try:
                while True:
                    replies.send(replies.recv())
            except zmq.ContextTerminated:
                pass

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield back
    context.term()
    thread.join(END_WITHIN_S)


class ZmqCaller(OverBytes):
    """Belongs to one thread."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket

    def call(self, body: bytes) -> bytes:
        self._socket.send(body)
        answer: bytes = self._socket.recv()
        return answer


@contextmanager
def connect(setup: Setup) -> Iterator[OpenCaller]:
    require("zmq", "pyzmq")
    import zmq

    @contextmanager
    def open_caller() -> Iterator[ZmqCaller]:
        with context.socket(zmq.REQ) as socket:
            socket.linger = 0
            socket.rcvtimeo = socket.sndtimeo = int(CALL_WITHIN_S * 1000)
            socket.connect(front)
            yield ZmqCaller(socket)

    with server(setup, "forward") as addresses:
        front, back = addresses.split()
        with server(setup, "serve", back), zmq.Context() as context:
            yield open_caller


if __name__ == "__main__":
    main(connect, serve=serve, forward=forward)
