"""The lab that users test their pipelines in: deterministic, in one process, the real parts."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ether import (
    ether,
    ether_cleanup,
    ether_get,
    ether_init,
    ether_pub,
    ether_save,
    ether_save_all,
    ether_shutdown,
    ether_start,
    ether_sub,
)
from ether.errors import EncodeError, NoResponder, NotJoined, ValidationFailed
from ether.testing import Lab, LabNeverRests

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


class Generator:
    @ether_start()
    @ether_pub(topic="data")
    def generate(self, data: int = 42) -> dict[str, int]:
        return {"data": data}


class Processor:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    @ether_sub(topic="data")
    @ether_pub(topic="result")
    def process(self, data: int) -> int:
        return data * self.factor


class Steps:
    def __init__(self) -> None:
        self.steps: list[str] = []

    @ether_init
    def init(self) -> None:
        self.steps.append("init")

    @ether_save_all
    def save(self) -> None:
        self.steps.append("save_all")

    @ether_cleanup
    def clean(self) -> None:
        self.steps.append("cleanup")

    @ether_shutdown
    def end(self) -> None:
        self.steps.append("shutdown")


@pytest.mark.parametrize("example", ["dual_processors", "external_classes"])
def test_the_examples_run_in_a_lab(
    example: str, ether_lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES / example))
    lab = ether_lab(EXAMPLES / example / "pipeline.yaml")
    lab.start()
    assert [result["value"] for result in lab.values("result")] == [84, 168]
    assert capsys.readouterr().out.splitlines()[-1] == "Summary of 2 - mean: 126.0, max: 168.0, min: 84.0"
    assert list(lab) == ["generator", "processor1", "processor2", "collector"]
    sys.modules.pop(example, None)


def test_order_sources_and_causes_are_the_same_every_time() -> None:
    def once() -> list[Any]:
        with Lab(objects={"g": Generator(), "p2": Processor(2), "p4": Processor(4)}) as lab:
            lab.start()
            messages = lab.messages()
            ids = {message.id: index for index, message in enumerate(messages)}
            return [(m.topic, m.value, m.source, [ids[p] for p in m.parents]) for m in messages]

    first = once()
    assert first == [
        ("start", None, "main", []),
        ("data", {"data": 42}, "g", [0]),
        ("result", 84, "p2", [1]),
        ("result", 168, "p4", [1]),
    ]
    assert [once() for _ in range(20)] == [first] * 20


def test_the_lab_gives_objects_back_as_they_were() -> None:
    generator = Generator()
    with Lab(objects={"g": generator}) as lab:
        generator.generate(7)
        lab.settle()
        assert lab.values("data") == [{"data": 7}]
        assert lab["g"] is generator
    assert vars(generator) == {}
    with pytest.raises(NotJoined):
        ether.pub(1)


def test_a_failing_handler_raises_in_the_test_or_is_collected() -> None:
    with Lab(objects={"p": Processor(2)}) as lab:
        with pytest.raises(ValidationFailed, match="data"):
            lab.pub({"data": "x"}, topic="data")
        lab.pub({"data": 1}, topic="data")
        assert lab.values("result") == [2]
    with Lab(objects={"p": Processor(2)}, collect_failures=True) as lab:
        lab.pub({"data": "x"}, topic="data")
        assert [type(failure) for failure in lab.failures] == [ValidationFailed]


def test_what_cannot_be_sent_raises_at_the_call() -> None:
    with Lab() as lab, pytest.raises(EncodeError):
        lab.pub(object())


def test_a_method_that_causes_itself_is_stopped() -> None:
    class Loop:
        @ether_sub(topic="round")
        @ether_pub(topic="round")
        def again(self, n: int) -> dict[str, int]:
            return {"n": n + 1}

    with Lab(objects={"loop": Loop()}, limit=500) as lab, pytest.raises(LabNeverRests, match="round"):
        lab.pub({"n": 0}, topic="round")


def test_lifecycle_in_order() -> None:
    steps = Steps()
    lab = Lab(objects={"s": steps})
    assert lab.save_all() == {"s": ["save"]}
    assert lab.cleanup() == {"s": ["clean"]}
    lab.shutdown()
    assert steps.steps == ["init", "save_all", "cleanup", "save_all", "cleanup", "shutdown"]


def test_ether_pub_inside_a_handler_comes_from_its_instance() -> None:
    class Sayer:
        @ether_sub(topic="say")
        def say(self) -> None:
            ether.pub("hello", topic="said")

    with Lab(objects={"sayer": Sayer()}) as lab:
        lab.pub(topic="say")
        (said,) = lab.messages("said")
        assert (said.source, said.value) == ("sayer", "hello")
        assert said.parents == (lab.messages("say")[0].id,)


def test_objects_with_threads_publish_when_the_test_settles() -> None:
    generator = Generator()
    with Lab(objects={"g": generator, "p": Processor(3)}) as lab:
        threads = [threading.Thread(target=generator.generate, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        lab.settle()
        assert sorted(lab.values("result")) == [3 * n for n in range(8)]


def test_wildcards_shared_topics_and_several_subscriptions() -> None:
    class Listener:
        def __init__(self) -> None:
            self.heard: list[Any] = []

        @ether_sub(topic="a/+")
        @ether_sub(topic="a/b")
        def either(self, root: Any) -> None:
            self.heard.append(("either", root))

        @ether_sub(topic="#")
        def everything(self, root: Any) -> None:
            self.heard.append(("everything", root))

    with Lab(objects={"l": Listener()}) as lab:
        lab.pub(1, topic="a/b")
        lab.pub(2, topic="c")
        assert lab["l"].heard == [("either", 1), ("everything", 1), ("everything", 2)]


def test_a_class_that_the_registry_lists_stays_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES / "external_classes"))
    import external_classes

    before = {name: dict(vars(value)) for name, value in vars(external_classes.Processor).items() if callable(value)}
    with Lab(EXAMPLES / "external_classes" / "pipeline.yaml") as lab:
        lab.start()
        other = external_classes.Processor("other", 3)
        assert other.process(1) == {"result_name": "other", "value": 3}
        assert len(lab.messages("result")) == 2
    after = {name: dict(vars(value)) for name, value in vars(external_classes.Processor).items() if callable(value)}
    assert after == before
    del sys.modules["external_classes"]


class Asked:
    @ether_get
    def double(self, x: int) -> int:
        return 2 * x

    @ether_save
    def put(self, x: int) -> None:
        raise ValueError("full")

    @ether_get
    def back(self, n: int) -> list[int]:
        return [n, *(ether.get("Asking", "there", {"n": n - 1}) if n else [])]


class Asking:
    @ether_get
    def there(self, n: int) -> list[int]:
        return [n, *(ether.get("asked", "back", {"n": n - 1}) if n else [])]

    @ether_sub(topic="go")
    def go(self) -> None:
        ether.pub(ether.get("Asked", "double", {"x": 21}), topic="gone")


def test_calls_in_a_lab_are_direct_and_checked() -> None:
    with Lab(objects={"asked": Asked(), "asking": Asking()}) as lab:
        assert ether.get("asked", "double", {"x": "4"}) == 8
        assert ether.instance("asked").double(3) == 6
        with pytest.raises(ValidationFailed):
            ether.get("asked", "double", {"x": "four"})
        assert ether.save("asked", "put", {"x": 1})["message"] == "full"
        assert ether.get("asked", "back", {"n": 4}) == [4, 3, 2, 1, 0]
        lab.pub(topic="go")
        assert lab.values("gone") == [42]
        with pytest.raises(NoResponder, match="asked"):
            ether.get("askd", "double")
