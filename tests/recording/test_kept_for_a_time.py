"""`record: {keep: …}`: the recorder deletes what is too old, and nothing that has to wait for its backup."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from ledger_parts import batch, entry
from patience import patience
from running_brokers import soon

from ether import Ether
from ether.ledger.life.backup import back_up
from ether.ledger.reader import LedgerReader, RecordFilter
from ether.ledger.verify import verify
from ether.ledger.volumes import closed_volumes
from ether.ledger.writer import LedgerWriter


@pytest.mark.parametrize("until_backed_up", [False, True])
def test_the_recorder_deletes_what_is_too_old(tmp_path: Path, until_backed_up: bool) -> None:
    folder, session, now = tmp_path / "led", f"kept-{tmp_path.name}", time.time()
    writer = LedgerWriter.open(folder, session)
    for age, first in ((9, 1), (6, 11), (2, 21)):  # days
        topics = ["camera/frame", "room"] * 5
        rows = [entry(first + k, topic=topic) for k, topic in enumerate(topics)]
        writer.append([batch(*rows)], now - age * 86_400)
        assert writer.rotate(now - age * 86_400) is None
    writer.close()

    def there() -> dict[str, int]:
        with LedgerReader.open(folder) as reader:
            topics = [record.topic for record in reader.records(RecordFilter(kinds=("data",)))]
        return {topic: topics.count(topic) for topic in ("camera/frame", "room")}

    own = Ether()
    record = {"topics": ["room"], "folder": str(folder), "keep": {"camera/#": "1d", "#": "7d"}}
    own.tap({
        "session": session, "broker": {"engine": "amqtt"}, "record": {**record, "until_backed_up": until_backed_up},
    })  # fmt: skip
    try:
        if until_backed_up:
            own.pub({"n": 1}, topic="room", save=True).wait(timeout_s=patience(20))
            assert there()["camera/frame"] == 15
            back_up(folder, tmp_path / "backup", now)
            (folder / "rotate-now").touch()  # after each rotation it looks again
        # Longer than the pause before the next try where a reader is in the way of a rotation, as these looks may be.
        assert soon(lambda: there()["camera/frame"] == 0, 30), there()
        assert soon(lambda: there()["room"] == (11 if until_backed_up else 10), 30), there()
    finally:
        own.shutdown()
    report = verify(folder)
    assert report.ok, str(report)
    assert [closed.generation for closed in closed_volumes(folder)][:3] == [1, 1, 1]
    with LedgerReader.open(folder) as reader:
        said = reader.deletions()[0].said
    assert (said["by"], said["why"]) == ("the recorder 'recorder'", "record: keep")
    assert "room" not in said["topics"] or "7 days" in said["what"]
