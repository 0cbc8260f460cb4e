"""Counts the instructions of Python that all threads of a process execute: `sys.ether_instructions[0]`, in each process
whose `PYTHONPATH` holds this folder. Several times slower than without. For `side_by_side.py --instructions`."""

import sys
import threading
from types import FrameType
from typing import Any

count = [0]


def _trace(frame: FrameType, event: str, _: Any) -> Any:
    frame.f_trace_opcodes, frame.f_trace_lines = True, False
    if event == "opcode":
        count[0] += 1
    return _trace


sys.ether_instructions = count  # type: ignore[attr-defined]
threading.settrace(_trace)
sys.settrace(_trace)
