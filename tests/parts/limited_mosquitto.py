"""A stock Mosquitto with a few lines of configuration: limits, rights, what it does not offer."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from running_brokers import STOCK, RunningBroker, running_broker


@contextmanager
def limited_mosquitto(*lines: str, acl: str | None = None, port: int = 0) -> Iterator[RunningBroker]:
    """A Mosquitto that lets everybody in, with these lines in its configuration, and the rights of `acl`."""
    settings: dict[str, Any] = dict(line.split(" ", 1) for line in lines)
    with tempfile.TemporaryDirectory(prefix="ether-test-") as folder:
        if acl is not None:
            path = Path(folder) / "acl"
            path.write_text(acl)
            path.chmod(0o600)
            settings["acl_file"] = path
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            settings["user"] = "root"  # it would become a user who cannot read the file
        with running_broker(STOCK, port=port, **settings) as broker:
            yield broker
