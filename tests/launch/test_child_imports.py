"""What the process of an instance does not load before it needs it: each module delays the start of every instance."""

from __future__ import annotations

import json
import subprocess
import sys

FOR_CONTEXTS = ["ether.provenance.context", "ether.provenance.environment", "ether.ledger.objects"]
"""Loaded when a process saves its first value, or where the launcher describes a simulated lab."""

FOR_THE_LAUNCHER = [
    "ether.launch.launcher",
    "ether.launch.supervisor",
    "ether.launch.broker",
    "ether.launch.guest",
    "ether.session.discovery.search",
]


def test_an_instances_process_loads_nothing_for_contexts_and_nothing_of_the_launcher() -> None:
    absent = [*FOR_CONTEXTS, *FOR_THE_LAUNCHER]
    code = f"""
import json, sys
import ether.launch.child_main
print(json.dumps([name for name in {absent!r} if name in sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
