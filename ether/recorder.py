"""The recorder under its public name, for class paths: `class_path: ether.recorder.Recorder`.

Class paths stand in YAML files and in ledgers for years, so this module keeps its name wherever the class itself lives.
"""

from ether.recording.recorder import Recorder

__all__ = ["Recorder"]
