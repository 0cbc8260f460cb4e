"""The parts of the page that decide without a process: who may look, what is thinned, what is told, what is bounded."""

from __future__ import annotations

import asyncio
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ether.cli.exits import CommandMistake
from ether.cli.lab.dashboard import address_of
from ether.dashboard.access import ACT, ACTION_HEADER, LINK_LASTS_S, Access, BrowserRights, Refused
from ether.dashboard.feed import Feed, Wishes
from ether.dashboard.pace import Pace
from ether.dashboard.pictures import MOST_PIXELS, is_picture, picture_in, picture_of
from ether.dashboard.pictures_of import Pictures
from ether.dashboard.questions import NotAnswered, Questions
from ether.dashboard.shown import ROWS_MAX, plain, table_of, text_of, type_text
from ether.dashboard.values import is_outside
from ether.dashboard.versions import Versions
from ether.dashboard.watched_lab import WatchedLab
from ether.reading.plots.numbers import FIELDS_MAX, numbers_in
from ether.reading.plots.series import Series, thinned

HOST = "127.0.0.1:8080"
GOOD = {"host": HOST, "origin": f"http://{HOST}", ACTION_HEADER: "1", "content-type": "application/json"}


def access(**options: bool) -> Access:
    return Access(frozenset({HOST}), **options)


# -- who may look


def test_a_link_opens_one_browser_once() -> None:
    door = access()
    token = door.new_link()
    secret = door.open(token, "127.0.0.1")
    assert door.browser(secret).address == "127.0.0.1"
    with pytest.raises(Refused, match="used before"):
        door.open(token, "127.0.0.1")


def test_pages_on_several_ports_have_cookies_of_their_own() -> None:
    assert access().cookie == "ether-8080" != Access(frozenset({"127.0.0.1:9090"})).cookie


def test_a_link_that_nobody_opened_in_time_opens_nothing() -> None:
    time = [0.0]
    door = Access(frozenset({HOST}), now=lambda: time[0])
    token = door.new_link()
    time[0] = LINK_LASTS_S + 1
    with pytest.raises(Refused):
        door.open(token, "127.0.0.1")


@pytest.mark.parametrize("cookie", [None, "", "x", "\N{SNOWMAN}"])
def test_who_has_no_cookie_sees_nothing(cookie: str | None) -> None:
    door = access()
    door.open(door.new_link(), "127.0.0.1")
    with pytest.raises(Refused) as refused:
        door.browser(cookie)
    assert refused.value.status == 401


@pytest.mark.parametrize(
    "change",
    [
        {"host": "evil.example"}, {"host": ""}, {"host": "127.0.0.1:1"}, {"origin": "http://evil.example"},
        {"origin": "null"}, {"origin": None}, {"origin": f"http://{HOST}.evil.example"}, {ACTION_HEADER: None},
        {"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"},
    ],
)  # fmt: skip
def test_an_action_from_elsewhere_is_refused(change: dict[str, str | None]) -> None:
    headers = {key: value for key, value in {**GOOD, **change}.items() if value is not None}
    access().check_action(GOOD)
    with pytest.raises(Refused):
        access().check_action(headers)


def test_a_page_that_only_shows_does_nothing() -> None:
    with pytest.raises(Refused, match="only shows"):
        access(read_only=True).check_action(GOOD)


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "bench.example"])
def test_a_page_is_served_at_an_address_that_can_be_opened(address: str) -> None:
    with pytest.raises(CommandMistake, match="--listen"):
        address_of(address)


def test_a_page_stays_on_this_machine_unless_it_is_told() -> None:
    assert address_of("192.168.1.5") == "192.168.1.5"
    assert address_of(None) == "127.0.0.1"


@pytest.mark.parametrize(
    "topic", ["mqtt:plant/boiler1/temperature", "mqtt:plant/#", "mqtt:a/+/b", "mqtt:$SYS/broker/uptime"]
)
def test_topics_of_programs_without_ether_are_followed(topic: str) -> None:
    assert is_outside(topic)


@pytest.mark.parametrize(
    "topic", ["temperature", "mqtt:#", "mqtt:+/x", "mqtt:ether/1/bench/call/#", "mqtt:ether/#", "mqtt:", "#"]
)
def test_no_member_makes_the_page_hear_what_sessions_say_among_themselves(topic: str) -> None:
    assert not is_outside(topic)


def _unanswered(pace: Pace, time: list[float]) -> None:
    with pace:
        time[0] += 5.0
        raise TimeoutError


def test_a_question_that_takes_long_is_asked_rarely() -> None:
    """The proof counts all that a ledger has: of a day it takes seconds, and the page asks for it all day."""
    time = [0.0]
    pace = Pace(2.0, share=100.0, now=lambda: time[0])
    asked, busy = 0, 0.0
    while time[0] < 3600:
        if pace.due():
            takes = 0.001 if time[0] < 600 else 0.5
            with pace:
                time[0] += takes
            asked, busy = asked + 1, busy + takes
        time[0] += 0.1
    assert busy / time[0] < 0.0101
    assert asked > 280  # every 2 s as long as it is quick
    with pytest.raises(TimeoutError):
        _unanswered(pace, time)
    time[0] += 499.0
    assert not pace.due()
    time[0] += 2.0
    assert pace.due()


# -- what is thinned


def test_a_peak_of_one_sample_is_seen_however_long_the_window() -> None:
    series = Series()
    for number in range(20_000):
        series.add(1000 + number / 1000, 5.0 if number == 7_777 else math.sin(number / 50))
    series.settle(2000.0)
    shown = thinned(series.since(0.0), 200)
    assert len(shown) <= 220
    assert max(value for _, value in shown if value is not None) == 5.0


def test_memory_is_bounded_at_any_rate() -> None:
    series = Series()
    for number in range(200_000):
        series.add(number / 100, float(number % 7))
    assert len(series.since(0.0)) <= 6000 + 7200


def test_a_slow_number_is_kept_as_it_is() -> None:
    series = Series()
    for number in range(50):
        series.add(1000.0 + number, float(number))
    series.settle(2000.0)
    assert [value for _, value in series.since(0.0)] == list(map(float, range(50)))


def test_nan_is_a_gap_and_times_that_go_back_go_on() -> None:
    series = Series()
    for time, value in ((1000.0, 1.0), (1001.0, math.nan), (1000.5, 2.0), (1003.0, math.inf), (1004.0, 3.0)):
        series.add(time, value)
    series.settle(2000.0)
    points = series.since(0.0)
    assert [value for _, value in points] == [1.0, None, 2.0, None, 3.0]
    assert [time for time, _ in points] == sorted(time for time, _ in points)


@given(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=400), st.integers(4, 60))
def test_thinning_keeps_the_lowest_and_the_highest(values: list[float], most: int) -> None:
    shown = [value for _, value in thinned([(float(n), v) for n, v in enumerate(values)], most)]
    assert min(shown) == min(values)
    assert max(shown) == max(values)
    assert len(shown) <= max(most, 3)


# -- what is told


def test_each_browser_is_told_what_it_lacks() -> None:
    known = Versions()
    known.put("topics", "a", 1)
    known.put("topics", "b", 2)
    first = known.since(0)
    assert (first.whole, first.rows) == (True, {"topics": {"a": 1, "b": 2}})
    known.put("topics", "a", 1)
    assert known.since(first.number).rows == {}
    known.put_all("topics", {"b": 3})
    assert known.since(first.number).rows == {"topics": {"a": None, "b": 3}}
    assert known.since(0).rows == {"topics": {"b": 3}}


def test_who_lacks_more_removals_than_are_kept_gets_everything() -> None:
    known = Versions()
    known.put("logs", "stays", 1)
    begin = known.since(0).number
    for number in range(5000):
        known.put("logs", str(number), number)
        known.put("logs", str(number), None)
    found = known.since(begin)
    assert found.whole
    assert found.rows == {"logs": {"stays": 1}}


@pytest.mark.parametrize(
    "text", ["", "[]", "nonsense", '{"plotted": 7}', "[" * 5000, '{"window_s": NaN, "pixels": 1e99}']
)
def test_a_browser_that_says_nonsense_is_shown_the_lists(text: str) -> None:
    assert Wishes.from_text(text).plotted == ()
    assert 1 <= Wishes.from_text(text).window_s <= 1800


def test_what_a_browser_asks_for_is_bounded() -> None:
    wishes = Wishes.from_text(json.dumps({"plotted": [f"t{n}" for n in range(1000)], "window_s": 1e9, "pixels": 1e9}))
    assert (len(wishes.plotted), wishes.window_s, wishes.pixels) == (8, 1800.0, 4000)


# -- what is bounded


def test_ten_thousand_keys_are_counted_and_not_sent() -> None:
    value = {f"key {n}": n for n in range(10_000)}
    numbers, left_out = numbers_in(value)
    table = table_of(value)
    assert (len(numbers), left_out) == (FIELDS_MAX, 10_000 - FIELDS_MAX)
    assert table is not None
    assert (len(table["rows"]), table["of"]) == (ROWS_MAX, 10_000)
    assert len(json.dumps(plain(value))) < 20_000
    assert len(text_of(value)) < 200


def test_what_nests_deep_or_is_no_json_is_described() -> None:
    deep: object = 1.0
    for _ in range(900):
        deep = [deep]
    for value in (
        deep,
        {"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": 1}}}}}}}},
        math.nan,
        1 << 2000,
        b"\0" * 10,
        object(),
    ):
        json.dumps([plain(value), text_of(value), type_text(value)], allow_nan=False)


def test_a_picture_of_a_hundred_megabytes_becomes_a_small_one() -> None:
    large = np.zeros((7000, 7500), np.uint16)
    large[:3500] = 4095
    assert is_picture(large)
    frame = picture_of(large, {"topic": "image"})
    length = int.from_bytes(frame[:4], "little")
    head = json.loads(frame[4 : 4 + length])
    assert head["width"] * head["height"] <= MOST_PIXELS
    assert (head["low"], head["high"], head["shape"]) == (0.0, 4095.0, [7000, 7500])
    pixels = np.frombuffer(frame, "<u2", offset=4 + length)
    assert (pixels.size, pixels.max(), pixels.min()) == (head["width"] * head["height"], 65535, 0)


def test_an_image_beside_the_number_of_its_frame_is_found() -> None:
    frame = np.zeros((20, 30), np.uint8)
    assert picture_in(frame) is not None
    found = picture_in({"number": 7, "few": np.zeros(3), "image": frame})
    assert found is not None
    assert found[0] == "image"
    assert found[1] is frame
    many = {f"key {number}": 0 for number in range(100_000)} | {"image": frame}
    for none in ({"number": 7}, [frame], "frame", many):
        assert picture_in(none) is None


def test_nan_in_a_picture_is_counted() -> None:
    array = np.full((16, 16), 2.0)
    array[3, 3:6] = np.nan
    array[0, 0] = 1.0
    frame = picture_of(array, {})
    head = json.loads(frame[4 : 4 + int.from_bytes(frame[:4], "little")])
    assert (head["bad"], head["low"], head["high"]) == (3, 1.0, 2.0)


@pytest.mark.parametrize(
    "value", [np.zeros(5), np.zeros((2, 3)), np.zeros((9, 9, 5)), np.zeros((9, 9), "U3"), 3.0, "text"]
)
def test_what_is_no_picture_is_not_drawn(value: object) -> None:
    assert not is_picture(value)


def test_half_a_surrogate_pair_reaches_the_browser() -> None:
    """JSON may hold one, and no UTF-8 has it: it must not end the feed of every browser."""
    lab, sent = WatchedLab(), list[str]()
    lab.versions.put("topics", "t", {"text": "\ud800"})

    class Socket:
        async def send_text(self, data: str) -> None:
            sent.append(data.encode().decode())
            raise ConnectionError

        async def send_bytes(self, data: bytes) -> None:
            raise NotImplementedError

    with pytest.raises(ConnectionError):
        asyncio.run(Feed(lab, Pictures(lab.values), lambda: BrowserRights(ACT)).run(Socket()))
    assert json.loads(sent[0])["rows"]["topics"]["t"]["text"] == "\ud800"


@pytest.mark.parametrize("what", ["/etc/passwd:1", "table.csv:3", "", "row", "--ledger=/etc"])
def test_a_question_about_a_record_opens_no_file(what: str) -> None:
    with pytest.raises(NotAnswered, match="expected an id or a row"):
        Questions(WatchedLab()).answer("why", {"what": what})
