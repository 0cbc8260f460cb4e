"""Which sockets are ready: `epoll` itself where there is one, else the standard library's choice.

`selectors` asks the same `epoll`, and makes a list of keys of its answer: with one packet a round, as in a call, that
costs a tenth of what the broker executes.
"""

import select
import selectors
import socket
import sys
from typing import Protocol

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Readiness(Protocol):
    """Watched sockets; `at` is what stands for one in the answer."""

    def watch(self, sock: socket.socket, at: object) -> None:
        """Tell when it can be read."""

    def change(self, sock: socket.socket, at: object, writing: bool) -> None:
        """Tell also when it can be written, or no more."""

    def forget(self, sock: socket.socket) -> None:
        """Watch it no more; it is still open."""

    def wait(self, longest_s: float) -> list[tuple[object, int]]:
        """What is ready, with READ, WRITE or both; nothing where the time is over."""

    def close(self) -> None:
        """End it."""


class SelectorReadiness:
    """On any system."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def watch(self, sock: socket.socket, at: object) -> None:
        self._selector.register(sock, READ, at)

    def change(self, sock: socket.socket, at: object, writing: bool) -> None:
        self._selector.modify(sock, READ | (WRITE if writing else 0), at)

    def forget(self, sock: socket.socket) -> None:
        self._selector.unregister(sock)

    def wait(self, longest_s: float) -> list[tuple[object, int]]:
        return [(key.data, events) for key, events in self._selector.select(longest_s)]

    def close(self) -> None:
        self._selector.close()


if sys.platform == "linux":
    _NOT_WRITE, _NOT_READ = ~select.EPOLLOUT, ~select.EPOLLIN

    class EpollReadiness:
        """On Linux. Errors and hang-ups count as READ: reading tells what it is."""

        def __init__(self) -> None:
            self._epoll = select.epoll()
            self._at: dict[int, object] = {}

        def watch(self, sock: socket.socket, at: object) -> None:
            self._epoll.register(sock, select.EPOLLIN)
            self._at[sock.fileno()] = at

        def change(self, sock: socket.socket, at: object, writing: bool) -> None:
            self._epoll.modify(sock, select.EPOLLIN | (select.EPOLLOUT if writing else 0))

        def forget(self, sock: socket.socket) -> None:
            del self._at[sock.fileno()]
            self._epoll.unregister(sock)

        def wait(self, longest_s: float) -> list[tuple[object, int]]:
            at = self._at
            return [
                (at[number], READ if events == READ else _told(events))
                for number, events in self._epoll.poll(longest_s, len(at) + 1)
            ]

        def close(self) -> None:
            self._epoll.close()

    def _told(events: int) -> int:
        return (READ if events & _NOT_WRITE else 0) | (WRITE if events & select.EPOLLOUT else 0)


def readiness() -> Readiness:
    """The one for this system."""
    return EpollReadiness() if sys.platform == "linux" else SelectorReadiness()
