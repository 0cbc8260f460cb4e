"""Proxies: made of plain data alone, and to a notebook the remote object itself."""

from __future__ import annotations

import asyncio
import copy
import inspect
import json
import pydoc
from typing import Any

import pytest

from ether.calls.proxy import Proxy, make_proxy
from ether.spec.descriptions import MethodDescription, describe_method


class Camera:
    """A camera."""

    def snap(self, exposure: float, *, gain: int = 1) -> dict[str, float]:
        """Take a picture.

        And return it.
        """
        raise NotImplementedError

    def close(self) -> None: ...

    def rest(self, a: int, /, **others: Any) -> None: ...

    def several(self, first: int, *more: int) -> None: ...

    def named_self(self, mode: str = "x", sizes: tuple[int, int] = (1, 2)) -> None: ...


def received(cls: type, *names: str) -> dict[str, MethodDescription]:
    """Descriptions as they come out of an announcement."""
    found = {}
    for name in names:
        said = MethodDescription.from_value(json.loads(json.dumps(describe_method(cls, name).to_value())))
        assert said is not None
        found[name] = said
    return found


NAMES = ("snap", "close", "rest", "several", "named_self")


@pytest.fixture
def sent() -> list[tuple[str, dict[str, Any]]]:
    return []


@pytest.fixture
def camera(sent: list[tuple[str, dict[str, Any]]]) -> Any:
    def call(method: str, params: dict[str, Any]) -> str:
        sent.append((method, params))
        return "answer"

    return make_proxy(call, "camera1", "Camera", "A camera.", received(Camera, *NAMES), state=lambda: "on pi, ready")


def test_a_call_travels_by_name(camera: Any, sent: list[Any]) -> None:
    assert camera.snap(0.1, gain=2) == "answer"
    camera.snap(exposure=0.2)
    camera.close()
    camera.rest(1, b=2, c=3)
    camera.several(1)
    assert sent == [
        ("snap", {"exposure": 0.1, "gain": 2}),
        ("snap", {"exposure": 0.2}),
        ("close", {}),
        ("rest", {"a": 1, "b": 2, "c": 3}),
        ("several", {"first": 1}),
    ]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda camera: camera.snap(), "missing a required argument: 'exposure'"),
        (lambda camera: camera.snap(1, 2), "too many positional arguments"),
        (lambda camera: camera.snap(1, gian=2), "unexpected keyword argument 'gian'"),
        (lambda camera: camera.snap(1, exposure=2), "multiple values for argument 'exposure'"),
        (lambda camera: camera.rest(a=1), "'a'"),
        (lambda camera: camera.several(1, 2), r"\*more have none"),
        (lambda camera: camera.rest(1, a=2), "'a'"),
    ],
)
def test_a_wrong_call_is_refused_before_anything_is_sent(camera: Any, sent: list[Any], wrong: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words) as caught:
        wrong(camera)
    assert "Its signature is " in str(caught.value)
    assert str(caught.value).startswith("Camera.")
    assert sent == []


def test_what_the_call_raises_is_not_touched() -> None:
    def call(method: str, params: dict[str, Any]) -> None:
        raise TypeError("from there")

    proxy: Any = make_proxy(call, "camera1", "Camera", "", received(Camera, "close"))
    with pytest.raises(TypeError, match=r"^from there$"):
        proxy.close()


def test_it_looks_like_the_remote_methods(camera: Any) -> None:
    assert camera.snap.__name__ == "snap"
    assert camera.snap.__qualname__ == "Camera.snap"
    assert camera.snap.__doc__ == "Take a picture.\n\nAnd return it."
    signature = inspect.signature(camera.snap)
    assert str(signature) == "(exposure: float, *, gain: int = 1) -> dict[str, float]"
    assert signature == inspect.signature(camera.snap)
    assert isinstance(signature.parameters["exposure"].annotation, str)
    assert signature.parameters["exposure"].annotation == "float"
    assert signature.parameters["gain"].default == 1
    assert camera.snap.__annotations__["return"] == "dict[str, float]"
    assert str(inspect.signature(camera.named_self)) == "(mode: str = 'x', sizes: tuple[int, int] = (1, 2)) -> None"


def test_help_and_completion(camera: Any) -> None:
    page = pydoc.plain(pydoc.render_doc(camera))
    assert "A camera." in page
    assert "snap(exposure: float, *, gain: int = 1) -> dict[str, float]" in page
    assert "Take a picture." in page
    assert "snap(exposure: float" in pydoc.plain(pydoc.render_doc(camera.snap))
    assert dir(camera) == sorted(NAMES)
    assert all(callable(getattr(camera, name)) for name in dir(camera))


def test_a_name_that_it_does_not_have(camera: Any) -> None:
    with pytest.raises(AttributeError, match=r"camera1 \(Camera\) has no method 'snp'.*Did you mean 'snap'\?"):
        camera.snp()
    with pytest.raises(AttributeError, match="It has snap, close"):
        camera.zzzzzz()
    assert not hasattr(camera, "_repr_html_")


def test_it_takes_no_attributes(camera: Any) -> None:
    with pytest.raises(AttributeError):
        camera.snap = 1
    with pytest.raises(AttributeError):
        camera.exposure = 1


def test_how_it_shows_itself() -> None:
    states = iter(["on pi, starting", "on pi, ready"])
    proxy = make_proxy(lambda *_: None, "camera1", "Camera", "", {}, state=lambda: next(states))
    assert repr(proxy) == "<camera1: Camera on pi, starting>"
    assert repr(proxy) == "<camera1: Camera on pi, ready>"
    assert repr(make_proxy(lambda *_: None, "Camera", "Camera", "", {})) == "<Camera>"
    assert isinstance(proxy, Proxy)


def test_names_from_the_network_are_only_names() -> None:
    close = describe_method(Camera, "close")
    names = [
        "close",
        "__init__",
        "__class__",
        "__del__",
        "__getattribute__",
        "a b",
        "class",
        "",
        "_ether_proxy",
        "_own",
    ]
    proxy = make_proxy(lambda *_: 1, "camera1", "Camera); import os", "", dict.fromkeys(names, close))
    assert dir(proxy) == ["_own", "close"]
    assert type(proxy).__name__ == "Remote"
    assert type(proxy).__mro__[1] is Proxy


def test_proxies_do_not_share_their_methods() -> None:
    one: Any = make_proxy(lambda *_: 1, "one", "Camera", "", received(Camera, "close"))
    two: Any = make_proxy(lambda *_: 2, "two", "Camera", "", received(Camera, "close"))
    assert (one.close(), two.close(), copy.copy(one).close()) == (1, 2, 1)


def test_h7f_a_call_that_is_awaited_is_refused_before_it_is_made(
    camera: Any, sent: list[tuple[str, dict[str, Any]]]
) -> None:
    """Python would say "object float can't be used in 'await' expression" when the method has run."""

    async def awaits() -> None:
        with pytest.raises(TypeError, match=r"Camera.snap\(\) waits for the answer itself.*aget.*Nothing was called"):
            await camera.snap(0.1)
        with pytest.raises(TypeError, match="Nothing was called"):
            await camera.snap(exposure=0.1)
        with pytest.raises(TypeError, match="Nothing was called"):
            await camera.snap(*[0.1], gain=2)
        assert sent == []
        answer = camera.snap(0.1)
        assert answer == camera.snap(exposure=0.1) == "answer"
        assert len(sent) == 2

    asyncio.run(awaits())
