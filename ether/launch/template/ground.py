"""What a program's processes have in common: a private folder, a process group, and the template process.

Apart from the launcher, because the template is begun first: it imports for as long as the launcher's own modules take
to load, on another core. The trap: nothing heavier than the template's own side may be imported here.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence

from ether.launch.process_group import ProcessGroup, make_group
from ether.launch.template.client import Template, template_wanted
from ether.system.folders import private_folder


class Ground:
    """Made for one program's part in one session; `close()` when every process has ended."""

    def __init__(self, preload: Sequence[str] = ()) -> None:
        """`preload` are modules that the template process imports."""
        self.folder = private_folder()
        self.template = Template(self.group, preload) if template_wanted() else None
        """The template process; None where this system has none, or nobody wants it."""
        self._group: ProcessGroup | None = None
        self._lock = threading.Lock()

    def group(self) -> ProcessGroup:
        """The process group, made when it is first asked for."""
        with self._lock:
            if self._group is None:
                self._group = make_group(self.folder)
            return self._group

    def begin(self) -> None:
        """Instances are going to be forked: start the template process; does not wait."""
        if self.template is not None:
            self.template.begin()

    def close(self) -> None:
        """Remove the folder, and end what is left. Twice is fine."""
        if self.template is not None:
            self.template.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._group is not None:
            self._group.close()
