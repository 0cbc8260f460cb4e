"""One application message: what a PUBLISH says, whichever version it came by.

For: the message is decoded once and kept as one object, in every queue that it waits in. Its bytes are shared, and so
are the packets that are made of it: those for one version, QoS and set of subscription numbers are made once.
Promise: `payload` and `properties` are what the publisher sent. Properties leave out what belongs to one hop: topic
alias and subscription identifiers. The four bytes of the expiry lie at `expiry_at`; they are replaced in each packet,
because the time is counted down (`expires_at`).
"""

import math

OVERHEAD_BYTES = 300
"""What the Python objects of one message in a queue cost, roughly."""

MOST_PIECES = 32
"""Each set of subscription numbers has pieces of its own, and clients number as they like."""

_Key = tuple[int, int, bool, bytes, int]
Pieces = tuple[bytes, bytes, "bytes | memoryview"]
"""A PUBLISH in three pieces: up to the packet id, from there to the payload, and a payload too large to be copied."""


class ApplicationMessage:
    """One message; `qos` is the publisher's. `expires_at` is a time of the exchange's clock, or None."""

    __slots__ = (
        "_at",
        "_packet",
        "_pieces",
        "expires_at",
        "expiry_at",
        "forwardable",
        "id_at",
        "properties",
        "qos",
        "retain",
        "size",
        "topic",
        "unchanged_until",
    )

    def __init__(
        self,
        topic: bytes,
        packet: bytes,
        payload_at: int,
        qos: int = 0,
        retain: bool = False,
        properties: bytes = b"",
        forwardable: int = 0,
        id_at: int = 0,
    ) -> None:
        """`packet` ends with the payload, which begins at `payload_at`. `forwardable` is the protocol level at which
        these very bytes may be passed on as a PUBLISH of the same QoS with another packet id, which lies at `id_at`;
        or 0."""
        self.topic, self._packet, self._at = topic, packet, payload_at
        self.qos, self.retain, self.properties, self.forwardable = qos, retain, properties, forwardable
        self.id_at, self.size = id_at, len(packet) + OVERHEAD_BYTES
        self.expires_at: float | None = None
        self.expiry_at, self.unchanged_until = -1, math.inf
        self._pieces: dict[_Key, Pieces] | None = None

    def expire_in(self, expiry_s: int, now: float) -> None:
        """Its time begins. For the first second the packet as it came still says what is left of it."""
        self.expires_at, self.unchanged_until = now + expiry_s, now + 1

    @property
    def packet(self) -> bytes:
        """The packet as it came."""
        return self._packet

    @property
    def payload(self) -> bytes:
        """The body."""
        return self._packet[self._at :] if self._at else self._packet

    @property
    def payload_bytes(self) -> int:
        """The length of the body."""
        return len(self._packet) - self._at

    def payload_view(self) -> memoryview:
        """The body without a copy."""
        return memoryview(self._packet)[self._at :]

    def is_expired(self, now: float) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and self.expires_at <= now

    def left_s(self, now: float) -> int:
        """How much of its time is left, where it has one."""
        return 0 if self.expires_at is None else max(0, math.ceil(self.expires_at - now))

    def known_pieces(self, key: _Key) -> Pieces | None:
        """The pieces that were kept under this key: level, QoS, retain flag, further properties, seconds left."""
        return None if self._pieces is None else self._pieces.get(key)

    def keep_pieces(self, key: _Key, pieces: Pieces) -> None:
        """Keep the pieces for the next client that needs the same."""
        if self._pieces is None:
            self._pieces = {key: pieces}
        elif len(self._pieces) < MOST_PIECES:
            self._pieces[key] = pieces
