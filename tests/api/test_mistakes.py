"""The list of mistakes that people make in a first hour, and what Ether says of each: where, what, what to do.

No mistake is silent. Each is an error of the kind that a caller would catch, or one line in the log; the text names the
place, what was found, and what would be right. What needs other processes stands beside: topics in
`test_mistakes_topics.py`, keywords in `test_mistakes_keywords.py`, sources in `tests/runs/test_source_check.py`, the
command line in `tests/cli`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from mistake_parts import Camera, Thermometer

from ether import Ether, ether_every, ether_get, ether_pub, ether_sub
from ether.config import load_config
from ether.errors.tracebacks import lines_of
from ether.testing import Lab
from ether.utils import get_ether_logger


class Bench(NamedTuple):
    """A session with a camera and a thermometer, and a folder."""

    ether: Ether
    folder: Path

    def yaml(self, text: str) -> object:
        (self.folder / "lab.yaml").write_text(text)
        return load_config(self.folder / "lab.yaml")


class Mistake(NamedTuple):
    """What is done, the kind of the error, and what its text says; where `kind` is None, one warning says it."""

    do: Callable[[Bench], object]
    kind: type[BaseException] | None
    says: tuple[str, ...]


def one(line: str) -> str:
    return f"instances:\n  cam: {{class_path: a.B{line}}}\n"


def refused(options: dict[str, Any]) -> Callable[[Bench], object]:
    return lambda bench: ether_sub(**options)


MISTAKES: dict[str, Mistake] = {
    # -- the configuration
    "a key of an instance": Mistake(
        lambda b: b.yaml("instances:\n  cam:\n    clas_path: a.B\n"), ValueError,
        ("lab.yaml:3: instances.cam.clas_path: unknown key 'clas_path'; valid here: class_path,",
         "Did you mean 'class_path'?")),
    "a key at the top": Mistake(
        lambda b: b.yaml("instnces: {}\n"), ValueError,
        ("lab.yaml:1: instnces: unknown key", "Did you mean 'instances'?")),
    "a tab": Mistake(
        lambda b: b.yaml("instances:\n\tcam: {class_path: a.B}\n"), ValueError,
        ("lab.yaml:2: this is not YAML", "indented with spaces, never with tabs")),
    "an instance named on": Mistake(
        lambda b: b.yaml("instances:\n  cam: {class_path: a.B, autorun: yess}\n"), ValueError,
        ("lab.yaml:2: instances.cam.autorun: found 'yess' (text); expected true or false",)),
    "a key twice": Mistake(
        lambda b: b.yaml("instances:\n  cam: {class_path: a.B}\n  cam: {class_path: a.C}\n"), ValueError,
        ("lab.yaml:3: instances.cam: the key 'cam' is given twice (first on line 2)",)),
    "a list of instances": Mistake(
        lambda b: b.yaml("instances:\n  - class_path: a.B\n"), ValueError,
        ("lab.yaml:1: instances: found a list; expected a mapping",)),
    "arguments as a list": Mistake(
        lambda b: b.yaml(one(", kwargs: [1]")), ValueError,
        ("lab.yaml:2: instances.cam.kwargs: found a list; expected a mapping",)),
    "a class path without a dot": Mistake(
        lambda b: b.yaml("instances:\n  cam: {class_path: Camera}\n"), ValueError,
        ("lab.yaml:2: instances.cam.class_path: found 'Camera'; a class path is written package.module.Class",)),
    "a class path with a colon": Mistake(
        lambda b: b.yaml("instances:\n  cam: {class_path: 'lab:Camera'}\n"), ValueError,
        ("lab.yaml:2:", "Did you mean 'lab.Camera'?")),
    "waiting for nobody": Mistake(
        lambda b: b.yaml(one(", after: cma")), ValueError,
        ("instances.cam.after: there is no instance 'cma' to wait for. Did you mean 'cam'?",)),
    "a file that is not there": Mistake(
        lambda b: (b.yaml(""), load_config(b.folder / "lob.yaml")), ValueError,
        ("lob.yaml: there is no such file (looked in", "Did you mean 'lab.yaml'?")),
    "a program instead of a configuration": Mistake(
        lambda b: ((b.folder / "lab.py").write_text("import x\n"), load_config(b.folder / "lab.py")), ValueError,
        ("lab.py: this is a Python program; a configuration is a YAML file with `instances:`.", "`python ")),
    "the text instead of the path": Mistake(
        lambda b: load_config("instances:\n  cam: {class_path: a.B}\n"), ValueError,
        ("found YAML text where the path of a file is expected; save the text in a file",)),
    "a broker by a misspelt word": Mistake(
        lambda b: Ether().tap(broker="embeded"), ValueError,
        ("broker: found 'embeded': it is not a URL; expected embedded", "Did you mean 'embedded'?")),
    "a misspelt engine": Mistake(
        lambda b: Ether().tap(broker={"engine": "mosquito"}), ValueError,
        ("broker.engine: found 'mosquito'", "Did you mean 'mosquitto'?")),
    "a broker that is not there": Mistake(
        lambda b: Ether().tap(broker="mqtt://127.0.0.1:1", timeout_s=0.5), ConnectionError,
        ("cannot reach a broker at mqtt://127.0.0.1:1: ", "Is it running, and is the address right?")),
    "a session with a slash": Mistake(
        lambda b: Ether().tap(session="a/b"), ValueError,
        ("session: 'a/b' cannot be the name of a session: a name has",)),
    # -- calls
    "a call before tap": Mistake(
        lambda b: Ether().get("cam", "snap"), RuntimeError,
        ("ether.get() needs a running session: call ether.tap() first",)),
    "a second tap": Mistake(
        lambda b: b.ether.tap({"session": "another"}), RuntimeError,
        ("ether.tap() cannot be called here: session", "ether.shutdown() ends it, ether.tap(restart=True) does both")),
    "a misspelt instance": Mistake(
        lambda b: b.ether.get("camm", "snap"), LookupError,
        ("nobody can answer camm.snap: no instance and no class is named 'camm'. There are: cam, ",)),
    "a misspelt instance of a proxy": Mistake(
        lambda b: b.ether.instance("camm"), LookupError, ("'camm'. There are: cam, ",)),
    "a misspelt class of a proxy": Mistake(
        lambda b: b.ether.service("Camra"), LookupError, ("'Camra'. There are: Camera, Thermometer.",)),
    "a misspelt method": Mistake(
        lambda b: b.ether.get("cam", "snp"), LookupError,
        ("nobody can answer cam.snp: Camera has no method 'snp' marked ether_get. There are: snap, ",)),
    "a misspelt method of a proxy": Mistake(
        lambda b: b.ether.instance("cam").snp(), AttributeError,
        ("cam (Camera) has no method 'snp' to call. Did you mean 'snap'?",)),
    "a method without a decorator": Mistake(
        lambda b: b.ether.get("cam", "hidden"), LookupError, ("Camera has no method 'hidden' marked ether_get",)),
    "a call of a method that hears a topic": Mistake(
        lambda b: b.ether.get("cam", "keep_image"), LookupError,
        ("is marked ether_sub, not ether_get: ether.pub(…, topic='image') reaches it",)),
    "a get of a method that saves": Mistake(
        lambda b: b.ether.get("cam", "store", {"number": 1}), LookupError,
        ("is marked ether_save, not ether_get: ether.save('cam', 'store', …) calls it",)),
    "a type that does not fit": Mistake(
        lambda b: b.ether.get("cam", "snap", {"exposure": "long"}), ValueError,
        ("cam.snap does not accept this payload: exposure: Input should be a valid number", "(given: 'long')")),
    "an argument that is missing": Mistake(
        lambda b: b.ether.get("cam", "snap"), ValueError,
        ("cam.snap does not accept this payload: exposure: a value is required (given: nothing)",)),
    "an argument that is misspelt": Mistake(
        lambda b: b.ether.get("cam", "snap", {"exposre": 1}), ValueError,
        ("a value is required; the payload has 'exposre'. Did you mean 'exposure'? (given: nothing)",)),
    "an optional argument that is misspelt": Mistake(
        lambda b: b.ether.get("cam", "snap", {"exposure": 1, "gian": 2}), None,
        ("Camera.snap: the payload has 'gian', which no argument takes. Did you mean 'gain'?",)),
    "too many arguments to a proxy": Mistake(
        lambda b: b.ether.instance("cam").snap(1, 2, 3), TypeError,
        ("Camera.snap(): too many positional arguments. Its signature is snap(exposure: float, gain: int = 1)",)),
    "a misspelt keyword of a proxy": Mistake(
        lambda b: b.ether.instance("cam").snap(1, gian=2), TypeError,
        ("Camera.snap(): got an unexpected keyword argument 'gian'. Did you mean 'gain'? Its signature",)),
    "a method that raises": Mistake(
        lambda b: b.ether.get("cam", "fail"), KeyError,
        ("cam.fail raised KeyError: 'no film'", "mistake_parts.py", "in fail")),
    "a time that is text": Mistake(
        lambda b: b.ether.get("cam", "snap", {"exposure": 1}, timeout_s="3"), TypeError,  # type: ignore[arg-type]
        ("ether.get() takes seconds from 0 as timeout_s, not '3'",)),
    "a time below zero": Mistake(
        lambda b: b.ether.wait_for("image", timeout_s=-1), TypeError,
        ("ether.wait_for() takes seconds from 0 as timeout_s, not -1",)),
    "a misspelt sync topic": Mistake(
        lambda b: b.ether.sync("prepare_trail"), LookupError,
        ("nobody can answer sync 'prepare_trail': no ready instance has a method marked ether_sync for it",
         "There are: prepare_trial")),
    "a call that was collected": Mistake(
        lambda b: b.ether.collect("nope"), KeyError,
        ("no call 'nope' is under way here: it was collected before, or never begun",)),
    "a lease of nobody": Mistake(
        lambda b: b.ether.lease("camm").__enter__(), LookupError, ("there is no instance 'camm'. There are: cam, ",)),
    "a name of another tool": Mistake(
        lambda b: b.ether.publish(1), AttributeError, ("ether has no 'publish'. Did you mean ether.pub?",)),
    "a misspelt name of a function": Mistake(
        lambda b: b.ether.shutdwn(), AttributeError, ("ether has no 'shutdwn'. Did you mean ether.shutdown?",)),
    # -- instances of this program
    "a host of a name twice": Mistake(
        lambda b: b.ether.host(Thermometer(), "cam"), RuntimeError,
        ("the instance name 'cam' is held on", "that is this program: ether.unhost('cam') takes it out")),
    "an instance with a slash": Mistake(
        lambda b: b.ether.host(Camera(), "a/b"), ValueError, ("'a/b' cannot be the name of an instance: a name has",)),
    "an end of nobody": Mistake(
        lambda b: b.ether.remove("camm"), KeyError, ("this program runs no instance 'camm'. There are: none.",)),
    "a restart of nobody": Mistake(
        lambda b: b.ether.restart("camm"), KeyError, ("this program runs no instance 'camm'.",)),
    "a restart of an object": Mistake(
        lambda b: b.ether.restart("cam"), KeyError,
        ("'cam' is an object that this program hosts: ether.unhost('cam')",)),
    "an unhost of nobody": Mistake(
        lambda b: b.ether.unhost("camm"), None,
        ("ether.unhost(): this program hosts no object as 'camm'. Did you mean 'cam'?",)),
    "a key of an added instance": Mistake(
        lambda b: b.ether.add("x", {"clas_path": "a.B"}), ValueError,
        ("instances.x.clas_path: unknown key", "Did you mean 'class_path'?")),
    # -- messages
    "a wildcard to publish on": Mistake(
        lambda b: b.ether.pub(1, topic="a/+"), ValueError, ("'a/+'", "wildcards (+ and #) are for subscribing")),
    "a slash at the beginning": Mistake(
        lambda b: b.ether.pub(1, topic="/a"), ValueError, ("'/a'", "no level may be empty: no / at either end")),
    "a filter with an end in the middle": Mistake(
        lambda b: b.ether.subscribe("a/#/b"), ValueError, ("'a/#/b'", "# must be the last level")),
    "a name inside of a level": Mistake(
        lambda b: b.ether.subscribe("pump{id}/x"), ValueError,
        ("{id} in the topic 'pump{id}/x' has to be a whole level",)),
    "another keep": Mistake(
        lambda b: b.ether.subscribe("a", keep="newest"), ValueError,
        ("keep: found 'newest'; expected all, latest, or how many",)),
    "an age without a unit": Mistake(
        lambda b: b.ether.subscribe("a", max_age="0.5"), ValueError,
        ("max_age: found '0.5'; write a number and its unit",)),
    "exactly once": Mistake(lambda b: b.ether.pub(1, qos=2), ValueError, ("qos is 0 or 1, not 2",)),
    "a value that cannot travel": Mistake(
        lambda b: b.ether.pub({"a": [1, object()]}, topic="image"), ValueError,
        ("cannot send the message on 'image', at a[1]: an object of type object cannot travel; convert it to",)),
    "a topic that nobody hears": Mistake(
        lambda b: b.ether.pub(1, topic="imaeg"), None, ("nobody hears 'imaeg'. Did you mean 'image'? cam hears it",)),
    "a topic that nobody publishes": Mistake(
        lambda b: b.ether.subscribe("temperatrue").close(), None,
        ("nobody publishes 'temperatrue'. Did you mean 'temperature'? thermometer publishes it",)),
    # -- decorators
    "a period without a unit": Mistake(
        lambda b: ether_every("5"), TypeError, ("ether_every: found '5'; expected a period such as 0.5s",)),
    "a period that is a number": Mistake(
        lambda b: ether_every(5), TypeError,
        ('write @ether_every("5s"): a number and its unit',)),  # type: ignore[arg-type]
    "a topic without its keyword": Mistake(
        lambda b: ether_sub("image"), TypeError,  # type: ignore[call-overload]
        ("write @ether_sub(topic='image'): the topic is given by its name",)),
    "a misspelt option": Mistake(
        refused({"topc": "x"}), TypeError, ("@ether_sub() takes no 'topc'. Did you mean 'topic'?",)),
    "no concurrency": Mistake(
        lambda b: ether_get(concurrency=0), TypeError, ("ether_get: concurrency is a number from 1, not 0",)),
    "a misspelt change": Mistake(
        lambda b: ether_pub(on="chang"), TypeError, ("ether_pub: on: found 'chang'", "Did you mean 'change'?")),
    "a decorator of a class": Mistake(
        lambda b: ether_get(Camera), TypeError, ("@ether_get marks methods;", "is a type")),
    # -- recorded data, runs, logs
    "a session that was not recorded": Mistake(
        lambda b: Ether().data("nosuch"), LookupError, ("nothing is recorded of 'nosuch': no ledger in",)),
    "a point in time": Mistake(
        lambda b: b.ether.data(since="yesterdy"), ValueError,
        ("cannot understand since='yesterdy'",)),
    "a run with a slash": Mistake(
        lambda b: b.ether.run("a/b"), ValueError, ("'a/b' cannot be the name of a run",)),
    "a run that does not go on": Mistake(
        lambda b: b.ether.pause_run(timeout_s=0.1), LookupError, ("ether.pause_run() needs a run that goes on",)),
    "a keyword of a run": Mistake(
        lambda b: b.ether.run("dose", resme=True), None, ("resme= is recorded as metadata", "Did you mean resume=?")),
    "a log level": Mistake(
        lambda b: get_ether_logger("x", "LOUD"), ValueError,
        ("found the log level 'LOUD'; expected a number or one of",)),
}  # fmt: skip


@pytest.fixture(scope="module")
def session() -> Iterator[Ether]:
    with Ether() as own:
        own.tap()
        own.host(Camera(), "cam")
        own.host(Thermometer(), "thermometer")
        yield own


def test_there_are_sixty() -> None:
    assert len(MISTAKES) >= 60


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_said(session: Ether, tmp_path: Path, mistake: Mistake, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(session, tmp_path)
    if mistake.kind is None:
        mistake.do(bench)
        told = "\n".join(r.getMessage() for r in caplog.records if r.levelno == logging.WARNING)
    else:
        with pytest.raises(mistake.kind) as caught:
            mistake.do(bench)
        told = str(caught.value)
        shown = "".join(lines_of(caught.value))
        inside = [line for line in shown.splitlines() if 'File "' in line and f"{__name__}.py" not in line]
        if hasattr(caught.value, "_ends_at_users_line") and "Remote traceback" not in shown:
            assert inside == [], "the traceback ends at the user's line"
    for text in mistake.says:
        assert text in told, told


def test_a_mistake_in_a_lab_is_said_as_in_a_session() -> None:
    with Lab(objects={"cam": Camera()}) as lab, pytest.raises(ValueError, match=r"payload has 'pixls'\. Did you mean"):
        lab.pub({"pixls": [1]}, topic="image")
