"""What all ways of calling in `calls.py` share: their processes, the clocks, and the check that answers are right.

Each way is a script whose caller is a process of its own, and starts its server as another one. The caller takes
orders as lines of JSON on stdin and answers each with a line on stdout. Every process ends when its stdin does, so
nothing outlives the program that started it, however that ends.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import queue
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias

import numpy

CALL_WITHIN_S = 10.0
START_WITHIN_S = 30.0
END_WITHIN_S = 10.0
SLICE_S = 2.0
"""A measurement ends after so many seconds, also where calls are left: some ways take 90 ms for one."""
WARM_UP_CALLS = 20
ARRAY_ITEMS = 125_000
"""Of 8 bytes each: 1 MB."""

Body: TypeAlias = bytes | bytearray | memoryview
Array: TypeAlias = numpy.ndarray[Any, numpy.dtype[numpy.float64]]


@dataclass(frozen=True, slots=True)
class Setup:
    """One way of calling on one broker. With `unix_socket` everything goes through Unix sockets, else through TCP."""

    script: str
    host: str
    port: int
    unix_socket: str | None
    username: str
    password: str
    url: str
    v5: bool
    topic: str
    folder: str
    qos: int = 1
    nodelay: bool = True


class Skipped(Exception):
    """This way cannot be measured here; the text says why."""


class Caller(Protocol):
    """One thread's way to the method `echo` in another process."""

    def echo(self, text: str) -> str: ...

    def echo_array(self, array: Array) -> Array: ...


OpenCaller: TypeAlias = Callable[[], AbstractContextManager[Caller]]
Connect: TypeAlias = Callable[[Setup], AbstractContextManager[OpenCaller]]
Serve: TypeAlias = Callable[..., AbstractContextManager[str]]


class OverBytes:
    """A caller for what carries bytes and nothing else: text is encoded, an array sent as it lies in memory."""

    def call(self, body: bytes) -> Body:
        raise NotImplementedError

    def echo(self, text: str) -> str:
        return str(self.call(text.encode()), "ascii")

    def echo_array(self, array: Array) -> Array:
        return numpy.frombuffer(self.call(array.tobytes()))


class OverMessages(OverBytes):
    """A caller for what sends messages, whose answers come back by their correlation. Any number of threads."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._waiting: dict[bytes, queue.SimpleQueue[Body]] = {}

    def send(self, correlation: bytes, body: bytes) -> None:
        raise NotImplementedError

    def call(self, body: bytes) -> Body:
        correlation = next(self._numbers).to_bytes(8, "big")
        answer: queue.SimpleQueue[Body] = queue.SimpleQueue()
        self._waiting[correlation] = answer
        self.send(correlation, body)
        try:
            return answer.get(timeout=CALL_WITHIN_S)
        except queue.Empty:
            raise TimeoutError(f"no answer within {CALL_WITHIN_S:.0f} s") from None

    def settle(self, correlation: bytes, body: Body) -> None:
        self._waiting.pop(correlation).put(body)


def require(module: str, package: str) -> None:
    """`Skipped` where a package is not installed."""
    if importlib.util.find_spec(module) is None:
        raise Skipped(f"not installed: pip install {package}")


# -- processes


@contextmanager
def process(script: str, *arguments: str) -> Iterator[Conversation]:
    """A script of this folder as a process; at the end its stdin is closed, and it has a while to end by itself."""
    command = [sys.executable, str(Path(__file__).with_name(script)), *arguments]
    started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Conversation(started)
    finally:
        assert started.stdin is not None
        assert started.stdout is not None
        try:
            started.stdin.close()
        except BrokenPipeError:  # it ended with a line unread
            pass
        try:
            started.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()
        started.stdout.close()


class Conversation:
    """Lines to a process and back."""

    def __init__(self, started: subprocess.Popen[str]) -> None:
        self._started = started

    def ask(self, question: dict[str, Any], within_s: float) -> dict[str, Any]:
        """Its answer; a process that owes one for too long is killed."""
        assert self._started.stdin is not None
        assert self._started.stdout is not None
        watchdog = threading.Timer(within_s, self._started.kill)
        watchdog.start()
        try:
            say(self._started.stdin, question)
            line = self._started.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            watchdog.cancel()
        return dict(json.loads(line)) if line else {"failed": f"the process ended, or was silent for {within_s:.0f} s"}


def say(stream: IO[str], what: dict[str, Any]) -> None:
    stream.write(json.dumps(what) + "\n")
    stream.flush()


@contextmanager
def server(setup: Setup, role: str = "serve", *arguments: str) -> Iterator[str]:
    """Another role of the same script; gives the address that it reports."""
    with process(setup.script, role, *arguments) as other:
        said = other.ask(asdict(setup), START_WITHIN_S)
        if "address" not in said:
            raise RuntimeError(f"{setup.script} {role}: {said.get('failed')}")
        yield said["address"]


def main(connect: Connect, **roles: Serve) -> None:
    """The main program of every way: a caller, or with an argument one of the other roles."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints must not be taken for an answer
    setup = Setup(**json.loads(sys.stdin.readline()))
    try:
        if sys.argv[1:]:
            with roles[sys.argv[1]](setup, *sys.argv[2:]) as address:
                say(answers, {"address": address})
                sys.stdin.read()
        else:
            _take_orders(connect, setup, answers)
    except Skipped as reason:
        say(answers, {"skipped": str(reason)})
    except Exception as error:  # noqa: BLE001 (main: whatever it is becomes a row of the table)
        traceback.print_exc()
        say(answers, {"failed": f"{type(error).__name__}: {error}"})


def _take_orders(connect: Connect, setup: Setup, answers: IO[str]) -> None:
    with connect(setup) as open_caller:
        say(answers, {"ready": True})
        for line in sys.stdin:
            order = json.loads(line)
            if order["callers"]:
                say(answers, calls(open_caller, order["callers"], order["count"]))
            else:
                say(answers, arrays(open_caller, order["count"]))


# -- measuring


def calls(open_caller: OpenCaller, callers: int, count: int) -> dict[str, float]:
    """Microseconds of one call, and calls per second of all callers together; one thread for each caller."""
    together = threading.Barrier(callers)
    with ThreadPoolExecutor(callers) as threads:
        running = [threads.submit(_one_caller, open_caller, n, count // callers, together) for n in range(callers)]
    spans = [span for one in _results(running) for span in one]
    took_us = sorted((ended - begun) / 1e3 for begun, ended in spans)
    seconds = (max(ended for _, ended in spans) - min(begun for begun, _ in spans)) / 1e9
    return {
        "p50_us": took_us[len(took_us) // 2],
        "p99_us": took_us[int(len(took_us) * 0.99)],
        "rate": len(spans) / seconds,
    }


def _one_caller(open_caller: OpenCaller, number: int, count: int, together: threading.Barrier) -> list[tuple[int, int]]:
    """Beginning and end of each call, in nanoseconds."""
    spans: list[tuple[int, int]] = []
    try:
        with open_caller() as caller:
            for _ in range(WARM_UP_CALLS):
                caller.echo("warm-up")
            together.wait(START_WITHIN_S)
            latest = time.perf_counter_ns() + SLICE_S * 1e9
            for index in range(count):
                text = f"{number:032}{index:032}"
                begun = time.perf_counter_ns()
                answer = caller.echo(text)
                ended = time.perf_counter_ns()
                if answer != text:
                    raise ValueError(f"a wrong answer: {answer!r} instead of {text!r}")
                spans.append((begun, ended))
                if ended > latest:
                    break
    except BaseException:
        together.abort()
        raise
    return spans


def _results(running: list[Future[list[tuple[int, int]]]]) -> list[list[tuple[int, int]]]:
    errors = [error for one in running if (error := one.exception()) is not None]
    for error in errors:
        if not isinstance(error, threading.BrokenBarrierError):
            raise error
    return [one.result() for one in running]


def arrays(open_caller: OpenCaller, count: int) -> dict[str, float]:
    """Milliseconds for an array to be sent and returned."""
    took_ms: list[float] = []
    latest = time.perf_counter() + SLICE_S
    with open_caller() as caller:
        for index in range(-2, count):  # two to warm up
            array = numpy.arange(ARRAY_ITEMS, dtype=numpy.float64) + index
            begun = time.perf_counter()
            answer = caller.echo_array(array)
            ended = time.perf_counter()
            if not numpy.array_equal(answer, array):
                raise ValueError("another array came back")
            if index >= 0:
                took_ms.append((ended - begun) * 1e3)
            if took_ms and ended > latest:
                break
    return {"p50_ms": sorted(took_ms)[len(took_ms) // 2]}
