"""Classes of others, by the registry: hints that mean nothing here, no signatures, results that cannot be sent."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest
from engine_params import EMBEDDED
from patience import patience
from vendor_parts import INSTANCES, REGISTRY

from ether import Ether, ether_get
from ether import ether as ether_of_this_process
from ether.errors import AnswerNotSent, RemoteError, SyncError
from ether.testing import Lab

pytestmark = [pytest.mark.in_turn("ether"), pytest.mark.slow("instances of their own")]


@pytest.fixture(scope="module", params=EMBEDDED)
def ether(request: pytest.FixtureRequest) -> Iterator[Ether]:
    """A session with the vendors' classes."""
    own = Ether()
    described = {"broker": {"engine": request.param}, "instances": INSTANCES, "registry": REGISTRY}
    own.tap(described, timeout_s=patience(30))
    own.save("plc", "save_register", {"address": 0, "value": 0})  # opens the file of calls, which stays open
    yield own
    own.shutdown()


def get(ether: Ether, instance: str, call: str, params: Any = None) -> Any:
    return ether.get(instance, call, params, timeout_s=patience(10))


def test_i4_a_hint_that_only_a_type_checker_sees(ether: Ether) -> None:
    assert get(ether, "oven", "read") == 20.0
    get(ether, "oven", "set_power", {"watts": "12.5"})
    assert get(ether, "oven", "power") == "12.5"


def test_i8_a_class_without_signatures_works_by_position_and_by_name(ether: Ether) -> None:
    with ether.subscribe("popped") as popped:
        assert get(ether, "cam", "append", 3) is None
        ether.instance("cam").append([4, 5])
        assert [get(ether, "cam", "popleft") for _ in range(4)] == [1, 2, 3, [4, 5]]
        assert [popped.get(patience(5)).value for _ in range(4)] == [1, 2, 3, [4, 5]]
    with pytest.raises(RemoteError, match="IndexError"):
        get(ether, "cam", "popleft")
    with pytest.raises(RemoteError, match="takes no keyword arguments"):
        get(ether, "cam", "append", {"value": 3})
    assert str(inspect.signature(ether.instance("cam").rotate)) in ("(*args, **kwargs)", "(n=1, /)")


@pytest.mark.parametrize("call", ["write_register", "write_and_tell"])
def test_i7_what_ran_says_so_where_its_answer_cannot_travel(ether: Ether, call: str) -> None:
    with pytest.raises(AnswerNotSent, match="ran, but its answer cannot travel: EncodeError") as caught:
        get(ether, "plc", call, {"address": 7, "value": len(call)})
    assert caught.value.ran is True
    assert isinstance(caught.value, RemoteError)
    assert get(ether, "plc", "read", {"address": 7}) == len(call)


def test_i7_a_save_that_ran_says_so_and_is_not_repeated(ether: Ether) -> None:
    status = ether.save("plc", "save_register", {"address": 8, "value": 5}, timeout_s=patience(10))
    assert (status["status"], status["ran"]) == ("error", True)
    assert status["error"].startswith("EncodeError: ")
    assert get(ether, "plc", "read", {"address": 8}) == 5


def test_i7_a_result_that_is_ignored_is_none(ether: Ether) -> None:
    assert get(ether, "plc", "write_quietly", {"address": 9, "value": 6}) is None
    assert get(ether, "plc", "read", {"address": 9}) == 6


def test_i7_a_return_hint_of_the_registry_is_not_enforced(ether: Ether) -> None:
    assert get(ether, "plc", "read", {"address": 10}) == 0  # its hint is str


def test_i7_a_sync_whose_results_cannot_travel_says_so_at_once(ether: Ether) -> None:
    with pytest.raises(SyncError, match="ran, but its answer cannot travel: EncodeError"):
        ether.sync("prepare", timeout_s=patience(10))


class Careful:
    """Decorated by its author, whose hint is a promise."""

    @ether_get
    def wrong(self) -> int:
        return "text"  # type: ignore[return-value]


def test_a_return_hint_of_a_decorated_class_is_a_promise_and_the_method_has_run() -> None:
    with Lab(objects={"careful": Careful()}), pytest.raises(AnswerNotSent, match="ResultInvalid") as caught:
        ether_of_this_process.get("careful", "wrong")
    assert caught.value.ran is True


def test_i4_one_warning_names_class_file_line_and_hint(caplog: pytest.LogCaptureFixture) -> None:
    from vendor_parts import Oven

    with Lab({"registry": REGISTRY}, objects={"oven": Oven()}):
        pass
    found = [record.getMessage() for record in caplog.records if "not checked" in record.getMessage()]
    assert len(found) == 1
    assert re.search(r"Oven\.set_power\(watts: Decimal\) at \S*vendor_parts\.py:\d+", found[0])
