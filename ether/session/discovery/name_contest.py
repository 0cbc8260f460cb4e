"""Claims the name of a session in the local network, while the session is already being started.

`ether.session.discovery.claim_rules` has the packets and the decisions; this is the socket and the thread. In a network
where nobody answers, a claim takes `WINDOW_S` beside whatever the program does meanwhile.

Promise: whoever has won, and can be joined from other machines, answers later claims on the name until `close()`. No
failure of the network is an error here: without multicast a claim is won alone.

The trap: an answer to a packet that was multicast comes to the port that it was sent from. Firewalls drop what comes to
an unknown port; and a responder multicasts a record once a second at most. So each packet is sent twice, from the port
of mDNS, whose answers everybody gets, and from a port of its own.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import sys
import threading
import time
from collections.abc import Sequence

from ether.connection.deadline import Deadline
from ether.log import get_ether_logger
from ether.session.discovery import mdns
from ether.session.discovery.claim_rules import WINDOW_S, Claim, ClaimState, ClaimVerdict, Contest

logger = get_ether_logger("Ether")

GROUP, PORT = "224.0.0.251", 5353
_LARGEST = 9000
_AT_ONCE = 100
"""So many packets of each socket are heard before the time is looked at."""
_SERVICE_MARK = b"\x06_ether"


class NameContest:
    """One claim, from its beginning until `close()`."""

    def __init__(
        self, session: str, *, lan: bool, window_s: float = WINDOW_S, interfaces: Sequence[str] | None = None
    ) -> None:
        """Begins at once, on a thread of its own. `lan`: other machines will be able to join this session;
        `interfaces` are addresses of this machine (default: all)."""
        own = Claim(session, os.urandom(8).hex(), ClaimState.CLAIMS, lan, socket.gethostname())
        self._contest = Contest(own, window_s, time.monotonic())
        self._interfaces = interfaces
        self._changed = threading.Condition()
        self._announced: dict[tuple[str, int], mdns.Announced] = {}
        self._ignored: set[tuple[str, int]] = set()
        self._over = not own.fits
        self._closing = False
        self._twice_logged = False
        self._waker, self._wakened = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="ether-name-claim", daemon=True)
        self._thread.start()

    def outcome(self, deadline: Deadline) -> list[mdns.Announced]:
        """Wait until the name is this program's, or is announced by others: the announcements; empty where it is this
        program's. After `ignore` call it again."""
        with self._changed:
            self._changed.wait_for(lambda: self._fresh() or self._over, deadline.left())
            return self._fresh()

    def ignore(self, announced: Sequence[mdns.Announced]) -> None:
        """Behind these there is no session."""
        with self._changed:
            self._ignored |= {(each.host, each.port) for each in announced}

    def close(self) -> None:
        """Claim and answer no more. Twice is fine."""
        if not self._closing:
            self._closing = True
            self._waker.send(b"x")
        self._thread.join()
        self._waker.close()
        self._wakened.close()

    def _fresh(self) -> list[mdns.Announced]:
        return [each for key, each in self._announced.items() if key not in self._ignored]

    # -- the thread

    def _run(self) -> None:
        sockets: list[socket.socket] = []
        try:
            if not self._over:
                sockets = _open_sockets(self._interfaces or mdns.interface_addresses())
                self._contest.begin(time.monotonic())
                self._serve(sockets)
        except Exception as error:  # noqa: BLE001 (a thread of its own: without multicast the name is won alone)
            logger.debug("the name of this session could not be claimed in the network: %s", error)
        finally:
            for each in sockets:
                each.close()
            self._end()

    def _end(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def _serve(self, sockets: Sequence[socket.socket]) -> None:
        with selectors.DefaultSelector() as selector:
            for each in (*sockets, self._wakened):
                selector.register(each, selectors.EVENT_READ)
            while not self._closing:
                selector.select(self._contest.patience_s(time.monotonic()))
                now = time.monotonic()
                self._hear(sockets, selector)  # all that came up to now: this thread may not have run for a while
                if self._contest.turn(now):
                    self._send(sockets)
                if self._contest.state is ClaimState.LEADS and not self._over:
                    self._end()
                    if not self._contest.own.lan:
                        return

    def _hear(self, sockets: Sequence[socket.socket], selector: selectors.BaseSelector) -> None:
        """Take what has arrived; of a flood a part."""
        for _ in range(_AT_ONCE):
            arrived = [key.fileobj for key, _ in selector.select(0) if key.fileobj is not self._wakened]
            for plug in arrived:
                self._take(sockets, _received(plug))  # type: ignore[arg-type]
            if not arrived:
                return

    def _send(self, sockets: Sequence[socket.socket]) -> None:
        packet = self._contest.own.to_packet()
        for each in sockets:
            try:
                each.sendto(packet, (GROUP, PORT))
            except OSError as error:  # an interface without a way out
                logger.debug("a claim could not be sent: %s", error)

    def _take(self, sockets: Sequence[socket.socket], packet: bytes) -> None:
        if _SERVICE_MARK not in packet or self._contest.own.id.encode() in packet:
            return
        claim = Claim.from_packet(packet)
        if claim is None:
            self._note(packet)
            return
        verdict = self._contest.hear(claim, time.monotonic())
        if verdict is ClaimVerdict.ANSWER:
            self._send(sockets)
        elif verdict is ClaimVerdict.YIELD:
            logger.info("session %s is being started on %s; waiting for it...", claim.session, claim.host)
        elif verdict is ClaimVerdict.TWICE and not self._twice_logged:
            self._twice_logged = True
            logger.error(
                "session %s is led twice: here, and on %s, of which nothing was heard when this one started. What is"
                " published goes to one of them. End one: ether down -s %s", claim.session, claim.host, claim.session,
            )  # fmt: skip

    def _note(self, packet: bytes) -> None:
        if self._over:
            return
        found = [each for each in mdns.announced_in(packet) if each.session == self._contest.own.session]
        with self._changed:
            self._announced |= {(each.host, each.port): each for each in found}
            self._changed.notify_all()


def _received(plug: socket.socket) -> bytes:
    try:
        return plug.recv(_LARGEST)
    except OSError:
        return b""  # an ICMP error of an earlier packet


def _open_sockets(addresses: Sequence[str]) -> list[socket.socket]:
    """Two sockets for each interface: on the port of mDNS, and on one of its own. Raises `OSError` where there is none
    at all."""
    opened: list[socket.socket] = []
    problem: OSError | None = None
    for address in addresses:
        for port in (PORT, 0):
            try:
                opened.append(_socket(address, port))
            except OSError as error:
                problem = error
    if not opened:
        raise problem or OSError("this machine has no network")
    return opened


def _socket(address: str, port: int) -> socket.socket:
    plug = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        if port:
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if hasattr(socket, "SO_REUSEPORT"):
                plug.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # On the port of mDNS for what goes to the group. Linux gives a socket that is bound to the group's address
        # nothing else; Windows binds no such address.
        shared = GROUP if sys.platform == "linux" else ""
        plug.bind((shared if port else address, port))
        if port:
            member = struct.pack("4s4s", socket.inet_aton(GROUP), socket.inet_aton(address))
            plug.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        plug.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
        plug.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
        plug.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        plug.setblocking(False)
    except BaseException:
        plug.close()
        raise
    return plug
