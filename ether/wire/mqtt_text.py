"""Which text MQTT carries without harm.

The standard lets a broker close the connection over control characters and Unicode's non-characters, and
Mosquitto does. One that Ether would reconnect, only to send the same again; so such text is refused before it
is sent.
"""

from __future__ import annotations

import re

# Compiled when first needed: most text is printable.
_HARMFUL = (
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
    + "]"
)


def is_mqtt_text(text: str) -> bool:
    """True if every broker takes this text in a topic or a property."""
    return text.isprintable() or re.search(_HARMFUL, text) is None
