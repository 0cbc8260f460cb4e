"""The options that every adapter takes, whichever medium carries the bytes, and what is wrong with them."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, TypedDict

from hardware_adapters.identity import Identity


class AdapterOptions(TypedDict, total=False):
    """What every adapter takes.

    `name` is how this adapter is called in errors and leases. `identity` is the device (a string: its whole answer to
    `*IDN?`). `timeout_s` and `retries` hold for each question. `on_connect(adapter)` runs after each connecting, before
    others may use it; `on_input(frame)` gets what nobody asked for; `on_presence(presence)` hears offline and online.
    `reconnect=False` leaves a lost device lost. `verify_after_s`: so long may a line be idle before a device with an
    identity to ask for is asked again (None: never). `encoding` is that of `query` and `write`.
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


def check_options(options: AdapterOptions) -> None:
    """Raise TypeError for an option that is not there, ValueError for one that cannot be."""
    known = AdapterOptions.__annotations__
    if unknown := [name for name in options if name not in known]:
        near = difflib.get_close_matches(unknown[0], known, 1)
        hint = f" Did you mean {near[0]!r}?" if near else f" There are: {', '.join(known)}."
        raise TypeError(f"an adapter has no option {unknown[0]!r}.{hint}")
    if options.get("timeout_s", 1.0) <= 0 or options.get("retries", 0) < 0:
        raise ValueError("timeout_s is more than 0 and retries 0 or more")
