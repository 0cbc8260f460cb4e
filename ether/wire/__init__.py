"""What a message is: topics, values, arrays, headers. Pure: no I/O, no threads, no clock.

Promises: a value that can be sent arrives equal, with its headers, over either version of MQTT; whatever else
arrives is a value or an `EtherError`, never another exception, a hang or an allocation that its size does not
explain.

The trap: strangers are welcome on every data topic, so nothing that arrives may be trusted because it parses.
"""

from __future__ import annotations

from ether.wire.codec import Body, decode, encode
from ether.wire.envelope import (
    Envelope,
    EnvelopeV5,
    EnvelopeV311,
    Packed,
    Unpacked,
    unpack,
    unpack_headers,
)
from ether.wire.head import Headers, MessageIds, Properties, pack_properties, unix_ms_of, unpack_properties
from ether.wire.topics import (
    ROOT,
    SessionTopics,
    check_instance_name,
    check_session_name,
    check_topic,
    check_topic_filter,
    matches,
)

__all__ = [
    "ROOT",
    "Body",
    "Envelope",
    "EnvelopeV5",
    "EnvelopeV311",
    "Headers",
    "MessageIds",
    "Packed",
    "Properties",
    "SessionTopics",
    "Unpacked",
    "check_instance_name",
    "check_session_name",
    "check_topic",
    "check_topic_filter",
    "decode",
    "encode",
    "matches",
    "pack_properties",
    "unix_ms_of",
    "unpack",
    "unpack_headers",
    "unpack_properties",
]
