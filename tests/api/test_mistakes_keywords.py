"""Keywords that are misspelt, or are those of other tools; arguments that were not given; values that cannot travel."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mistake_parts import Camera

from ether import Ether, ether_every, ether_get, ether_init, ether_pub, ether_sub, ether_sync
from ether.errors import EncodeError, EtherError, ValidationFailed, WrongCall
from ether.errors.keywords import OTHER_WORDS, named_keywords, nearest_keyword
from ether.runs.run import Run
from ether.session.client import Subscription
from ether.testing import Lab

ETHER = Ether()
CAMERA = {"cam": {"class_path": "mistake_parts.Camera"}}
CALLS: list[tuple[Callable[..., object], str]] = [
    (lambda: ETHER.get("cam", "snap", timout_s=0.3), "ether.get() takes no 'timout_s'. Did you mean 'timeout_s'? It is"
     " ether.get(service, method, params=None, timeout_s=None)"),
    (lambda: ETHER.get("cam", "snap", timeout=0.3), "takes no 'timeout'. Did you mean 'timeout_s'?"),
    (lambda: ETHER.get("cam", "snap", args=[3]), "Did you mean 'params'?"),
    (lambda: ETHER.get("cam"), "ether.get() does not fit: lacks the argument 'method'. It is"),
    (lambda: ETHER.get("cam", "snap", 1, 2, 3), "ether.get() does not fit: too many positional arguments. It is"),
    (lambda: ETHER.save("cam", "store", deadline=2), "Did you mean 'timeout_s'?"),
    (lambda: ETHER.pub(payload=3), "ether.pub() takes no 'payload'. Did you mean 'data'?"),
    (lambda: ETHER.pub(3, channel="x"), "Did you mean 'topic'?"),
    (lambda: ETHER.pub(3, tpoic="x"), "Did you mean 'topic'?"),
    (lambda: ETHER.tap(yaml="x"), "Did you mean 'config'?"),
    (lambda: ETHER.tap(host="pc"), "Did you mean 'broker'?"),
    (lambda: ETHER.tap(timeout=0.3), "Did you mean 'timeout_s'?"),
    (lambda: ETHER.subscribe("x", queue_size=1), "Did you mean 'keep'?"),
    (lambda: ETHER.wait_for("x", predicate=bool), "Did you mean 'condition'?"),
    (lambda: ETHER.data(start=3), "Did you mean 'since'?"),
    (lambda: ETHER.host(object()), "ether.host() does not fit: lacks the argument 'name'."),
    (lambda: ETHER.add("x", {}, timeout=0.1), "Did you mean 'timeout_s'?"),
    (lambda: ETHER.check_device(), "ether.check_device() does not fit: lacks the argument 'device'."),
    (lambda: ether_sub(topc="x"), "@ether_sub() takes no 'topc'. Did you mean 'topic'? It is"
     " @ether_sub(topic=None, qos=1, keep=None, max_age=None)"),
    (lambda: ether_sub(maxsize=1), "Did you mean 'keep'?"),
    (lambda: ether_pub(interval="1s"), "Did you mean 'every'?"),
    (lambda: ether_get(workers=3), "Did you mean 'concurrency'?"),
    (lambda: ether_get(timeout=0.3), "@ether_get() takes no 'timeout'. It is @ether_get(concurrency=None, takes=None)"),
    (lambda: ether_init(topic="x"), "@ether_init() takes no 'topic'. It is @ether_init()"),
    (lambda: ether_every(interval="1s"), "@ether_every() takes no 'interval'. It is @ether_every(when)"),
    (lambda: ether_sync(name="x"), "Did you mean 'topic'?"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "said"), CALLS, ids=range(len(CALLS)))
def test_a_call_that_does_not_fit_names_the_nearest_keyword(call: Callable[[], object], said: str) -> None:
    with pytest.raises(TypeError) as caught:
        call()
    assert isinstance(caught.value, WrongCall)
    assert isinstance(caught.value, EtherError)
    assert said in str(caught.value), str(caught.value)


def test_other_words_are_no_keywords_of_the_same_function() -> None:
    for cls in (Ether, Run, Subscription):
        for name in dir(cls):
            found = inspect.getattr_static(cls, name)
            if name.startswith("_") or not inspect.isfunction(found):
                continue
            known = [p for p in inspect.signature(found).parameters if p != "self"]
            for word in known:
                assert nearest_keyword(word, known) == word, (name, word)
    assert all(word not in words for word, words in OTHER_WORDS.items())


def test_a_type_error_from_within_is_left_as_it_is() -> None:
    @named_keywords("mine")
    class Mine:
        def call(self, function: Callable[..., object]) -> object:
            return function()

        @staticmethod
        def plain(one: int) -> int:
            return one

        async def later(self, one: int) -> int:
            return one

    def inner(one: int) -> None: ...

    with pytest.raises(TypeError) as caught:
        Mine().call(inner)
    assert not isinstance(caught.value, WrongCall)
    assert Mine.plain(one=3) == 3
    assert inspect.iscoroutinefunction(Mine().later)
    assert inspect.signature(Mine().later).parameters.keys() == {"one"}
    assert Ether.get.__doc__ is not None


@pytest.fixture(scope="module")
def lab() -> Iterator[Ether]:
    with Ether() as own:
        own.tap()
        own.host(Camera(), "cam")
        yield own


@pytest.mark.parametrize("params", [None, {}, {"gain": 2}])
def test_an_argument_that_was_not_given(lab: Ether, params: object) -> None:
    """It said "Input should be a valid number (given: None)", and nothing was given."""
    with pytest.raises(ValidationFailed) as caught:
        lab.get("cam", "snap", params)
    assert str(caught.value) == (
        "cam.snap does not accept this payload: exposure: a value is required (given: nothing)"
    )


def test_an_argument_that_may_be_none() -> None:
    class Takes:
        @ether_sub(topic="in")
        def take(self, number: int | None) -> None:
            self.got = number

    takes = Takes()
    with Lab(objects={"one": takes}) as own:
        own.pub(None, topic="in")
    assert takes.got is None


def test_which_value_cannot_travel(lab: Ether) -> None:
    with pytest.raises(EncodeError, match=r"^cannot send the message on 'image', at a\[1\]: an object"):
        lab.pub({"a": [1, object()]}, topic="image")
    with pytest.raises(EncodeError, match=r"^cannot send the message on 'image': an object"):
        lab.pub(object(), topic="image")


def test_which_record_cannot_travel(tmp_path: Path) -> None:
    with Ether() as own:
        own.tap({"instances": CAMERA, "record": {"topics": "all", "folder": str(tmp_path)}})
        with pytest.raises(EncodeError, match=r"^cannot send the record 'dose': an object"):
            own.record(object(), "dose")
        with pytest.raises(EncodeError, match=r"^cannot send the message on 'image', at x: an object"):
            own.pub({"x": object()}, topic="image")


def test_which_argument_of_a_call_cannot_travel(lab: Ether) -> None:
    with Ether() as other:
        other.tap(session=lab.session_id)
        for call in (other.get, other.save):
            with pytest.raises(EncodeError) as caught:
                call("cam", "snap" if call == other.get else "store", {"exposure": object()})
            method = "snap" if call == other.get else "store"
            assert str(caught.value).startswith(f"cannot send the arguments of cam.{method}, at exposure: an object")


def test_what_a_method_publishes_and_cannot_travel(caplog: pytest.LogCaptureFixture) -> None:
    class Source:
        @ether_sub(topic="in")
        @ether_pub(topic="out")
        def make(self) -> object:
            return {"x": object()}

    with Lab(objects={"one": Source()}, collect_failures=True) as own:
        own.pub(None, topic="in")
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert (
        "cannot send what Source publishes on 'out', at x: an object of type object cannot travel"
        in record.getMessage()
    )


def test_a_keyword_of_a_run_that_became_metadata(lab: Ether, caplog: pytest.LogCaptureFixture) -> None:
    lab.run("dose", resme=True, compound="A")
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert record.getMessage() == "ether.run(): resme= is recorded as metadata of run 'dose'. Did you mean resume=?"
