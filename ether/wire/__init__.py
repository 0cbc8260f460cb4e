"""What a message is: topics, values, arrays, headers. Pure: no I/O, no threads, no clock.

Promises: a value that can be sent arrives equal, with its headers, over either version of MQTT. Any other bytes that
arrive give a value or an `EtherError`, never another exception, an endless loop, or more memory than their size
explains.

The trap: foreign clients may publish on every data topic. A message is not to be trusted because it can be parsed.
"""

from __future__ import annotations

from ether.wire.codec import Body, decode, encode
from ether.wire.envelope import (
    Envelope,
    EnvelopeTwice,
    EnvelopeV5,
    EnvelopeV311,
    Packed,
    Unpacked,
    has_property_headers,
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
    "EnvelopeTwice",
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
    "has_property_headers",
    "matches",
    "pack_properties",
    "unix_ms_of",
    "unpack",
    "unpack_headers",
    "unpack_properties",
]
