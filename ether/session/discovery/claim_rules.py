"""How programs of several machines agree on one that starts a session of a name. Packets and decisions only.

A program that is about to start a named session multicasts its claim on the name, a few times within `WINDOW_S`, and
leads when nobody has a better one by then. So that responders of mDNS and older programs understand it, a claim has the
form of the probes of RFC 6762 (section 8): a question for all sessions, and beside it, among the authorities, the
record that the program proposes. Whoever announces a session of this name answers the question; whoever claims or leads
it answers with its own claim. A program that has lost goes on asking, until the winner's session is announced.

    own claim            heard                                   so this program
    any                  of a session that nobody else can join  answers, where others can join its own
    claims               somebody leads the name                 yields
    claims, not lan      somebody claims it, whom others can join yields: that one never sees this session
    claims, lan          a claim with a smaller id               yields
    claims, lan          a claim with a greater id               answers, and the other one yields
    leads                claims it, or asks                      answers
    leads                leads                                   says so: two machines that did not hear each other

Promise: of two programs that hear each other one yields, whichever packet of theirs comes first, because the smaller id
does not depend on time. The trap: anybody in the network can claim any name, so nobody waits for a winner for longer
than `YIELDS_S`.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

WINDOW_S = 0.3
"""How long a claim waits for a better one. An answer in one network takes a millisecond."""
REPEATS_S = (0.0, 0.1, 0.2)
"""When a claim is sent within the window: packets of multicast get lost, above all in a wireless network. A claim that
is late, because the machine is busy, makes the window end later by as much: nobody leads who has not asked."""
ASKS_EVERY_S = 0.15
SILENT_S = 1.5
"""The winner has given up when it has answered no question for so long."""
YIELDS_S = 8.0
"""A winner whose session is not there by then never will be."""

LONGEST_TEXT = 255
_SERVICE = b"\x06_ether\x04_tcp\x05local\x00"
_QUESTION = struct.pack("!6H", 0, 0, 1, 0, 1, 0) + _SERVICE + struct.pack("!2H", 12, 1)
"""A header with one question and one authority, and the question: PTR (12) of the class IN (1)."""
_SERVICE_AT = struct.pack("!H", 0xC000 | 12)
"""A pointer to the service's name: it follows the header."""
_TEXT_RECORD, _IN, _TTL_S = 16, 1, 10
_ID_BYTES = 16


class ClaimState(enum.Enum):
    """What the sender of a claim is doing."""

    CLAIMS = "claims"
    LEADS = "leads"
    ASKS = "asks"
    """It has yielded, and waits for the session of the winner."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One program's claim on the name of a session. `id` is 16 hex digits; `lan`: its broker listens to other machines;
    `host` is for people."""

    session: str
    id: str
    state: ClaimState
    lan: bool
    host: str

    @property
    def fits(self) -> bool:
        """Whether a packet can carry it."""
        return all(len(text) <= LONGEST_TEXT for text in self._texts())

    def _texts(self) -> Iterator[bytes]:
        facts = {"session": self.session, "claim": self.state.value, "lan": str(int(self.lan)), "host": self.host}
        return (f"{key}={value}".encode("utf-8", "replace") for key, value in facts.items())

    def to_packet(self) -> bytes:
        """The packet; `fits` must be true."""
        texts = b"".join(bytes([len(text)]) + text for text in self._texts())
        name = bytes([_ID_BYTES]) + self.id.encode("ascii") + _SERVICE_AT
        return _QUESTION + name + struct.pack("!HHIH", _TEXT_RECORD, _IN, _TTL_S, len(texts)) + texts

    @classmethod
    def from_packet(cls, packet: bytes) -> Claim | None:
        """The claim in a packet of exactly this form; None for every other packet, whatever it holds."""
        at = len(_QUESTION)
        head = at + 1 + _ID_BYTES + len(_SERVICE_AT)
        record = packet[head : head + 10]
        if not packet.startswith(_QUESTION) or len(record) < 10 or packet[at] != _ID_BYTES:
            return None
        kind, _, _, size = struct.unpack("!HHIH", record)
        texts = packet[head + 10 :]
        if kind != _TEXT_RECORD or size != len(texts):
            return None
        try:
            facts = dict(text.partition("=")[::2] for text in _split(texts))
            state, claim_id = ClaimState(facts["claim"]), packet[at + 1 : at + 1 + _ID_BYTES].decode("ascii")
            host = "".join(sign for sign in facts["host"] if sign.isprintable())  # it goes to the log
            return cls(facts["session"], claim_id, state, facts["lan"] == "1", host)
        except (KeyError, ValueError):
            return None


def _split(texts: bytes) -> Iterator[str]:
    """The length-prefixed texts of a record; ends where the form does."""
    while texts and len(texts) > texts[0]:
        yield texts[1 : 1 + texts[0]].decode()
        texts = texts[1 + texts[0] :]


class ClaimVerdict(enum.Enum):
    """What a program does about a claim that it hears."""

    IGNORE = enum.auto()
    ANSWER = enum.auto()
    YIELD = enum.auto()
    TWICE = enum.auto()
    """Another machine leads a session of this name, too."""


class Contest:
    """One program's side of it. Not locked; `now` is in seconds of any steady clock."""

    def __init__(self, own: Claim, window_s: float, now: float) -> None:
        self.own = own
        self._window_s = window_s
        self._sent = 0
        self._asked = 0.0
        self.begin(now)

    def begin(self, now: float) -> None:
        """From now on others can be heard: the window begins. One that begins earlier, on a machine that is busy, is
        over before anybody was asked, and two lead."""
        self._began = self._yielded = self._heard = now

    @property
    def state(self) -> ClaimState:
        """What this program is doing."""
        return self.own.state

    def hear(self, claim: Claim, now: float) -> ClaimVerdict:
        """A claim was heard; follow the verdict by sending `own`, where that is to answer."""
        own = self.own
        if claim.session != own.session or claim.id == own.id:
            return ClaimVerdict.IGNORE
        if not claim.lan or claim.state is ClaimState.ASKS:
            return ClaimVerdict.ANSWER if own.lan and own.state is not ClaimState.ASKS else ClaimVerdict.IGNORE
        self._heard = now
        if own.state is ClaimState.ASKS:
            return ClaimVerdict.IGNORE
        if own.state is ClaimState.LEADS:
            return ClaimVerdict.TWICE if claim.state is ClaimState.LEADS else ClaimVerdict.ANSWER
        if claim.state is ClaimState.LEADS or not own.lan or claim.id < own.id:
            self.own, self._yielded = replace(own, state=ClaimState.ASKS), now
            return ClaimVerdict.YIELD
        return ClaimVerdict.ANSWER

    def turn(self, now: float) -> bool:
        """Let the time pass; returns whether `own` is to be sent now. Ends the window, and begins a new one where the
        winner has given up."""
        if self.state is ClaimState.ASKS:
            if now - self._yielded >= YIELDS_S:
                self.own = replace(self.own, state=ClaimState.LEADS)
                return True
            if now - self._heard >= SILENT_S:
                self.own, self._began, self._sent = replace(self.own, state=ClaimState.CLAIMS), now, 0
        if self.state is ClaimState.ASKS:
            due = now - self._asked >= ASKS_EVERY_S
            self._asked = now if due else self._asked
            return due
        if self.state is not ClaimState.CLAIMS:
            return False
        late_s = now - self._began - self._next_s()
        if late_s < 0:
            return False
        if self._next_s() < self._window_s:
            self._sent += 1
            self._began += late_s
            return True
        self.own = replace(self.own, state=ClaimState.LEADS)
        return self.own.lan

    def _next_s(self) -> float:
        """When the next claim is due, or the window ends, from its beginning on."""
        return min(REPEATS_S[self._sent], self._window_s) if self._sent < len(REPEATS_S) else self._window_s

    def patience_s(self, now: float) -> float | None:
        """How long nothing is due, as long as nothing is heard; None for ever."""
        if self.state is ClaimState.LEADS:
            return None
        if self.state is ClaimState.ASKS:
            return max(0.0, self._asked + ASKS_EVERY_S - now)
        return max(0.0, self._began + self._next_s() - now)
