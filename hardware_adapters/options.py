"""The options that every adapter takes, whichever medium carries the bytes, and their checks."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from typing import Any, TypedDict

from hardware_adapters.boot import BootRules
from hardware_adapters.identity import Identity
from hardware_adapters.step_rules import SETTLE_S, LineRules


class AdapterOptions(TypedDict, total=False):
    """The options of every adapter.

    `name` is the adapter's name in errors and leases. `identity` is the device (a string: its whole answer to `*IDN?`).
    `timeout_s` (seconds) and `retries` hold for each query. `on_connect(adapter)` runs after each connection, before
    other threads may use it; `on_input(frame)` gets unsolicited frames; `on_presence(presence)` is called at offline
    and online. With `reconnect=False` a lost device is not searched. After `verify_after_s` seconds without a
    success, a device with an identity to ask for is asked again (None: never). `encoding` is that of `query` and
    `write`. `boot_s`: so long a device may boot after its port was opened, with messages of its own. `ready` is
    what it says when it has booted, a part of a message or a pattern: the wait ends there, at `boot_s` (5 s where it is
    left out) at the latest; of `SerialPort` alone. `sync` is a
    question and its answer (a text, bytes, or a pattern for the whole answer) that show after a failed query that the
    line is in step: `("*OPC?", "1")`. An identity that is asked for serves as one.

    For serial lines and plain sockets: `unsolicited(frame)` tells input from answers (by default, a frame is input
    where no query waits); `echo`: whether the device sends commands back (None: that is noticed); after a failed query
    the line must be quiet for `settle_s`.
    """

    name: str
    identity: Identity | str | None
    timeout_s: float
    retries: int
    on_connect: Callable[[Any], object] | None
    on_input: Callable[[bytes], object] | None
    on_presence: Callable[[Any], object] | None
    reconnect: bool
    verify_after_s: float | None
    encoding: str
    boot_s: float
    ready: str | bytes | re.Pattern[str] | None
    sync: tuple[str | bytes, str | bytes | re.Pattern[str]] | None
    unsolicited: Callable[[bytes], bool] | None
    echo: bool | None
    settle_s: float


BOOT_S = 5.0
"""How long `ready` is waited for where `boot_s` says nothing."""


def boot_rules(options: AdapterOptions) -> BootRules:
    """How a device boots."""
    ready = options.get("ready")
    return BootRules(options.get("boot_s", 0.0 if ready is None else BOOT_S), ready)


def line_rules(options: AdapterOptions) -> LineRules:
    """What they say of the instrument's line."""
    return LineRules(options.get("settle_s", SETTLE_S), options.get("unsolicited"), options.get("echo"))


def check_options(options: AdapterOptions) -> None:
    """Raise TypeError for an unknown option, ValueError for an impossible value."""
    known = AdapterOptions.__annotations__
    if unknown := [name for name in options if name not in known]:
        near = difflib.get_close_matches(unknown[0], known, 1)
        hint = f" Did you mean {near[0]!r}?" if near else f" There are: {', '.join(known)}."
        raise TypeError(f"an adapter has no option {unknown[0]!r}.{hint}")
    if options.get("timeout_s", 1.0) <= 0 or options.get("retries", 0) < 0:
        raise ValueError("timeout_s is more than 0 and retries 0 or more")
    if not 0 <= options.get("boot_s", 0.0) < float("inf"):
        raise ValueError(f"boot_s is a number of seconds from 0, not {options.get('boot_s')!r:.40}")
    ready = options.get("ready")
    if ready is not None and (not ready or not isinstance(ready, (str, bytes, re.Pattern))):
        raise ValueError(f"ready is a part of what the board says, or a pattern, not {ready!r:.40}")
