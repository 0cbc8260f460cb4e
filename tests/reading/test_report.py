"""`ether report`: a run as one file, whatever its values are; its plots and pictures."""

from __future__ import annotations

import json
import math
import struct
import zlib
from html.parser import HTMLParser
from pathlib import Path

import pytest
from lineage_lab import Writer

from ether.cli.main import main
from ether.reading.plots.svg import COLUMNS, Line, Plot, Thinned, number_text, svg, ticks, time_unit
from ether.reading.report.picture import is_picture, png_of

EVIL = '<script>alert("1")</script> \u202e \x1b[31m'


def test_every_extreme_is_kept_and_the_size_is_bounded() -> None:
    thinned = Thinned(0.0, 100.0)
    for number in range(200_000):
        thinned.take(number / 2000, math.sin(number / 300))
    for at, value in ((3.3, 50.0), (77.7, -50.0), (50.0, math.nan), (60.0, math.inf), (-5.0, 2.0), (105.0, 3.0)):
        thinned.take(at, value)
    points = thinned.points()
    assert len(points) <= 2 * COLUMNS
    assert {(3.3, 50.0), (77.7, -50.0)} <= set(points)
    assert points == sorted(points)
    assert (thinned.count, thinned.not_finite) == (200_006, 2)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 10.0, [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]),
        (21.01, 21.06, [21.01, 21.02, 21.03, 21.04, 21.05, 21.06]),
        (-1e-9, 1e-9, [-1e-9, -5e-10, 0.0, 5e-10, 1e-9]),
        (5.0, 5.0, [5.0]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(("span_s", "unit"), [(0.0, "s"), (90, "s"), (3600, "min"), (3 * 3600, "h"), (9 * 86400, "d")])
def test_time_has_the_unit_that_people_say(span_s: float, unit: str) -> None:
    assert time_unit(span_s)[1] == unit


def test_numbers_at_axes_are_short() -> None:
    assert [number_text(each) for each in (0.0, 0.1 + 0.2, 1234.5, 1e-7, 2.5e9)] == [
        "0",
        "0.3",
        "1,234.5",
        "1e-07",
        "2.5e+09",
    ]


@pytest.mark.parametrize("points", [[], [(1.0, 5.0)], [(0.0, -1.7e308), (1.0, 1.7e308)], [(2.0, 0.0), (2.0, 0.0)]])
def test_any_points_make_a_picture(points: list[tuple[float, float]]) -> None:
    drawn = svg(Plot("<x>", [Line("a", points)]))
    assert "nan" not in drawn
    assert "inf" not in drawn.replace("finite", "")
    assert "&lt;x&gt;" in drawn


def test_pictures_become_png() -> None:
    np = pytest.importorskip("numpy", reason="numpy is not installed: pip install -e '.[numpy]'")
    grey, colour = np.arange(1000 * 640.0).reshape(1000, 640), np.zeros((20, 30, 3), "uint8")
    grey[3, 3], grey[4, 4] = np.nan, np.inf
    assert is_picture(grey)
    assert is_picture(colour)
    assert not is_picture(np.zeros((4, 100)))
    assert not is_picture(np.zeros((20, 20), complex))
    for picture, size, kind in ((grey, (160, 250), 0), (colour, (30, 20), 2)):
        content = png_of(picture)
        width, height, depth, colours = struct.unpack(">IIBB", content[16:26])
        assert ((width, height), depth, colours) == (size, 8, kind)
        length = struct.unpack(">I", content[33:37])[0]
        rows = zlib.decompress(content[41 : 41 + length])
        assert len(rows) == height * (1 + width * (3 if kind else 1))
    assert png_of(np.full((9, 9), np.nan))


class Page(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.said: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.said.append(data)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    folder = tmp_path / "ledger"
    with Writer(folder) as writer:
        writer.put("main", "dose/1", {"event": "begin", "name": "dose", "metadata": {"note": EVIL}}, kind="run")
        plan = {"event": "plan", "first": 1, "order": [1, 2], "conditions": [{"dose": 0.5}, {"dose": 2}], "nth": 0}
        writer.put("main", "dose/1/trials", plan, kind="run")
        writer.run = "dose/1"
        for number in (1, 2):
            ids = {"trial": number, "attempt": 1}
            writer.put("main", "dose/1/trials", {"event": "trial", **ids}, kind="run")
            for reading in range(3):
                writer.put("reader", EVIL, {"od": number * 0.1 + reading, "unit": EVIL, "none": None}, more=ids)
            ended = {"event": "trial-end", **ids, "status": "done", "took_s": 1.5, "result": {"od": number * 0.1}}
            writer.put("main", "dose/1/trials", ended, kind="run")
        writer.log("reader", "ERROR", EVIL)
        writer.put("reader", "many", {f"key{number}": number for number in range(100)})
        writer.put("main", "dose/1", {"event": "end", "status": "ended"}, kind="run")
        writer.run = ""
        writer.put("other", "later", 1)
    return folder


def test_a_run_is_one_file_that_asks_for_nothing(
    ledger: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", "dose", "--ledger", str(ledger), "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == {"path": "dose-1.html", "run": "dose/1", "records": 7, "trials": 2}
    text = (tmp_path / "dose-1.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.tags & {"script", "link", "iframe", "object", "form"}
    assert page.links == []
    assert "default-src 'none'" in text
    assert "\u202e" not in text
    assert "\x1b" not in text
    said = " ".join(page.said)
    for expected in (
        "dose/1", "ended", "2 of 2", "trials done", "7", "values on 2 topics", '{"dose":0.5}', "1.5 s", '{"od":0.2}',
        "result: od against dose", "88 more columns of many are not drawn",
        '<script>alert("1")</script> \\u202e \\x1b[31m',
    ):  # fmt: skip
        assert expected in said, expected
    assert "later" not in said
    assert "ERROR" in said


def test_without_a_name_it_is_the_last_run_and_a_wrong_one_is_named(
    ledger: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "all.html"
    assert main(["report", "--ledger", str(ledger), "--to", str(target)]) == 0
    assert "7 values of dose/1" in capfd.readouterr().out
    assert main(["report", "does", "--ledger", str(ledger), "--to", str(target)]) == 2
    assert "found does; this ledger has the named runs: dose/1" in capfd.readouterr().err
    assert main(["report", "--ledger", str(ledger), "--to", str(tmp_path / "x.pdf")]) == 2
    assert main(["report", "--ledger", str(ledger), "--to", str(tmp_path / "no" / "x.html")]) == 2
    assert "No such file" in capfd.readouterr().err


def test_a_ledger_without_named_runs_is_reported_whole(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Writer(tmp_path / "ledger") as writer:
        for number in range(5):
            writer.put("cam", "count", number)
    target = tmp_path / "all.html"
    assert main(["report", "--ledger", str(tmp_path / "ledger"), "--to", str(target)]) == 0
    assert "5 values of bench" in capfd.readouterr().out
    assert "count" in target.read_text(encoding="utf-8")
