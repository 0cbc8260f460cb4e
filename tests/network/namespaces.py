"""Machines for tests: Linux network namespaces with addresses, host names and user folders of their own.

Each machine is joined by a pair of virtual interfaces to a bridge, which stands in a namespace of its own, so that no
interface of the real machine is touched. A cut takes the machine's port off the bridge: all interfaces stay up, packets
end there, and sockets see silence instead of an error. It needs nothing of the kernel but a bridge; `tc netem` and
packet filters are modules that many kernels lack.

Promise: nothing stays, whatever happens. The namespaces have no names in the file system. Each one lives by a process
that waits for the end of its standard input, and programs in it are killed by the kernel when the test run dies. So
even one that is killed by force leaves nothing to clear up.

The trap: all machines share one clock and one file system. `time.monotonic()` of two of them can be compared, and a
path of one is valid on the other.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from patience import patience
from programs import Program, running

_TOOLS = ("hostname", "ip", "nsenter", "setpriv", "unshare")
_COMMAND_S = patience(10.0)
_BRIDGE = "bridge0"
_ENTER = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])\n"


def _why_no_namespaces() -> str | None:
    if sys.platform != "linux":
        return "network namespaces are a thing of Linux"
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} not found: apt install iproute2 util-linux hostname"
    if os.geteuid() != 0:
        return "network namespaces need root"
    with _holder() as (process, said):
        return None if process.poll() is None and said else "this kernel, or container, allows no network namespaces"


@contextmanager
def _holder(hostname: str = "") -> Iterator[tuple[subprocess.Popen[bytes], bytes]]:
    """A process that keeps a network and a UTS namespace until the end; with what it said when they were there."""
    script = 'if [ -n "$1" ]; then hostname "$1"; fi; echo ready; exec cat'
    process = subprocess.Popen(
        ["unshare", "--net", "--uts", "sh", "-ec", script, "sh", hostname],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with process:
        assert process.stdout is not None
        yield process, process.stdout.readline()


namespaces_missing: str | None = _why_no_namespaces()
"""The reason for `pytest.mark.skipif(namespaces_missing is not None, …)`, or None where machines can be made."""


def _inside(pid: int, *command: str) -> list[str]:
    """The command line that runs a command in the namespaces of a process."""
    return ["nsenter", f"--net=/proc/{pid}/ns/net", f"--uts=/proc/{pid}/ns/uts", *command]


def _call(pid: int, *command: str) -> None:
    done = subprocess.run(_inside(pid, *command), capture_output=True, text=True, timeout=_COMMAND_S, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"


def in_environment(variables: Mapping[str, str | None], *command: str) -> list[str]:
    """The command line that runs a command with more variables, or, where they are None, without them."""
    unset = [part for name, value in variables.items() if value is None for part in ("-u", name)]
    return ["env", *unset, *(f"{name}={value}" for name, value in variables.items() if value is not None), *command]


def run_as(folder: Path, *command: str) -> AbstractContextManager[Program]:
    """A `Program` that becomes this command at once."""
    (folder / "enter.py").write_text(_ENTER)
    return running(folder, "enter.py", *command)


@dataclass(frozen=True)
class Machine:
    """A machine of the network. `environment` is what its user's programs find beside what all programs find; a None
    takes a variable away."""

    name: str
    address: str
    folder: Path
    environment: dict[str, str | None] = field(repr=False)
    _pid: int = field(repr=False)

    def run(self, script: str, *args: str, **variables: str | None) -> AbstractContextManager[Program]:
        """A user's program on this machine, ended with the block; `variables` go into its environment."""
        command = in_environment({**self.environment, **variables}, sys.executable, script, *args)
        return run_as(self.folder, *_inside(self._pid, "setpriv", "--pdeathsig", "KILL", *command))


class Network:
    """Machines and what connects them. Made by `running_network()`."""

    def __init__(self, folder: Path, holders: ExitStack) -> None:
        self._folder, self._holders = folder, holders
        self.machines: list[Machine] = []
        self._without_multicast: set[str] = set()
        self._bridge = self._hold()
        _call(self._bridge, "ip", "link", "add", _BRIDGE, "type", "bridge", "forward_delay", "0")
        _call(self._bridge, "ip", "link", "set", _BRIDGE, "up")

    def machine(self, name: str, **variables: str | None) -> Machine:
        """One more machine, connected; its host name is `name`."""
        address = f"10.77.0.{len(self.machines) + 1}"
        folder = self._folder / name
        environment: dict[str, str | None] = {"ETHER_MDNS": None, "HOME": str(folder), **variables}
        for variable in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
            place = folder / variable[4:7].lower()
            place.mkdir(mode=0o700, parents=True)
            environment[variable] = str(place)
        machine = Machine(name, address, folder, environment, self._hold(name))
        self._plug_in(machine)
        self.machines.append(machine)
        return machine

    def cut(self, machine: Machine) -> None:
        """From now on no packet reaches it, and none leaves it."""
        _call(self._bridge, "ip", "link", "set", self._port(machine), "nomaster")

    def heal(self, machine: Machine) -> None:
        """Packets pass again."""
        self._attach(machine)

    def drop_multicast(self, machine: Machine) -> None:
        """No multicast reaches it, as behind many routers and access points; what it says itself passes."""
        self._without_multicast.add(machine.name)
        self._attach(machine)

    def _hold(self, hostname: str = "") -> int:
        process, said = self._holders.enter_context(_holder(hostname))
        assert said == b"ready\n", "a namespace could not be made"
        return process.pid

    def _plug_in(self, machine: Machine) -> None:
        port, pid = self._port(machine), str(machine._pid)
        _call(self._bridge, "ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", pid)
        _call(self._bridge, "ip", "link", "set", port, "up")
        self._attach(machine)
        _call(machine._pid, "ip", "link", "set", "lo", "up")
        _call(machine._pid, "ip", "address", "add", f"{machine.address}/24", "dev", "eth0")
        _call(machine._pid, "ip", "link", "set", "eth0", "up")
        _call(machine._pid, "ip", "route", "add", "224.0.0.0/4", "dev", "eth0")

    def _attach(self, machine: Machine) -> None:
        port, flood = self._port(machine), "off" if machine.name in self._without_multicast else "on"
        _call(self._bridge, "ip", "link", "set", port, "master", _BRIDGE)
        _call(self._bridge, "ip", "link", "set", port, "type", "bridge_slave", "mcast_flood", flood)

    @staticmethod
    def _port(machine: Machine) -> str:
        return f"to-{machine.name}"


@contextmanager
def running_network(folder: Path) -> Iterator[Network]:
    """A network without machines yet, whose machines keep their files in the folder; gone with the block."""
    with ExitStack() as holders:
        yield Network(folder, holders)
