"""The machines themselves: they are apart, a cut is silent, multicast can be dropped alone, nothing stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from namespaces import Machine, namespaces_missing, running_network
from patience import patience
from programs import Program, write
from running_brokers import alive, soon

pytestmark = pytest.mark.skipif(namespaces_missing is not None, reason=str(namespaces_missing))

ECHO = """
    import socket, sys
    with socket.create_server((sys.argv[1], 7)) as server:
        print("host", socket.gethostname(), flush=True)
        with server.accept()[0] as one:
            while data := one.recv(100):
                one.sendall(data)
"""
ASK = """
    import socket, sys, threading
    from step import await_step
    with socket.create_connection((sys.argv[1], 7)) as sock:
        def tell(line):  # of two threads, so in one piece
            sys.stdout.write(line + "\\n")
            sys.stdout.flush()
        def hear():
            while data := sock.recv(100):
                tell(f"answer {data}")
        threading.Thread(target=hear, daemon=True).start()
        for number in range(4):
            sock.sendall(b"%d" % number)
            tell(f"sent {number}")
            await_step()
"""
HEAR = """
    import socket, struct, sys
    group = socket.inet_aton("224.0.0.251") + socket.inet_aton(sys.argv[1])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("", 5353))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        print("listening", flush=True)
        while True:
            print("heard", sock.recv(100), flush=True)
"""
SAY = """
    import socket, sys
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"to all", ("224.0.0.251", 5353))
        sock.sendto(b"to one", (sys.argv[1], 5353))
"""
STEP = """
    import signal
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    def await_step():
        signal.sigwait({signal.SIGUSR1})
"""
DOOMED = """
    import os, sys, threading
    from pathlib import Path
    from namespaces import running_network
    with running_network(Path(sys.argv[1])) as network:
        machine = network.machine("pc")
        (machine.folder / "wait.py").write_text("import time; print('up', flush=True); time.sleep(600)")
        with machine.run("wait.py") as program:
            program.wait_for("up")
            print(program.process.pid, machine._pid, network._bridge, flush=True)
            threading.Event().wait(600)
"""


def step(program: Program) -> None:
    program.process.send_signal(signal.SIGUSR1)


def test_a_cut_is_silence_and_ends(tmp_path: Path) -> None:
    with running_network(tmp_path) as network:
        pc, pi = network.machine("pc"), network.machine("pi")
        write(pi.folder, "step.py", STEP)
        with pc.run(write(pc.folder, "echo.py", ECHO), pc.address) as echo:
            echo.wait_for("host pc")
            with pi.run(write(pi.folder, "ask.py", ASK), pc.address) as asking:
                asking.wait_for("answer b'0'")
                network.cut(pi)
                step(asking)
                asking.wait_for("sent 1")
                assert not soon(lambda: "answer b'1" in asking.said(), 0.5), "it is cut off"
                network.heal(pi)
                step(asking)
                asking.wait_for("answer b'1")  # when it is sent again, and perhaps with the 2


def heard(machine: Machine, listener: Program, speaker: Machine) -> list[str]:
    """What the listener on the machine gets of a message to all and one to it alone."""
    before = len(listener.lines["out"])
    with speaker.run(write(speaker.folder, "say.py", SAY), machine.address) as saying:
        assert saying.finish().code == 0, saying.said()
    assert soon(lambda: any("to one" in line for line in listener.lines["out"][before:]), 5)
    return [line.strip() for line in listener.lines["out"][before:]]


def test_multicast_alone_can_be_dropped(tmp_path: Path) -> None:
    with running_network(tmp_path) as network:
        pc, pi = network.machine("pc"), network.machine("pi")
        with pc.run(write(pc.folder, "hear.py", HEAR), pc.address) as listener:
            listener.wait_for("listening")
            assert heard(pc, listener, pi) == ["heard b'to all'", "heard b'to one'"]
            network.drop_multicast(pc)
            assert heard(pc, listener, pi) == ["heard b'to one'"]
            network.cut(pc)
            network.heal(pc)
            assert heard(pc, listener, pi) == ["heard b'to one'"]


def test_a_test_run_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    script = write(tmp_path, "doomed.py", DOOMED)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, script, str(tmp_path / "net")],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as doomed:
        assert doomed.stdout is not None
        pids = [int(pid) for pid in doomed.stdout.readline().split()]
        assert len(pids) == 3
        doomed.kill()
        doomed.wait(patience(5))
        assert soon(lambda: not any(alive(pid) for pid in pids), 5)
