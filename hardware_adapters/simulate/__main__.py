"""A simulated lab as a process of its own: `python -m hardware_adapters.simulate`.

Its first line of standard input is JSON: `file` (a YAML file) or `description` (the contents of one), `folder` for its
ports, `import_path` for the user's models, `twins` (the file that other processes' adapters read). It answers with one
line, `{"event": "ready", "twins": [...]}` or `{"event": "failed", "problem": "..."}`, and lives until its standard
input ends, thus no longer than the process that started it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from hardware_adapters.simulate.description import LabError
from hardware_adapters.simulate.lab import SimulatedLab


def main(source: TextIO, out: TextIO) -> int:
    """Serve the lab that the first line describes; returns the exit code."""
    line = source.readline()
    if not line:
        return 0
    asked: Mapping[str, Any] = json.loads(line)
    sys.path[:] = asked["import_path"]
    try:
        lab = SimulatedLab(asked["file"] or asked["description"], folder=Path(asked["folder"]))
    except LabError as error:
        _say(out, event="failed", problem=str(error), path=error.path)
        return 1
    with lab:
        twins = lab.twins()
        twins.save(Path(asked["twins"]))
        _say(out, event="ready", twins=twins.to_value())
        source.read()
    return 0


def _say(out: TextIO, **facts: Any) -> None:
    out.write(json.dumps(facts) + "\n")
    out.flush()


if __name__ == "__main__":
    sys.exit(main(sys.stdin, sys.stdout))
