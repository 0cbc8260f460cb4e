"""What a broker refuses is told to whom it concerns, at once, in its words; nothing else suffers.

Sessions with real processes on a stock Mosquitto with limits and rights, and behind a proxy that closes the connection
as brokers of MQTT 3.1.1 do. R5, R6 and R7 are the reproducers of the list of faults.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from limited_mosquitto import limited_mosquitto
from patience import patience
from picky_proxy import CUT, picky_proxy, takes_at_most
from programs import running, write
from running_brokers import mosquitto_missing, soon

from ether import Ether
from ether.errors import (
    EtherError,
    InstanceLost,
    LifecycleFailed,
    NotSaved,
    PayloadTooLarge,
    PublishRefused,
    RemoteError,
    StartFailed,
    SubscribeRefused,
    SyncError,
    TooLargeForBroker,
)
from ether.ledger.reader import LedgerReader, RecordFilter, StoredRecord
from ether.logs.session_file import log_folder
from ether.transport.cut_rules import STRIKES

pytestmark = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
CAM = {"cam": {"class_path": "refused_parts.Cam"}}
SIZE_LIMIT = "message_size_limit 1000000"
LARGE = 2_000_000
EVERYTHING = "topic readwrite #\n"


@pytest.fixture
def brokers() -> Iterator[ExitStack]:
    """What a session runs on: it ends after the session."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def ether(brokers: ExitStack) -> Iterator[Ether]:
    own = Ether()
    yield own
    own.shutdown()


@contextmanager
def broker_of(version: str, *lines: str, acl: str | None = None) -> Iterator[str]:
    """The URL of a Mosquitto with these lines; with version 3.1.1 one that speaks nothing else."""
    with ExitStack() as stack:
        mosquitto = stack.enter_context(limited_mosquitto(*lines, acl=acl))
        if version == "5":
            yield mosquitto.url_tcp
        else:
            yield stack.enter_context(picky_proxy(mosquitto.port, only_v311=True)).url


both_versions = pytest.mark.parametrize("version", ["5", "3.1.1"])


def warnings_of(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [it.getMessage() for it in caplog.records if it.levelno >= logging.WARNING and text in it.getMessage()]


def records_of(folder: Path, *kinds: str) -> list[StoredRecord]:
    with LedgerReader.open(folder) as reader:
        return list(reader.records(RecordFilter(kinds=kinds or ("data", "record"))))


def log_of(session: str) -> str:
    """The log of all instances, as their records were shipped."""
    return "".join(path.read_text() for path in log_folder().glob(f"{session}*"))


def denied(*topics: str) -> str:
    return "".join(f"topic deny {topic}\n" for topic in topics) + EVERYTHING


def took_s(began: float) -> float:
    return time.monotonic() - began


# -- R5: a value that is too large never blocks those behind it


@both_versions
def test_r5_one_large_value_stops_no_saving(ether: Ether, brokers: ExitStack, version: str, tmp_path: Path) -> None:
    url = brokers.enter_context(broker_of(version, SIZE_LIMIT))
    ether.tap({"session": f"big-{version}", "broker": url, "record": {"topics": [], "folder": str(tmp_path / "l")}})
    ether.record({"n": -1}, "v").wait(patience(20))
    large = ether.record({"a": b"x" * 2_400_000}, "v")
    small = [ether.record({"n": n}, "v") for n in range(100)]
    for saved in (*small, large):
        saved.wait(patience(10))
    proof = ether.get("recorder", "proof")
    assert proof["gaps"] == []
    began = time.monotonic()
    ether.shutdown()
    assert took_s(began) < patience(4)
    values = [it.value for it in records_of(tmp_path / "l", "record")]
    assert values == [{"n": -1}, {"a": b"x" * 2_400_000}, *({"n": n} for n in range(100))]


LIFE = """
    import os, sys, time
    from ether import Ether

    session, url, folder, life = sys.argv[1:]
    ether = Ether()
    ether.tap({"session": session, "broker": url, "record": {"topics": [], "folder": folder}})
    if life == "1":
        ether.record({"n": -1}, "v").wait(30)
        ether.remove("recorder")   # from here on everything waits in the outbox
        ether.record({"a": b"x" * 2_400_000}, "v")
        for n in range(100):
            ether.record({"n": n}, "v")
        time.sleep(1)
        os._exit(9)
    ether.record({"life": life}, "v").wait(30)
    print("saved", flush=True)
    ether.shutdown()
"""


def test_r5_in_later_lives(brokers: ExitStack, tmp_path: Path) -> None:
    """The program dies with a large value in its outbox, and small ones behind it; the next ones save them all."""
    write(tmp_path, "life.py", LIFE)
    folder = tmp_path / "ledger"
    broker = brokers.enter_context(limited_mosquitto(SIZE_LIMIT))
    for life in ("1", "2", "3"):
        with running(tmp_path, "life.py", "lives", broker.url_tcp, str(folder), life) as program:
            finished = program.finish(60)
        assert finished.code == (9 if life == "1" else 0), finished.err
    values = [it.value for it in records_of(folder, "record")]
    assert sorted(map(str, values)) == sorted(
        map(str, [{"n": -1}, {"a": b"x" * 2_400_000}, *({"n": n} for n in range(100)), {"life": "2"}, {"life": "3"}])
    )


# -- R6: each refusal reaches its own publisher, and nobody else


@both_versions
def test_r6_no_refusal_is_raised_by_the_next_call(
    ether: Ether, brokers: ExitStack, version: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = brokers.enter_context(broker_of(version, acl="topic readwrite ether/#\n"))
    ether.tap({"session": f"acl-{version}", "broker": url, "instances": CAM})
    with ether.subscribe("fine") as fine:
        for what in (
            lambda: ether.get("cam", "snap") == b"\0",
            lambda: ether.pub({"v": 1}, topic="fine") is None and fine.get(patience(5)).value == {"v": 1},
            lambda: ether.save("cam", "dose")["result"] == 1,
            lambda: ether.sync("frame") == {"cam": b"\0"},
            lambda: ether.save_all() == {"cam": []},
        ):
            ether.pub({"x": 1}, topic="mqtt:plant/x")
            assert what()
    ether.pub({"x": 1}, topic="mqtt:plant/x")
    ether.shutdown()  # raises nothing
    told = warnings_of(caplog, "mqtt:plant/x")
    if version == "3.1.1":  # it acknowledges and says nothing
        assert told == []
        return
    assert "reaches nobody. The broker refused the message of" in told[0]
    assert "not authorized. Do the broker's rights (ACL) let this user publish there?" in told[0]
    assert told[1:] == ["main: the broker refused 6 messages on 'mqtt:plant/x': not authorized"]


# -- R7: a broker that closes the connection


def test_r7_a_message_at_which_the_broker_closes_the_connection(
    ether: Ether, brokers: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    broker = brokers.enter_context(limited_mosquitto())
    proxy = brokers.enter_context(picky_proxy(broker.port, takes_at_most(100_000), only_v311=True))
    ether.tap({"session": "poison", "broker": proxy.url, "instances": CAM})
    with ether.subscribe("v") as sub, ether.subscribe("big"):  # a receiver asks for what it misses
        ether.pub(1, topic="v")
        assert sub.get(patience(5)).value == 1
        ether.pub(b"x" * 200_000, topic="big")
        ether.pub(2, topic="v")
        assert sub.get(patience(10)).value == 2
        assert soon(lambda: len(proxy.cuts) >= STRIKES, 10)
        assert soon(lambda: bool(warnings_of(caplog, "what is published on 'big' reaches nobody")), 10)
        for n in range(50):
            ether.pub(n, topic="v")
        assert [sub.get(patience(5)).value for _ in range(50)] == list(range(50))
        with pytest.raises(PayloadTooLarge, match="this broker closes the connection at 200,"):
            ether.pub(b"x" * 200_000, topic="big")
        assert ether.get("cam", "snap") == b"\0"
        ether.record({"n": 1}, "v").wait(patience(20))
        ether.record(b"y" * 3_000_000, "v").wait(patience(20))
        assert len(proxy.cuts) == STRIKES
    began = time.monotonic()
    ether.shutdown()
    assert took_s(began) < patience(4)
    assert len(proxy.cuts) == STRIKES


def test_r7_a_topic_at_which_the_broker_closes_the_connection(
    ether: Ether, brokers: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    broker = brokers.enter_context(limited_mosquitto())
    spaces = picky_proxy(broker.port, lambda packet: CUT if " " in packet.topic else None, only_v311=True)
    proxy = brokers.enter_context(spaces)
    ether.tap({"session": "spaces", "broker": proxy.url})
    with ether.subscribe("v") as sub:
        for n in range(20):
            ether.pub(n, topic="not here")
            ether.pub(n, topic="v")
        assert [sub.get(patience(10)).value for _ in range(20)] == list(range(20))
    assert soon(lambda: bool(warnings_of(caplog, "'not here'")), 10)
    assert len(proxy.cuts) <= STRIKES + 1


def test_r7_record_all_on_a_broker_with_small_packets(ether: Ether, brokers: ExitStack, tmp_path: Path) -> None:
    """rumqttd takes 20 kB. Ether's own batches never exceed that, whatever the values are: no connection is cut."""
    broker = brokers.enter_context(limited_mosquitto())
    proxy = brokers.enter_context(picky_proxy(broker.port, takes_at_most(20_480), only_v311=True))
    record = {"topics": "all", "folder": str(tmp_path / "ledger")}
    ether.tap({"session": "small", "broker": proxy.url, "record": record, "instances": CAM})
    for n in range(3000):
        ether.pub({"n": n, "text": "x" * 300}, topic="v")
    ether.get("cam", "publish", {"topic": "w", "size": 15_000})
    ether.record(b"z" * 300_000, "large").wait(patience(30))
    assert ether.flush(patience(30)) == 0
    assert proxy.cuts == []
    values = [it.value for it in records_of(tmp_path / "ledger", "data") if it.topic == "v"]
    assert [value["n"] for value in values] == list(range(3000))


def test_a_broker_that_restarts_makes_nothing_given_up(
    ether: Ether, brokers: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    """Five deaths of a stock broker, each with messages under way."""
    broker = brokers.enter_context(limited_mosquitto())
    ether.tap({"session": "restarts", "broker": broker.url_tcp, "instances": CAM})
    with ether.subscribe("v") as sub:
        sent = 0
        for _ in range(5):
            for _ in range(200):
                ether.pub(b"x" * 5_000 + str(sent).encode(), topic="v")
                sent += 1
            broker.kill()
            broker = brokers.enter_context(limited_mosquitto(port=broker.port))
        assert [int(sub.get(patience(20)).value[5_000:]) for _ in range(sent)] == list(range(sent))
        assert soon(lambda: _answers(ether), 10)
    assert warnings_of(caplog, "refused") == []


def _answers(ether: Ether) -> bool:
    try:
        return bool(ether.get("cam", "snap", timeout_s=patience(2)) == b"\0")
    except EtherError:
        return False


# -- one test for each kind of publisher


def test_pub_warns_once_for_each_topic_and_counts(
    ether: Ether, brokers: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    broker = brokers.enter_context(limited_mosquitto(SIZE_LIMIT))
    ether.tap({"session": "pub", "broker": broker.url_tcp})
    with ether.subscribe("img") as sub:
        for n in range(5):
            ether.pub({"a": b"x" * (LARGE + n)}, topic="img")
            ether.pub({"a": b"x" * LARGE}, topic="other")
            ether.pub(n, topic="img")
            began = time.monotonic()
            assert sub.get(patience(5)).value == n, "nobody waits for the number of a refused message"
            assert took_s(began) < patience(2.4), "a hole that is waited for takes 5 s"
    ether.shutdown()
    for topic in ("img", "other"):
        told = warnings_of(caplog, repr(topic))
        assert len(told) == 2
        assert "what is published on" in told[0]
        assert "bytes: packet too large. Send it in parts, or raise the broker's limit" in told[0]
        assert "2,000," in told[0]
        assert told[1] == f"main: the broker refused 5 messages on {topic!r}: packet too large"


def test_a_publishing_method_warns_in_the_log_of_the_session(ether: Ether, brokers: ExitStack) -> None:
    broker = brokers.enter_context(limited_mosquitto(SIZE_LIMIT))
    ether.tap({"session": "stage", "broker": broker.url_tcp, "instances": CAM})
    ether.pub({"size": LARGE}, topic="go")
    assert soon(lambda: "cam: what is published on 'images' reaches nobody" in log_of("stage"), 10)


@both_versions
def test_a_call_whose_request_is_too_large(ether: Ether, brokers: ExitStack, version: str) -> None:
    url = brokers.enter_context(broker_of("5", SIZE_LIMIT) if version == "5" else _cutting(100_000))
    ether.tap({"session": f"call-{version}", "broker": url, "instances": CAM})
    began = time.monotonic()
    with pytest.raises(TooLargeForBroker, match=r"too large|closes the connection each time"):
        ether.get("cam", "snap", {"given": b"x" * LARGE}, timeout_s=15)
    assert took_s(began) < patience(5)
    assert ether.get("cam", "snap") == b"\0"


@contextmanager
def _cutting(limit: int) -> Iterator[str]:
    with limited_mosquitto() as broker, picky_proxy(broker.port, takes_at_most(limit), only_v311=True) as proxy:
        yield proxy.url


def test_a_call_without_rights(ether: Ether, brokers: ExitStack) -> None:
    broker = brokers.enter_context(limited_mosquitto(acl=denied("ether/1/rights/call/#")))
    ether.tap({"session": "rights", "broker": broker.url_tcp, "instances": CAM})
    began = time.monotonic()
    with pytest.raises(PublishRefused, match="not authorized"):
        ether.get("cam", "snap", timeout_s=15)
    later = ether.get_later("cam", "snap")
    with pytest.raises(PublishRefused, match="not authorized"):
        ether.collect(later)
    assert took_s(began) < patience(3)


@both_versions
def test_the_answer_of_a_call(ether: Ether, brokers: ExitStack, version: str) -> None:
    url = brokers.enter_context(broker_of("5", SIZE_LIMIT) if version == "5" else _cutting(100_000))
    ether.tap({"session": f"answer-{version}", "broker": url, "instances": CAM})
    began = time.monotonic()
    # Over 3.1.1 the connection of the instance is cut, which its caller may hear of first.
    told = RemoteError if version == "5" else (RemoteError, InstanceLost)
    with pytest.raises(told, match=r"its answer cannot travel.*too large|closes the connection|connection broke"):
        ether.get("cam", "snap", {"size": LARGE}, timeout_s=15)
    assert took_s(began) < patience(5)
    assert soon(lambda: _answers(ether), 10)


@both_versions
def test_a_save(ether: Ether, brokers: ExitStack, version: str) -> None:
    """The request, then the answer. A save whose request was refused has not run, and is not sent again."""
    url = brokers.enter_context(broker_of("5", SIZE_LIMIT) if version == "5" else _cutting(100_000))
    ether.tap({"session": f"save-{version}", "broker": url, "instances": CAM})
    began = time.monotonic()
    status = ether.save("cam", "dose", {"given": b"x" * LARGE}, timeout_s=patience(15))
    assert (status["status"], status["error"].partition(":")[0]) == ("error", "TooLargeForBroker")
    assert status["message"].startswith("the broker refused the message of 2,000,")
    assert took_s(began) < patience(5)
    assert ether.get("cam", "doses") == 0
    began = time.monotonic()
    status = ether.save("cam", "dose", {"size": LARGE}, timeout_s=patience(15))
    assert status["status"] == "error"
    assert version == "3.1.1" or "dose ran, but its answer cannot travel" in status["message"]
    assert took_s(began) < patience(5)
    assert ether.save("cam", "dose", timeout_s=patience(15))["result"] == 2


def test_a_save_without_rights(ether: Ether, brokers: ExitStack) -> None:
    broker = brokers.enter_context(limited_mosquitto(acl=denied("ether/1/dosing/call/cam/dose")))
    ether.tap({"session": "dosing", "broker": broker.url_tcp, "instances": CAM})
    began = time.monotonic()
    status = ether.save("cam", "dose", timeout_s=patience(15))
    assert (status["status"], status["error"].partition(":")[0]) == ("error", "PublishRefused")
    assert "not authorized" in status["message"]
    assert took_s(began) < patience(3)
    assert ether.get("cam", "doses") == 0


def test_a_record_without_rights(ether: Ether, brokers: ExitStack, tmp_path: Path) -> None:
    """Nothing is lost: who waits is told at once, and the value stays in the outbox."""
    broker = brokers.enter_context(
        limited_mosquitto(acl=denied("ether/1/rec/record/recorder", "ether/1/rec/record/recorder/main"))
    )
    record = {"topics": [], "folder": str(tmp_path / "ledger")}
    ether.tap({"session": "rec", "broker": broker.url_tcp, "record": record})
    began = time.monotonic()
    with pytest.raises(NotSaved, match="the broker does not take what is sent to recorder: not authorized") as told:
        ether.record(1, "v").wait(patience(10))
    assert took_s(began) < patience(5)
    assert not told.value.lost
    began = time.monotonic()
    with pytest.raises(LifecycleFailed, match=r"not authorized.*'ether rescue rec' brings them into a ledger"):
        ether.shutdown()
    assert took_s(began) < patience(4)


def test_a_log_record_that_is_too_large_for_the_broker(ether: Ether, brokers: ExitStack) -> None:
    """Log records go at QoS 0, so nobody answers; once the limit is known they are shortened."""
    broker = brokers.enter_context(limited_mosquitto())
    proxy = brokers.enter_context(picky_proxy(broker.port, takes_at_most(18_000), only_v311=True))
    ether.tap({"session": "logs", "broker": proxy.url, "instances": CAM})

    def arrives() -> bool:
        try:
            ether.get("cam", "complain", {"length": 9_000}, timeout_s=patience(5))
        except EtherError:
            return False
        return soon(lambda: "it failed: yyy" in log_of("logs"), 1)

    assert soon(arrives, 30)
    assert len(proxy.cuts) <= STRIKES + 1


def test_a_name_without_rights(ether: Ether, brokers: ExitStack) -> None:
    """The claim of a name and the announcement under it go to one topic. Nobody would hear of the instance: it is not
    started, and why is said at once."""
    broker = brokers.enter_context(limited_mosquitto(acl=denied("ether/1/shy/state/cam")))
    began = time.monotonic()
    with pytest.raises(PublishRefused, match="'ether/1/shy/state/cam': not authorized"):
        ether.tap({"session": "shy", "broker": broker.url_tcp, "instances": CAM})
    assert took_s(began) < patience(10)


def test_a_description_that_is_too_large(ether: Ether, brokers: ExitStack) -> None:
    wordy = {"wordy": {"class_path": "refused_parts.Wordy"}}
    broker = brokers.enter_context(limited_mosquitto("message_size_limit 30000"))
    began = time.monotonic()
    with pytest.raises(StartFailed, match="packet too large"):
        ether.tap({"session": "wordy", "broker": broker.url_tcp, "instances": wordy})
    assert took_s(began) < patience(10)


def test_a_leader_without_rights_to_its_entry(ether: Ether, brokers: ExitStack) -> None:
    broker = brokers.enter_context(limited_mosquitto(acl=denied("ether/1/nowhere/session")))
    began = time.monotonic()
    with pytest.raises(PublishRefused, match="'ether/1/nowhere/session': not authorized"):
        ether.tap({"session": "nowhere", "broker": broker.url_tcp})
    assert took_s(began) < patience(8)


def test_a_barrier_without_rights(ether: Ether, brokers: ExitStack) -> None:
    """Questions to several instances: sync and save_all raise at once; the end says which step could not be asked."""
    broker = brokers.enter_context(
        limited_mosquitto(acl=denied("ether/1/bar/control/sync/#", "ether/1/bar/control/save_all/#"))
    )
    ether.tap({"session": "bar", "broker": broker.url_tcp, "instances": CAM})
    began = time.monotonic()
    with pytest.raises(PublishRefused, match=r"control/sync/.*: not authorized"):
        ether.sync("frame", timeout_s=10)
    with pytest.raises(PublishRefused, match=r"control/save_all/.*: not authorized"):
        ether.save_all()
    assert took_s(began) < patience(4.8)
    began = time.monotonic()
    with pytest.raises(LifecycleFailed, match="cam: save_all: could not be asked: the broker refused"):
        ether.shutdown()
    assert took_s(began) < patience(8)


def test_the_answer_to_a_barrier(ether: Ether, brokers: ExitStack) -> None:
    broker = brokers.enter_context(limited_mosquitto(SIZE_LIMIT))
    ether.tap({"session": "sync", "broker": broker.url_tcp, "instances": CAM})
    began = time.monotonic()
    with pytest.raises(SyncError, match="packet too large"):
        ether.sync("frame", size=LARGE, timeout_s=10)
    assert took_s(began) < patience(5)
    assert ether.sync("frame") == {"cam": b"\0"}


def test_a_subscription_that_is_refused(ether: Ether, brokers: ExitStack) -> None:
    """A stock Mosquitto grants everything. With rights by its own plugin it refuses, in words."""
    plugin = next(Path("/usr/lib").rglob("mosquitto_dynamic_security.so"), None)
    if plugin is None:
        pytest.skip("this Mosquitto has no plugin for rights")
    roles = {
        "defaultACLAccess": {
            "publishClientSend": True, "publishClientReceive": True, "subscribe": False, "unsubscribe": True,
        },
        "anonymousGroup": "all",
        "groups": [{"groupname": "all", "roles": [{"rolename": "ether"}]}],
        "roles": [{"rolename": "ether", "acls": [
            {"acltype": "subscribePattern", "topic": "ether/#", "priority": 0, "allow": True},
        ]}],
    }  # fmt: skip
    config = Path(os.environ["XDG_STATE_HOME"]) / "dynsec.json"
    config.write_text(json.dumps(roles))
    broker = brokers.enter_context(limited_mosquitto(f"plugin {plugin}", f"plugin_opt_config_file {config}"))
    ether.tap({"session": "subs", "broker": broker.url_tcp})
    began = time.monotonic()
    with pytest.raises(SubscribeRefused, match="'plant/#': not authorized"):
        ether.subscribe("mqtt:plant/#")
    assert took_s(began) < patience(2.4)
    with ether.subscribe("v") as sub:
        ether.pub(1, topic="v")
        assert sub.get(patience(5)).value == 1


def test_an_announced_limit_is_told_at_once(ether: Ether, brokers: ExitStack) -> None:
    """`max_packet_size`, which CONNACK announces: refused in no time, with advice, and nothing is blocked."""
    broker = brokers.enter_context(limited_mosquitto("max_packet_size 1000000"))
    ether.tap({"session": "announced", "broker": broker.url_tcp, "instances": CAM})
    for what in (
        lambda: ether.pub({"a": b"x" * LARGE}, topic="img"),
        lambda: ether.record({"a": b"x" * LARGE}, "v"),
        lambda: ether.get("cam", "snap", {"given": b"x" * LARGE}),
        lambda: ether.save("cam", "dose", {"given": b"x" * LARGE}),
    ):
        began = time.monotonic()
        with pytest.raises(PayloadTooLarge, match="this broker takes at most"):
            what()
        assert took_s(began) < patience(2.4)  # where it is sent and refused there, the answer is waited for: 10
    ether.record({"n": 0}, "v").wait(patience(20))


def test_the_search_for_sessions_without_rights(ether: Ether, brokers: ExitStack) -> None:
    """A user who may do nothing hears of it at once, in the broker's words."""
    broker = brokers.enter_context(limited_mosquitto(acl="topic readwrite nothing/#\n"))
    began = time.monotonic()
    with pytest.raises(PublishRefused, match=r"not authorized. Do the broker's rights"):
        ether.tap({"session": "bench", "broker": broker.url_tcp})
    assert took_s(began) < patience(2)
