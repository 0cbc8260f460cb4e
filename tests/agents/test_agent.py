"""Agents: what they run and refuse, what ends when a program or an agent dies, and the health of their machines."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_parts import ANYTHING, Machine, becomes, config, gone, instances_of, joined, launcher, leave, member, sensor
from patience import patience
from programs import write
from running_brokers import RunningBroker, engines, mosquitto_missing, running_broker, soon

from ether import Ether, secret_values
from ether.agents.allowed import ClassNotAllowed, Roots, read_roots, roots_of
from ether.errors import ConfigError, StartFailed
from ether.protocol.clock_offset import OffsetEstimator
from ether.security.rights import rights_of_guest, rights_of_host
from ether.session.session import KEEP

needs_mosquitto = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
ENGINES = [pytest.param(engine, marks=needs_mosquitto if engine == "mosquitto" else ()) for engine in engines]
pytestmark = pytest.mark.in_turn("broker")


@pytest.fixture(params=ENGINES)
def broker(request: pytest.FixtureRequest) -> Iterator[RunningBroker]:
    with running_broker(request.param) as running:
        yield running


@pytest.fixture
def one_broker() -> Iterator[RunningBroker]:
    """For what does not depend on the engine."""
    with running_broker("amqtt") as running:
        yield running


@pytest.fixture
def ether() -> Iterator[Ether]:
    own = Ether()
    yield own
    leave(own)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


# -- running what it is asked to run


def test_an_instance_runs_on_the_machine_that_its_host_names(
    ether: Ether, broker: RunningBroker, tmp_path: Path
) -> None:
    pi3, notes = Machine(tmp_path, "pi3", broker.url_tcp), tmp_path / "notes"
    marks = {"instruments.Plain": {"methods": {"double": {"ether_get": {}}}}}
    described = config(
        cam=sensor(kwargs={"offset": 2, "file": str(notes)}, after="plain"),
        plain={"class_path": "instruments.Plain", "host": "pi3"},
        here={"class_path": "kept_parts.Worker", "after": "cam"},
    )
    with pi3.agent(str(pi3.instruments), f"registry:{pi3.instruments}", joins=False) as agent:
        ether.tap({**described, "registry": marks}, broker=broker.url_tcp)
        assert ether.get("cam", "read") == 22
        assert ether.get("plain", "double", {"n": 4}) == 8
        assert ether.get("here", "add", {"a": 1, "b": 1}) == 2
        told = member(ether, "cam")
        assert (told["keeper"], told["machine"], told["asked_by"]) == ("pi3", "pi3", "main")
        assert ether.get("cam", "pid") in instances_of(agent)
        assert sorted(pi3.kept()["instances"]) == ["cam", "plain"]
        assert pi3.file.stat().st_mode & 0o777 == 0o600

        first = ether.get("cam", "pid")
        ether.restart("cam")
        assert ether.get("cam", "pid") != first
        with pytest.raises(StartFailed):
            ether.add("more", {"class_path": "os.Nothing", "host": "pi3"})
        ether.remove("plain")
        assert sorted(pi3.kept()["instances"]) == ["cam"]

        ether.shutdown()
        assert lines(notes) == ["begins", "saves", "cleans up"] * 2
        assert pi3.kept()["instances"] == {}
        assert instances_of(agent) == []
        assert agent.process.poll() is None


def test_a_secret_is_told_to_its_own_agent_alone(
    ether: Ether, one_broker: RunningBroker, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Every device may hear what is asked of all: `control/<verb>/<by>`."""
    pi3, heard = Machine(tmp_path, "pi3", one_broker.url_tcp), list[bytes]()

    def hear(inbound: Any) -> None:
        heard.append(inbound.delivery.payload)
        inbound.done()

    with pi3.agent(joins=False):
        ether.tap(config(one=sensor()), broker=one_broker.url_tcp)
        session = ether._launch.session  # type: ignore[union-attr]
        session.link.listen(f"ether/1/{session.topics.session}/control/+/+", hear)
        request.addfinalizer(secret_values.forget)
        secret_values.learn(["hush-4711"])
        ether.add("cam", sensor(kwargs={"offset": 2, "file": str(tmp_path / "hush-4711")}))
        assert ether.get("cam", "read") == 22
        assert pi3.kept()["instances"]["cam"]["secrets"] == ["hush-4711"]
        ether.remove("cam")
        assert soon(lambda: any(b"remove" in each for each in heard), 5)
        assert not [each for each in heard if b"hush-4711" in each]
    topic = session.topics.control_to(KEEP, "main", "pi3")
    name = session.topics.session
    for mode in ("read", "call"):
        assert not rights_of_guest(name, "phone", mode).may("hear", topic)
    assert not rights_of_host(name, "pi4", []).may("hear", topic)
    assert rights_of_host(name, "pi3", []).may("hear", topic)


def test_what_fails_to_start_is_told_with_its_traceback_and_nothing_stays(
    ether: Ether, one_broker: RunningBroker, tmp_path: Path
) -> None:
    pi3, mark = Machine(tmp_path, "pi3", one_broker.url_tcp), tmp_path / "mark"
    mark.touch()
    described = config(
        good=sensor(),
        bad=sensor(kwargs={"fail": str(mark)}),
        dying={"class_path": "instruments.Dying", "host": "pi3"},
    )
    with pi3.agent(joins=False) as agent:
        with pytest.raises(StartFailed) as caught:
            ether.tap(described, broker=one_broker.url_tcp)
        assert sorted(caught.value.reasons) == ["bad", "dying"]
        assert "the sensor is not plugged in" in caught.value.reasons["bad"]
        assert "instruments.py" in caught.value.reasons["bad"]
        assert "exit code 9" in caught.value.reasons["dying"]
        assert soon(lambda: instances_of(agent) == [], 5)
        assert pi3.kept()["instances"] == {}


def test_an_agent_that_is_not_there_is_named_with_those_that_are(
    ether: Ether, one_broker: RunningBroker, tmp_path: Path
) -> None:
    pi3 = Machine(tmp_path, "pi3", one_broker.url_tcp)
    with pi3.agent(joins=False) as agent:
        agent.wait_for("runs classes under")  # the time is for what is asked of it, not for its start
        with pytest.raises(StartFailed) as caught:
            ether.tap(config(cam=sensor("pi4"), other=sensor(), late=sensor(after="cam")), broker=one_broker.url_tcp,
                      timeout_s=patience(8))  # fmt: skip
    why = caught.value.reasons
    assert sorted(why) == ["cam", "late"]
    assert "no agent 'pi4' is in the session; there are pi3. Did you mean 'pi3'?" in why["cam"]
    assert why["late"] == "waits for cam"
    assert pi3.kept()["instances"] == {}


def test_arguments_that_an_agent_cannot_write_down_are_named(
    ether: Ether, one_broker: RunningBroker, tmp_path: Path
) -> None:
    pi3 = Machine(tmp_path, "pi3", one_broker.url_tcp)
    with pi3.agent(joins=False), pytest.raises(StartFailed, match=r"only arguments that JSON can carry"):
        ether.tap(config(cam=sensor(kwargs={"offset": b"two"})), broker=one_broker.url_tcp)


# -- what it refuses

REFUSED = ["instruments.Popen", "instruments.subprocess.Popen", "subprocess.Popen", "instruments.os.PathLike"]


def test_nothing_runs_that_is_not_allowed(ether: Ether, one_broker: RunningBroker, tmp_path: Path) -> None:
    pi3, proof = Machine(tmp_path, "pi3", one_broker.url_tcp), tmp_path / "proof"
    with pi3.agent(joins=False) as agent:
        ether.tap(config(), broker=one_broker.url_tcp)
        becomes(ether, "pi3", "ready")
        for class_path in REFUSED:
            with pytest.raises(StartFailed, match="may not run here") as caught:
                ether.add("evil", {"class_path": class_path, "args": [["touch", str(proof)]], "host": "pi3"})
            assert str(pi3.instruments) in str(caught.value)
        assert instances_of(agent) == []
    assert not proof.exists()
    assert not pi3.file.exists()


def test_by_default_nothing_is_allowed(ether: Ether, one_broker: RunningBroker, tmp_path: Path) -> None:
    pi3 = Machine(tmp_path, "pi3", one_broker.url_tcp)
    write(pi3.folder, "agent_main.py", (pi3.folder / "agent_main.py").read_text().replace("allow=allow", "allow=[]"))
    with pi3.agent(joins=False) as agent:
        with pytest.raises(StartFailed, match="owner allows nothing"):
            ether.tap(config(cam=sensor()), broker=one_broker.url_tcp)
        assert instances_of(agent) == []


def test_what_is_in_the_file_must_still_be_allowed(ether: Ether, one_broker: RunningBroker, tmp_path: Path) -> None:
    pi3 = Machine(tmp_path, "pi3", one_broker.url_tcp)
    with pi3.agent(joins=False) as agent:
        ether.tap(config(cam=sensor()), broker=one_broker.url_tcp)
        agent.kill()
    with pi3.agent("something.other") as agent:
        agent.wait_for("cam cannot be started again: instruments.Sensor may not run here")
        assert instances_of(agent) == []


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package on the import path, and a folder that is not."""
    (tmp_path / "apart").mkdir()
    (tmp_path / "labx" / "deep").mkdir(parents=True)
    write(tmp_path / "labx", "__init__.py", "from labx.deep.cams import Camera\nfrom subprocess import Popen\n")
    write(tmp_path / "labx" / "deep", "__init__.py", "raise RuntimeError('imported')\n")
    text = """
    import os as system
    try:
        from nowhere.fast import Lens
    except ImportError:
        class Lens: pass
    class Camera:
        class Chip: pass
        Shell = system.system
    Alias = Camera
    class Twice: pass
    from subprocess import Popen as Twice
    from .more import *
    from .. import Popen as Upward
    """
    write(tmp_path / "labx" / "deep", "cams.py", text)
    write(tmp_path / "apart", "loose.py", "class Pump: pass\n")
    (tmp_path / "apart" / "linked.py").symlink_to(tmp_path / "labx" / "deep" / "cams.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_roots_cover_what_is_defined_under_them(places: Path) -> None:
    roots = roots_of(["labx", str(places / "apart")])
    for class_path in ("labx.deep.cams.Camera", "labx.Camera", "labx.deep.cams.Camera.Chip", "loose.Pump"):
        roots.check(class_path)
    roots_of(["labx.deep.cams", "nowhere"]).check("labx.deep.cams.Camera")


@pytest.mark.parametrize(
    "class_path",
    [
        "labx.Popen",
        "labx.deep.cams.Camera.Shell",
        "labx.deep.cams.Alias",
        "labx.deep.cams.Twice",
        "labx.deep.cams.Upward",
        "labx.deep.cams.Lens",
        "labx.deep.cams.system.PathLike",
        "labx.deep.cams.Nothing",
        "labxy.Camera",
        "linked.Camera",
        "subprocess.Popen",
        "__main__.Camera",
    ],
)
def test_roots_do_not_cover_what_only_passes_through(places: Path, class_path: str) -> None:
    with pytest.raises(ClassNotAllowed):
        roots_of(["labx", "labxy", str(places / "apart")]).check(class_path)


def test_a_file_on_the_way_to_what_is_allowed_must_be_allowed_too(places: Path) -> None:
    """It would be imported."""
    write(places, "outside.py", "from loose import Pump\nfrom labx.deep.cams import Camera\n")
    roots = roots_of(["labx.deep.cams", str(places / "apart")])
    for class_path in ("outside.Pump", "outside.Camera", "labx.Camera"):
        with pytest.raises(ClassNotAllowed):
            roots.check(class_path)


def test_roots_are_read_as_an_owner_writes_them(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    listed = write(tmp_path, "allowed", f"# of this bench\nlab.cameras  # all\n\n{tmp_path}/lab\n")
    assert roots_of(read_roots(str(tmp_path / listed))) == Roots(("lab.cameras",), (str(tmp_path / "lab"),))
    for wrong in ("lab cameras", "lab..cameras", str(tmp_path / "none"), "/"):
        with pytest.raises(ConfigError):
            roots_of([wrong])
    with pytest.raises(ConfigError, match="cannot be read"):
        read_roots(str(tmp_path / "none"))


# -- what outlives the program, the agent, the machine


def test_instances_outlive_their_launcher_and_are_adopted_by_the_next(broker: RunningBroker, tmp_path: Path) -> None:
    pi3, url = Machine(tmp_path, "pi3", broker.url_tcp), broker.url_tcp
    with pi3.agent(joins=False):
        with launcher(tmp_path, url, config(cam=sensor())) as first, joined(url) as other:
            pid = other.get("cam", "pid")
            first.kill()
            first.assert_nothing_left()
            assert other.get("cam", "pid") == pid
        with launcher(tmp_path, url, config(cam=sensor())), joined(url) as other:
            assert other.get("cam", "pid") == pid
        with launcher(tmp_path, url, config(cam=sensor(kwargs={"offset": 5}))), joined(url) as other:
            assert other.get("cam", "read") == 25
            assert gone(pid)


def test_a_killed_agent_takes_its_instances_down_and_brings_them_back_without_a_launcher(
    broker: RunningBroker, tmp_path: Path
) -> None:
    pi3, url = Machine(tmp_path, "pi3", broker.url_tcp), broker.url_tcp
    with pi3.agent(joins=False) as agent:
        with launcher(tmp_path, url, config(cam=sensor(after="lamp"), lamp=sensor())) as program:
            program.kill()
            program.assert_nothing_left()
        with joined(url) as other:
            pids = [other.get(name, "pid") for name in ("cam", "lamp")]
        agent.kill()
        for pid in pids:
            assert gone(pid), "an instance outlives its agent"
        agent.assert_nothing_left()
    with pi3.agent(), joined(url) as other:
        becomes(other, "cam", "ready", machine="pi3")
        assert other.get("cam", "read") == other.get("lamp", "read") == 20
        assert {other.get(name, "pid") for name in ("cam", "lamp")}.isdisjoint(pids)


@pytest.mark.skipif(os.environ.get("ETHER_LONG") != "1", reason="an agent that boots takes long: ETHER_LONG=1")
def test_with_the_pc_off_the_first_value_is_kept_as_soon_as_the_pi_has_booted(
    broker: RunningBroker, tmp_path: Path
) -> None:
    """Who led the session is gone, and its recorder with it: the Pi waits for nobody."""
    pi3, url = Machine(tmp_path, "pi3", broker.url_tcp), broker.url_tcp
    described = config(thermo={"class_path": "instruments.Thermometer", "host": "pi3"}, lamp=sensor(after="thermo"))
    with pi3.agent(joins=False) as agent, launcher(tmp_path, url, described) as program:
        program.kill()
        agent.kill()
        agent.assert_nothing_left(except_for=program.process.pid)
        program.assert_nothing_left()
    for kept in pi3.state.rglob("*.outbox"):
        kept.unlink()
    with pi3.agent(), joined(url) as other:
        becomes(other, "thermo", "ready", machine="pi3")
        ready = time.monotonic()
        assert other.wait_for("temp", timeout_s=patience(10)) == 20
        assert soon(lambda: any(kept.stat().st_size for kept in pi3.state.rglob("*.outbox")), patience(5))
        assert time.monotonic() - ready < patience(10)


def test_what_cannot_be_started_after_a_reboot_is_tried_again(
    ether: Ether, one_broker: RunningBroker, tmp_path: Path
) -> None:
    pi3, unplugged = Machine(tmp_path, "pi3", one_broker.url_tcp), tmp_path / "unplugged"
    with pi3.agent(joins=False) as agent:
        described = config(cam=sensor(kwargs={"fail": str(unplugged)}, restart="on-failure"))
        ether.tap(described, broker=one_broker.url_tcp)
        agent.kill()
    unplugged.touch()
    with pi3.agent():
        assert "not plugged in" in becomes(ether, "cam", "error")["error"]
        unplugged.unlink()
        becomes(ether, "cam", "ready")
        assert ether.get("cam", "read") == 20


def test_all_goes_on_when_the_broker_is_killed_and_started_again(
    ether: Ether, broker: RunningBroker, tmp_path: Path
) -> None:
    pi3 = Machine(tmp_path, "pi3", broker.url_tcp)
    with pi3.agent(joins=False):
        ether.tap(config(cam=sensor()), broker=broker.url_tcp)
        pid = ether.get("cam", "pid")
        broker.kill()
        broker.restart()
        assert soon(lambda: answers(ether, "cam", pid), 10)
        with joined(broker.url_tcp) as other:
            becomes(other, "pi3", "ready")
            becomes(other, "cam", "ready", pid=pid)


def answers(ether: Ether, name: str, pid: int) -> bool:
    try:
        return bool(ether.get(name, "pid", timeout_s=patience(1)) == pid)
    except Exception:
        return False


def test_sigterm_stops_all_in_order_and_the_next_start_brings_it_back(
    ether: Ether, broker: RunningBroker, tmp_path: Path
) -> None:
    pi3, notes = Machine(tmp_path, "pi3", broker.url_tcp), tmp_path / "notes"
    with pi3.agent(joins=False) as agent:
        ether.tap(config(cam=sensor(kwargs={"file": str(notes)})), broker=broker.url_tcp)
        agent.process.send_signal(signal.SIGTERM)
        assert agent.finish(20).code == 0
        assert lines(notes) == ["begins", "saves", "cleans up"]
        agent.assert_nothing_left()
        assert soon(lambda: not member(ether, "pi3") and not member(ether, "cam"), 10)
    with pi3.agent():
        becomes(ether, "cam", "ready")
        assert ether.get("cam", "read") == 20


def test_sigterm_ends_an_agent_that_looks_for_a_session_at_once(tmp_path: Path) -> None:
    with Machine(tmp_path, "pi3", "").agent(joins=False) as agent:
        agent.wait_for("runs classes under")
        begun = time.monotonic()
        agent.process.send_signal(signal.SIGTERM)
        assert agent.finish(10).code == 0
        assert time.monotonic() - begun < patience(1.5)


def test_a_damaged_file_is_said_and_kept_aside(ether: Ether, one_broker: RunningBroker, tmp_path: Path) -> None:
    pi3 = Machine(tmp_path, "pi3", one_broker.url_tcp)
    with pi3.agent(joins=False) as agent:
        ether.tap(config(cam=sensor()), broker=one_broker.url_tcp)
        agent.kill()
    damaged = pi3.file.read_text()[:-20]
    pi3.file.write_text(damaged)
    with pi3.agent() as agent:
        assert "cannot be read" in agent.said()
        aside = [path for path in pi3.file.parent.iterdir() if path.name.startswith("pi3.json.2")]
        assert [path.read_text() for path in aside] == [damaged]
        becomes(ether, "pi3", "ready")
        ether.remove("cam")
        ether.add("cam", sensor())
        assert sorted(pi3.kept()["instances"]) == ["cam"]


DAMAGES: list[Callable[[dict[str, Any]], object]] = [
    lambda kept: kept.update(version=2),
    lambda kept: kept.update(session="a/b"),
    lambda kept: kept["instances"].update(cam=3),
    lambda kept: kept["instances"]["cam"]["instance"].update(class_path="Sensor"),
    lambda kept: kept["instances"].update({"a/b": kept["instances"].pop("cam")}),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_no_file_can_keep_an_agent_from_starting(damage: Callable[[dict[str, Any]], object], tmp_path: Path) -> None:
    from ether.agents.wanted_file import AgentFile, Wanted, read_agent_file

    path = str(tmp_path / "pi3.json")
    written = AgentFile(path, {"HOME": str(tmp_path)}, "bench", "mqtt://u:p@there:1883")
    written.put("cam", Wanted.of("cam", {"class_path": "instruments.Sensor"}, {}, "main"))
    assert read_agent_file(path, {"HOME": str(tmp_path)}) == written
    kept = json.loads(Path(path).read_text())
    damage(kept)
    Path(path).write_text(json.dumps(kept))
    os.chmod(path, 0o600)
    assert read_agent_file(path, {"HOME": str(tmp_path)}).instances == {}
    assert not Path(path).exists()


def test_what_follows_from_the_lab_key_is_not_written_down(tmp_path: Path) -> None:
    from ether.agents.wanted_file import AgentFile, Wanted, read_agent_file
    from ether.config.broker_url import url_with
    from ether.security.lab_key import load_key

    environment = {"HOME": str(tmp_path), "ETHER_KEY": "0123456789abcdef" * 2}
    key = load_key(environment)
    assert key is not None
    who = key.credentials()
    url = url_with("mqtt://pc:1883", who.username, who.password)
    written = AgentFile(str(tmp_path / "pi3.json"), environment, "bench", url)
    written.put("cam", Wanted.of("cam", {"class_path": "instruments.Sensor"}, {}, "main"))
    assert who.password not in Path(written.path).read_text()
    assert read_agent_file(written.path, environment).url == url


# -- its name, its session


def test_a_second_agent_of_a_name_is_refused(ether: Ether, one_broker: RunningBroker, tmp_path: Path) -> None:
    first, second = (Machine(tmp_path / place, "pi3", one_broker.url_tcp) for place in ("one", "two"))
    with first.agent(joins=False) as agent:
        ether.tap(config(), broker=one_broker.url_tcp)
        becomes(ether, "pi3", "ready")
        pid = agent.process.pid
        for machine in (first, second):  # on the same machine a lock says so, on another one the session
            with machine.agent(joins=False) as refused:
                done = refused.finish(20)
                assert done.code == 1
                assert f"the agent name 'pi3' is held on {os.uname().nodename}, pid {pid}" in done.err
        assert member(ether, "pi3")["pid"] == pid


def test_an_agent_follows_its_session_to_another_broker(tmp_path: Path) -> None:
    """Both find the session by its record on this machine, as they would by mDNS on two."""
    pi3, shared = Machine(tmp_path, "pi3"), tmp_path / "shared"
    shared.mkdir()
    here = f"import os; os.environ['XDG_RUNTIME_DIR'] = {str(shared)!r}\n"
    script = pi3.folder / "agent_main.py"
    script.write_text(here + script.read_text())
    described, engine = config(cam=sensor(kwargs={"file": str(tmp_path / "notes")})), {"engine": "amqtt"}
    with pi3.agent(joins=False) as agent:
        with launcher(tmp_path, engine, described, shared) as first:
            kept = pi3.kept()
            notes = lines(tmp_path / "notes")
            first.kill()
            first.assert_nothing_left()
        with launcher(tmp_path, engine, described, shared):
            agent.wait_for("goes to session bench")
            assert pi3.kept()["instances"] == kept["instances"]
            assert pi3.kept()["url"] != kept["url"]
            assert lines(tmp_path / "notes") == [*notes, "saves", "cleans up", "begins"]


def test_of_a_session_without_a_name_nothing_is_written_down(
    ether: Ether, one_broker: RunningBroker, tmp_path: Path
) -> None:
    pi3 = Machine(tmp_path, "pi3", one_broker.url_tcp)
    with pi3.agent(joins=False):
        ether.tap({"instances": {"cam": sensor()}}, broker=one_broker.url_tcp)
        assert ether.get("cam", "read") == 20
        assert not pi3.file.exists()


def test_an_idle_agent_goes_where_a_session_is_led(one_broker: RunningBroker, tmp_path: Path) -> None:
    pi3 = Machine(tmp_path, "pi3", one_broker.url_tcp)
    with pi3.agent(joins=False) as agent:
        for name in ("monday", "tuesday"):
            ether = Ether()
            ether.tap({"session": name, "instances": {"cam": sensor()}}, broker=one_broker.url_tcp)
            assert ether.get("cam", "read") == 20
            leave(ether)
        assert agent.process.poll() is None


# -- what it tells


def test_an_offline_agent_and_its_instances_say_since_when(ether: Ether, broker: RunningBroker, tmp_path: Path) -> None:
    pi3 = Machine(tmp_path, "pi3", broker.url_tcp)
    with pi3.agent(joins=False) as agent:
        ether.tap(config(cam=sensor(restart="always")), broker=broker.url_tcp)
        killed = time.time()
        agent.kill()
        with joined(broker.url_tcp) as later:
            for program, name in itertools.product((ether, later), ("pi3", "cam")):
                told = becomes(program, name, "lost", 5, offline_since=ANYTHING)
                assert told["error"].startswith("offline since 20")
                assert abs(told["offline_since"] - killed) < 5
            with pi3.agent():
                for name in ("pi3", "cam"):
                    back = becomes(later, name, "ready")
                    assert "offline_since" not in back
                    assert back["error"] == ""


def test_an_agent_tells_how_its_machine_is(ether: Ether, one_broker: RunningBroker, tmp_path: Path) -> None:
    pi3 = Machine(tmp_path, "pi3", one_broker.url_tcp)
    with pi3.agent(joins=False):
        ether.tap(config(), broker=one_broker.url_tcp)
        at_birth = becomes(ether, "pi3", "ready")["health"]
        assert at_birth["cpus"] == os.cpu_count()
        told = retained_health(ether, "pi3")
        assert told["disk_mb"] > 0
        assert abs(told["clock_ahead_s"]) <= told["clock_error_s"] + 0.001  # the same clock
        assert told["time"] >= at_birth["time"]


def retained_health(ether: Ether, agent: str) -> dict[str, Any]:
    client = ether._client
    assert client is not None
    with ether.subscribe(f"mqtt:{client.topics.health(agent)}") as subscription:
        for _ in range(5):
            value = subscription.get(timeout_s=patience(15)).value
            assert isinstance(value, dict)
            if value["clock_ahead_s"] is not None:
                return value
    raise AssertionError(f"never told about its clock, but {value}")


def test_a_clock_that_was_set_is_known_at_the_next_answer() -> None:
    clock = OffsetEstimator()
    for n in range(8):
        clock.note(100.0 + n, 100.0 + n, 100.02 + n)
    clock.note(691_200.0, 108.0, 691_200.5)  # set ahead by 8 days, and this answer was slow
    offset = clock.offset()
    assert offset is not None
    assert offset.ahead_s == pytest.approx(691_092.25)


def test_of_the_answers_about_the_clock_the_quickest_counts() -> None:
    clock = OffsetEstimator()
    assert clock.offset() is None
    clock.note(100.0, 97.0, 104.0)  # a slow one: 5 s ahead, give or take 2
    clock.note(200.0, 197.05, 200.1)
    clock.note(300.0, 290.0, 299.0)  # the clock was set back in between
    offset = clock.offset()
    assert offset is not None
    assert offset.ahead_s == pytest.approx(3.0)
    assert offset.error_s == pytest.approx(0.05)
    for n in range(8):
        clock.note(1000.0 + n, 1000.0 + n, 1000.0 + n + 0.2)
    offset = clock.offset()
    assert offset is not None
    assert offset.ahead_s == pytest.approx(0.1)
