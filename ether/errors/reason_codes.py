"""MQTT's reason codes in words: what a broker means, and what to do about it."""

from __future__ import annotations

TOO_LARGE = 0x95
"""Packet too large. MQTT 5 does not list it for PUBACK; mosquitto answers with it above `message_size_limit`."""

QUOTA = 0x97
"""Quota exceeded. Some brokers answer with it to a message that is too large."""

QOS_ADVICE = "A session needs QoS 1: let the broker have it (mosquitto: max_qos 1 or 2)."
RETAIN_ADVICE = "A session needs retained messages: let the broker keep them (mosquitto: retain_available true)."
WILDCARD_ADVICE = "A session needs wildcards in subscriptions: let the broker grant them."

_REASONS = {
    0x80: "unspecified error",
    0x81: "malformed packet",
    0x82: "protocol error",
    0x83: "implementation specific error",
    0x84: "unsupported protocol version",
    0x85: "client identifier not valid",
    0x86: "bad user name or password",
    0x87: "not authorized",
    0x88: "server unavailable",
    0x89: "server busy",
    0x8A: "banned",
    0x8B: "server shutting down",
    0x8C: "bad authentication method",
    0x8D: "keep alive timeout",
    0x8E: "session taken over",
    0x8F: "topic filter invalid",
    0x90: "topic name invalid",
    0x91: "packet identifier in use",
    0x93: "receive maximum exceeded",
    TOO_LARGE: "packet too large",
    0x96: "message rate too high",
    QUOTA: "quota exceeded",
    0x99: "payload format invalid",
    0x9A: "retain not supported",
    0x9B: "QoS not supported",
    0x9C: "use another server",
    0x9D: "server moved",
    0x9E: "shared subscriptions not supported",
    0x9F: "connection rate exceeded",
    0xA1: "subscription identifiers not supported",
    0xA2: "wildcard subscriptions not supported",
}

_ADVICE = {
    0x87: "Do the broker's rights (ACL) let this user publish there?",
    0x90: "Does this broker allow such a topic?",
    TOO_LARGE: "Send it in parts, or raise the broker's limit (mosquitto: message_size_limit).",
    QUOTA: "Is it too large for this broker, or are too many waiting there?",
    0x99: "Does this broker inspect what is published?",
    0x9A: RETAIN_ADVICE,
    0x9B: QOS_ADVICE,
}


def reason_text(code: int) -> str:
    """A reason code of 0x80 or above in MQTT's words."""
    return _REASONS.get(code, f"reason code 0x{code:02x}")


def advice_for(code: int | None) -> str:
    """What to do about a message that was refused with this code; None: the broker closed the connection at it."""
    return _ADVICE.get(code or 0, "The broker's log may say more.")


_CONNECT_ADVICE = {
    0x85: "Does it allow client ids of up to 64 characters?",
    0x88: "Is it starting or shutting down?",
    0x89: "Has it too many clients?",
    TOO_LARGE: "Does it take packets of 1,000 bytes?",
    QUOTA: "Has it reached its limit of connections?",
    0x9A: RETAIN_ADVICE,
    0x9B: QOS_ADVICE,
    0x9C: "Name the server that it stands for.",
    0x9D: "Name the server that has taken its place.",
    0x9F: "Do too many clients connect at the same moment?",
}


def connect_advice_for(code: int) -> str:
    """What to do about a connection that was refused with this code."""
    return _CONNECT_ADVICE.get(code, "Its log may say more.")
