"""A path that strips MQTT 5 properties: a default bridge between two stock Mosquittos, or a gateway (fault E2).

A save runs once, whatever lies between; calls, syncs and leases work; what cannot work is said at `tap`.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from bare_promises import BarePromises, Habits
from patience import patience
from running_brokers import mosquitto_missing, soon
from stock_mosquittos import DEFAULT_BRIDGE, V5_BRIDGE, bridged_mosquittos, publish, stock_mosquitto, stranger, url_of

from ether import Ether
from ether.errors import InstanceLeased, NameTaken
from ether.system.machine_mark import reply_client
from ether.transport.base import Delivery, Transport
from ether.wire.envelope import has_property_headers

pytestmark = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))

PUMP = {"class_path": "pump_parts.Pump"}
ADVICE = "bridge_protocol_version mqttv50"
DOSE, COUNT = "ether/1/bench/call/pump/dose", "ether/1/bench/call/pump/count"
SYNC = "ether/1/bench/control/sync"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def program(stack: ExitStack, url: str, **instances: dict[str, Any]) -> Ether:
    ether = Ether()
    ether.tap({"session": "bench", "broker": url, "instances": instances})
    stack.callback(ether.shutdown)
    return ether


def two_sides(stack: ExitStack, bridge: Sequence[str] = DEFAULT_BRIDGE) -> tuple[Ether, Ether, str, str]:
    """A program that leads and has a pump, a guest beyond the bridge, and the brokers of the two."""
    near, far = map(url_of, stack.enter_context(bridged_mosquittos(bridge)))
    leader = program(stack, near, pump=PUMP)
    return leader, program(stack, far), near, far


@pytest.fixture(params=["bridge", "gateway"])
def apart(request: pytest.FixtureRequest, stack: ExitStack) -> tuple[Ether, Ether, str, str]:
    """As `two_sides`; or both behind a gateway that strips for everybody, and its broker."""
    if request.param == "bridge":
        return two_sides(stack)
    port = stack.enter_context(stock_mosquitto())
    url = stack.enter_context(BarePromises(port, Habits(strips=True))).url
    return program(stack, url, pump=PUMP), program(stack, url), url_of(port), url_of(port)


def settles_at(ask: Callable[[], int], number: int, beyond_s: float = 2.0) -> bool:
    """Whether it becomes this number, and is no more a while after that, in which a second run would have come."""
    return soon(lambda: ask() >= number, 10) and not soon(lambda: ask() > number, beyond_s)


def test_a_save_runs_once_and_is_answered(apart: tuple[Ether, Ether, str, str]) -> None:
    """R2: it was `pending`, and the pump had dosed 6 times in 18 s."""
    leader, guest, *_ = apart
    begun = time.monotonic()
    assert guest.save("pump", "dose", {"ul": 5}, timeout_s=patience(6)) == {
        "status": "success",
        "result": 1,
        "message": "pump.dose succeeded",
    }
    assert time.monotonic() - begun < patience(3)
    assert settles_at(lambda: leader.get("pump", "count"), 1)
    assert guest.save("Pump", "dose", {})["error"].startswith("ValidationFailed")


def test_a_long_save_is_asked_for_again_and_runs_once(apart: tuple[Ether, Ether, str, str]) -> None:
    leader, guest, *_ = apart
    answer = guest.save("pump", "dose", {"ul": 5, "take_s": 3.0}, timeout_s=0.5)
    assert answer["status"] == "pending"
    assert guest.collect(answer["call_id"], timeout_s=patience(10))["result"] == 1
    assert settles_at(lambda: leader.get("pump", "count"), 1)


def test_calls_syncs_and_leases_work(apart: tuple[Ether, Ether, str, str]) -> None:
    leader, guest, *_ = apart
    assert guest.get("pump", "count") == leader.get("pump", "count") == 0
    assert guest.get("Pump", "pid") == leader.get("pump", "pid")
    assert guest.sync("prime") == {"pump": 1}
    assert leader.sync("prime") == {"pump": 2}
    with guest.lease("pump", reason="alone"):
        assert guest.get("pump", "count") == 0
        with pytest.raises(InstanceLeased):
            leader.get("pump", "count")
    assert leader.get("pump", "count") == 0
    with pytest.raises(NameTaken):
        guest.host(object(), "pump")


def test_an_instance_beyond_the_bridge_is_called_from_here(stack: ExitStack) -> None:
    near, far = map(url_of, stack.enter_context(bridged_mosquittos()))
    leader = program(stack, near)
    guest = program(stack, far, pump=PUMP)
    assert soon(lambda: [member["name"] for member in leader.instances()] == ["pump"], 5)
    assert leader.get("pump", "count") == 0
    assert leader.save("pump", "dose", {"ul": 1})["result"] == 1
    assert leader.sync("prime") == {"pump": 1}
    with leader.lease("pump", reason="alone"):
        assert leader.get("pump", "count") == 1
    assert settles_at(lambda: guest.get("pump", "count"), 1)


@pytest.mark.parametrize(("bridge", "told"), [(DEFAULT_BRIDGE, 1), (V5_BRIDGE, 0)], ids=["default", "v5"])
def test_a_guest_behind_a_bridge_is_told_what_to_set(
    stack: ExitStack, caplog: pytest.LogCaptureFixture, bridge: Sequence[str], told: int
) -> None:
    with caplog.at_level(logging.WARNING):
        leader, guest, *_ = two_sides(stack, bridge)
        assert guest.save("pump", "dose", {"ul": 1})["result"] == 1
        assert leader.get("pump", "count") == 1
        # It is said on the thread that hears the others.
        assert soon(lambda: sum(ADVICE in message for message in caplog.messages) == told, 10), caplog.messages


def test_who_is_behind_a_gateway_is_told_that_properties_are_stripped(
    stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        port = stack.enter_context(stock_mosquitto())
        program(stack, stack.enter_context(BarePromises(port, Habits(strips=True))).url)
        said = "do not survive the broker"
        assert soon(lambda: sum(said in message for message in caplog.messages) == 1, 10), caplog.messages


def test_messages_of_a_guest_keep_their_headers(stack: ExitStack) -> None:
    leader, guest, *_ = two_sides(stack)
    with leader.subscribe("a") as here:
        guest.pub({"n": 1}, topic="a")
        guest.pub(b"\x00\xff", topic="a")
        first, second = here.get(patience(5)), here.get(patience(5))
    assert (first.value, second.value) == ({"n": 1}, b"\x00\xff")
    assert first.source == second.source is not None
    with guest.subscribe("b") as there:
        leader.pub({"n": 2}, topic="b")
        message = there.get(patience(5))
    assert (message.value, message.id) == ({"n": 2}, None), "what the warning says does not work"


# -- what a request needs to run exactly once is in its body


@contextmanager
def spied(url: str, topic_filter: str) -> Iterator[Callable[[], Delivery]]:
    """What is published there meanwhile, one by one."""
    with stranger(url) as transport:
        transport.subscribe([topic_filter])
        yield lambda: _next(transport)


def _next(transport: Transport) -> Delivery:
    item = transport.receive(patience(5))
    assert isinstance(item, Delivery)
    transport.consumed(item)
    return item


@pytest.fixture
def bench(stack: ExitStack) -> tuple[Ether, Ether, str]:
    """A program with a pump, another one, and their broker, which strips nothing."""
    url = url_of(stack.enter_context(stock_mosquitto()))
    return program(stack, url, pump=PUMP), program(stack, url), url


def test_a_save_carries_what_it_needs_in_its_body_over_mqtt_5_too(bench: tuple[Ether, Ether, str]) -> None:
    _, caller, url = bench
    with spied(url, DOSE) as next_request:
        assert caller.save("pump", "dose", {"ul": 1})["result"] == 1
        request = next_request()
    body = json.loads(request.payload)
    assert body["ul"] == 1
    assert {"id", "source", "time", "correlation", "reply_to", "schema"} <= body["_ether"].keys()
    assert has_property_headers(request.properties)


@pytest.mark.parametrize("stripped_first", [True, False])
def test_the_same_save_over_two_paths_runs_once(bench: tuple[Ether, Ether, str], stripped_first: bool) -> None:
    """One with its properties, one without, in either order."""
    leader, caller, url = bench
    with spied(url, DOSE) as next_request:
        assert caller.save("pump", "dose", {"ul": 1})["result"] == 1
        request = next_request()
    again = [b"", request.properties]
    for properties in again if stripped_first else reversed(again):
        publish(url, DOSE, request.payload, properties=properties)
    assert settles_at(lambda: leader.get("pump", "count"), 1, 0.5)


def test_a_save_that_has_lost_its_id_is_not_run(bench: tuple[Ether, Ether, str]) -> None:
    leader, caller, url = bench
    with spied(url, DOSE) as next_request:
        assert caller.save("pump", "dose", {"ul": 1})["result"] == 1
        body = json.loads(next_request().payload)
    head = {key: value for key, value in body["_ether"].items() if key != "correlation"}
    publish(url, DOSE, json.dumps({**body, "_ether": head}))
    publish(url, DOSE, json.dumps({**body, "_ether": {"id": "damaged"}}))
    assert not soon(lambda: leader.get("pump", "count") > 1, 0.5)
    publish(url, DOSE, json.dumps({"ul": 1}))
    assert settles_at(lambda: leader.get("pump", "count"), 2, 0.5), "a stranger's plain call runs"


def head_of(reply_to: str, **more: Any) -> dict[str, Any]:
    """Headers of a request that was sent 100 s ago and was of no use after 5 s, as they stand in a body."""
    number = f"{time.time_ns() % 10**12:012d}"
    stale = {"time": time.time() - 100, "expiry_s": 5.0}
    identity = {"id": f"018bcfe5-6800-7000-8000-{number}", "source": "other", "seq": 1}
    return {**identity, "reply_to": reply_to, "correlation": number.encode().hex(), **stale, **more}


def test_stale_requests_are_not_run_although_the_brokers_expiry_is_lost(bench: tuple[Ether, Ether, str]) -> None:
    """A bridge that was away delivers what it has kept: the deadline in the body counts."""
    leader, _, url = bench
    reply_to = f"ether/1/bench/reply/{reply_client('other')}"
    publish(url, DOSE, json.dumps({"ul": 1, "_ether": head_of(reply_to)}))
    publish(url, SYNC, json.dumps({"topic": "prime", "arguments": {}, "_ether": head_of(reply_to)}))
    stop = {"instances": ["pump"], "returns": False, "_ether": head_of(reply_to)}
    publish(url, "ether/1/bench/control/stop", json.dumps(stop))
    keep = {"instances": ["main"], "do": "remove", "name": "pump", "_ether": head_of(reply_to)}
    publish(url, "ether/1/bench/control/keep", json.dumps(keep))
    take = {"do": "take", "token": "t", "reason": "r", "facts": {}, "_ether": head_of(reply_to)}
    publish(url, "ether/1/bench/call/pump/ether-lease", json.dumps(take))
    with spied(url, f"{reply_to}/#") as next_answer:
        fresh = head_of(reply_to, time=time.time())
        publish(url, COUNT, json.dumps({"_ether": fresh}))
        answer = json.loads(next_answer().payload)
    assert answer["root"] == 0, "a stale dose was run"
    assert answer["_ether"]["correlation"] == fresh["correlation"]
    assert leader.sync("prime") == {"pump": 1}, "a stale sync was run"
    assert [member["state"] for member in leader.instances()] == ["ready"]
    assert leader.get("pump", "count") == 0


def test_requests_that_come_twice_are_carried_out_once(bench: tuple[Ether, Ether, str]) -> None:
    leader, caller, url = bench
    with spied(url, f"{SYNC}/+") as next_request:
        assert caller.sync("prime") == {"pump": 1}
        request = next_request()
    for properties in (request.properties, b""):
        publish(url, SYNC, request.payload, properties=properties)
    lease = "ether/1/bench/call/pump/ether-lease"
    with spied(url, lease) as next_request:
        with caller.lease("pump", reason="alone"):
            taken = next_request()
        publish(url, lease, taken.payload)
    assert leader.get("pump", "primed") == 1
    assert leader.get("pump", "count") == 0, "it is leased to nobody"


def test_a_lease_without_a_holder_is_not_given(bench: tuple[Ether, Ether, str]) -> None:
    leader, _, url = bench
    take = {"do": "take", "token": "t", "reason": "r", "facts": {}}
    publish(url, "ether/1/bench/call/pump/ether-lease", json.dumps(take))
    publish(url, DOSE, '{"ul": 1}')
    assert soon(lambda: leader.get("pump", "count") == 1, 5)
