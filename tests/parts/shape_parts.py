"""Classes of thirty shapes, each with the same three methods: `run(how)`, which is called, `hear(how)`, which hears
`do/<its name>`, and `count()`, how often it has heard. `HOW` are the ways to raise or to leave, and what a caller is
told of each; `EXPECTED_ELSE` where the shape makes it another one."""

from __future__ import annotations

import abc
import asyncio
import dataclasses
import functools
import os
import subprocess
import sys
import threading
import typing
from collections import Counter, UserDict, deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel
from wreck_parts import PanicException, Unspeakable

from ether import ether_get, ether_pub, ether_sub

if TYPE_CHECKING:
    from decimal import Decimal

T = TypeVar("T")
COUNTS: Counter[str] = Counter()

EXITED = "called sys.exit({}); an instance ends by ether.shutdown() in the main program"

HOW: dict[str, tuple[str, Any]] = {
    # how it leaves: the class and the text that its caller is told; "" and the value where it returns
    "returns": ("", "well"),
    "raises": ("ValueError", "no such pump"),
    "raises a lookup": ("KeyError", "'pump'"),
    "raises its own": ("PumpError", "dry"),
    "raises a chain": ("RuntimeError", "outer"),
    "raises the unspeakable": ("Unspeakable", "(an exception whose text cannot be shown)"),
    "asserts": ("AssertionError", "must hold"),
    "exits": ("SystemExit", EXITED.format("None")),
    "exits with a code": ("SystemExit", EXITED.format("3")),
    "exits with a text": ("SystemExit", EXITED.format("'no licence'")),
    "interrupts": ("KeyboardInterrupt", "by hand"),
    "closes": ("GeneratorExit", "by hand"),
    "panics": ("PanicException", "index out of bounds"),
    "cancels": ("CancelledError", "by hand"),
    "stops": ("StopIteration", "by hand"),
    "stops later": ("StopAsyncIteration", "by hand"),
    "raises a group": ("ExceptionGroup", "several (1 sub-exception)"),
    "panics in a group": ("BaseExceptionGroup", "several (1 sub-exception)"),
    "recurses": ("RecursionError", "maximum recursion depth exceeded"),
    "fills the memory": ("MemoryError", "by hand"),
    "returns what cannot travel": ("EncodeError", "an object of type shape_parts.PumpError cannot travel"),
    "starts what fails": ("CalledProcessError", "Command '['false']' returned non-zero exit status 1."),
    "starts a thread that raises": ("", "joined"),
    "forks": ("", 3),
}
_COROUTINE = {
    "stops": ("RuntimeError", "coroutine raised StopIteration"),
    "cancels": ("CancelledError", ""),
}
_GENERATOR = {
    "stops": ("RuntimeError", "generator raised StopIteration"),
    "returns": ("", ["well"]),
    "starts a thread that raises": ("", ["joined"]),
    "forks": ("", [3]),
}
_ASYNC_GENERATOR = _GENERATOR | {
    "stops": ("RuntimeError", "async generator raised StopIteration"),
    "stops later": ("RuntimeError", "async generator raised StopAsyncIteration"),
    "cancels": ("CancelledError", ""),
}
EXPECTED_ELSE = {"Coroutine": _COROUTINE, "Generating": _GENERATOR, "GeneratingLater": _ASYNC_GENERATOR}


class PumpError(Exception):
    """An exception of the class's own; also the object that cannot travel."""


def do(how: str) -> Any:
    """Leave in this way."""
    match how:
        case "returns":
            return "well"
        case "raises":
            raise ValueError("no such pump")
        case "raises a lookup":
            raise KeyError("pump")
        case "raises its own":
            raise PumpError("dry")
        case "raises a chain":
            raise RuntimeError("outer") from ValueError("inner")
        case "raises the unspeakable":
            raise Unspeakable
        case "asserts":
            raise AssertionError("must hold")
        case "raises a group":
            raise ExceptionGroup("several", [ValueError("one")])
        case "panics in a group":
            raise BaseExceptionGroup("several", [PanicException("one")])
        case "recurses":
            return do(how)
        case "returns what cannot travel":
            return PumpError("a value")
    return _leave(how)


_BY_HAND = {
    "interrupts": KeyboardInterrupt, "closes": GeneratorExit, "cancels": asyncio.CancelledError, "stops": StopIteration,
    "stops later": StopAsyncIteration, "fills the memory": MemoryError,
}  # fmt: skip


def _leave(how: str) -> Any:
    match how:
        case "exits":
            sys.exit()
        case "exits with a code":
            sys.exit(3)
        case "exits with a text":
            sys.exit("no licence")
        case "panics":
            raise PanicException("index out of bounds")
        case "starts what fails":
            subprocess.run(["false"], check=True)
        case "starts a thread that raises":
            thread = threading.Thread(target=sys.exit, args=("in a thread",))
            thread.start()
            thread.join()
            return "joined"
        case "forks":
            if (child := os.fork()) == 0:
                sys.exit(3)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    raise _BY_HAND[how]("by hand")


def methods(name: str, **other: Any) -> dict[str, Any]:
    """The three methods of a class of this name; `other` in their places."""

    def run(self: Any, how: str) -> Any:
        return do(how)

    def hear(self: Any, how: str) -> Any:
        COUNTS[name] += 1
        do(how)

    def count(self: Any) -> int:
        return COUNTS[name]

    made = {"run": ether_get(run), "hear": ether_sub(topic=f"do/{name}")(hear), "count": ether_get(count)}
    return {**made, **other, "__module__": __name__}


def _shape(name: str, *bases: type, **other: Any) -> type:
    return type(name, bases, methods(name, **other))


# -- the shapes

Plain = _shape("Plain")
Slotted = _shape("Slotted", __slots__=())
Inheriting = type("Inheriting", (_shape("Inheriting"),), {"__module__": __name__})
Mixed = type("Mixed", (UserDict, _shape("Mixed")), {"__module__": __name__})
OfDict = _shape("OfDict", dict)
OfList = _shape("OfList", list)
OfDeque = _shape("OfDeque", deque)
OfTuple = type("OfTuple", (NamedTuple("OfTuple", [("size", int)]),), methods("OfTuple"))
OfInt = _shape("OfInt", int)
OfError = _shape("OfError", Exception)
OfThread = _shape("OfThread", threading.Thread)
OfGeneric = type("OfGeneric", (_shape("OfGeneric"),), {"__module__": __name__, "of": typing.List[int]})  # noqa: UP006
Dataclass = dataclasses.dataclass(type("Dataclass", (), {**methods("Dataclass"), "__annotations__": {}}))
Frozen = dataclasses.dataclass(frozen=True)(type("Frozen", (), {**methods("Frozen"), "__annotations__": {}}))
Static = _shape("Static", run=ether_get(staticmethod(lambda how: do(how))))
OfClass = _shape("OfClass", run=ether_get(classmethod(lambda cls, how: do(how))))
Publishing = _shape("Publishing", run=ether_get(ether_pub(topic="done/Publishing")(lambda self, how: do(how))))
Beside = _shape("Beside", run=ether_get(concurrency=2)(lambda self, how: do(how)))
Open = _shape("Open", run=ether_get(lambda *args, **kwargs: do(kwargs["how"])))
Deleted = _shape("Deleted", __del__=lambda self: None)


class Model(BaseModel):
    """A pydantic model."""

    size: int = 3
    run, hear, count = (methods("Model")[name] for name in ("run", "hear", "count"))


class Abstract(abc.ABC):
    """Its methods are those of an interface."""

    @abc.abstractmethod
    def run(self, how: str) -> Any: ...


class Concrete(Abstract):
    """The class of an interface."""

    run, hear, count = (methods("Concrete")[name] for name in ("run", "hear", "count"))


class Parametrized(Generic[T]):
    """A generic class, with a hint that is its parameter."""

    @ether_get
    def run(self, how: T) -> T:
        return do(str(how))  # type: ignore[no-any-return]

    hear, count = (methods("Parametrized")[name] for name in ("hear", "count"))


class Interface(Protocol):
    """A protocol, which is a hint here."""

    def act(self) -> None: ...


class Hinted:
    """Hints that mean nothing at run time."""

    @ether_get
    def run(self, how: str, by: Interface | None = None, size: Decimal = 3) -> Any:  # type: ignore[assignment]
        return do(how)

    hear, count = (methods("Hinted")[name] for name in ("hear", "count"))


class Meta(type):
    """A metaclass that has a say in making objects."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)


class Made(metaclass=Meta):
    """The class of a metaclass."""

    run, hear, count = (methods("Made")[name] for name in ("run", "hear", "count"))


class Answering:
    """Has any attribute that it is asked for."""

    run, hear, count = (methods("Answering")[name] for name in ("run", "hear", "count"))

    def __getattr__(self, name: str) -> Callable[..., str]:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: name


def _wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


class Wrapped:
    """Its method has a decorator of somebody else's above its own."""

    @_wrapped
    @ether_get
    def run(self, how: str) -> Any:
        return do(how)

    hear, count = (methods("Wrapped")[name] for name in ("hear", "count"))


class Coroutine:
    """Its methods are coroutines."""

    @ether_get
    async def run(self, how: str) -> Any:
        await asyncio.sleep(0)
        return do(how)

    @ether_sub(topic="do/Coroutine")
    async def hear(self, how: str) -> None:
        COUNTS["Coroutine"] += 1
        do(how)

    count = methods("Coroutine")["count"]


class Generating:
    """Its method yields."""

    @ether_get
    def run(self, how: str) -> Iterator[Any]:
        yield do(how)

    hear, count = (methods("Generating")[name] for name in ("hear", "count"))


class GeneratingLater:
    """Its method yields, and is a coroutine."""

    @ether_get
    async def run(self, how: str) -> AsyncIterator[Any]:
        yield do(how)

    hear, count = (methods("GeneratingLater")[name] for name in ("hear", "count"))


class Undecorated:
    """Nothing of Ether: the registry marks it."""

    def run(self, how: str) -> int:
        return do(how)  # type: ignore[no-any-return]  # a wrong hint, which nobody here can mend

    def hear(self, how: str) -> None:
        COUNTS["Undecorated"] += 1
        do(how)

    def count(self) -> int:
        return COUNTS["Undecorated"]


SHAPES: dict[str, tuple[Any, ...]] = {
    "Plain": (), "Slotted": (), "Inheriting": (), "Mixed": (), "OfDict": (), "OfList": (), "OfDeque": (),
    "OfTuple": (3,), "OfInt": (3,), "OfError": ("text",), "OfThread": (), "OfGeneric": (), "Dataclass": (),
    "Frozen": (), "Static": (), "OfClass": (), "Publishing": (), "Beside": (), "Open": (), "Deleted": (),
    "Undecorated": (), "Model": (), "Concrete": (), "Parametrized": (), "Hinted": (), "Made": (), "Answering": (),
    "Wrapped": (), "Coroutine": (), "Generating": (), "GeneratingLater": (),
}  # fmt: skip
"""Each shape, with the arguments of its constructor."""

REGISTRY: dict[str, Any] = {
    "shape_parts.Undecorated": {
        "methods": {
            "run": {"ether_get": {}},
            "hear": {"ether_sub": {"topic": "do/Undecorated"}},
            "count": {"ether_get": {}},
        }
    }
}


def expected(shape: str, how: str) -> tuple[str, Any]:
    """What a caller is told."""
    return EXPECTED_ELSE.get(shape, {}).get(how, HOW[how])
