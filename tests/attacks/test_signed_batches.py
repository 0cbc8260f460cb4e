"""Batches and receipts are signed by the device that sends them, and a ledger keeps the signatures."""

from __future__ import annotations

import json
import logging
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from loopback_rig import TOPICS, Rig
from paired import pair
from patience import patience
from running_brokers import soon

from ether.errors import DecodeError
from ether.ledger.head import HeadFile
from ether.ledger.reader import LedgerReader
from ether.ledger.rows import checksum_of, first_link, link_of
from ether.ledger.schema import meta_of
from ether.ledger.sqlite import open_ledger
from ether.ledger.verify import verify
from ether.ledger.verify_records import _SELECT
from ether.ledger.writer import LedgerWriter
from ether.recording.completeness_rules import prove
from ether.recording.receipt_rules import RecorderAbout
from ether.recording.signatures import OwnMemberships, RecorderSignatures, SourceSignatures
from ether.wire.entries import Batch, Entry, pack_batch, pack_entries, unpack_batch

BOX = "0123456789abcdef"


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with ExitStack() as stack:
        yield Rig(tmp_path, stack)


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machines:
    return Machines(tmp_path, monkeypatch)


class Machines:
    """A PC with a lab, and devices of it, by their folders of configuration; `be` makes this process one of them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._monkeypatch = folder, monkeypatch

    def environment(self, machine: str) -> dict[str, str]:
        return {"XDG_CONFIG_HOME": str(self._folder / machine), "HOME": str(self._folder)}

    def pair(self, name: str, pc: str = "pc") -> None:
        pair(self.environment(pc), self.environment(name), name)

    def be(self, machine: str) -> None:
        self._monkeypatch.setenv("XDG_CONFIG_HOME", self.environment(machine)["XDG_CONFIG_HOME"])


def entry(number: int, value: int = 0, entry_id: str = "") -> Entry:
    return Entry(number, "record", "dose", entry_id or f"id{number}", number, 1.5, ("a", "b"), "", "application/json",
                 json.dumps(value).encode(), {"run": "r/1", "x": [1, 2.5]})  # fmt: skip


def save(writer: Any, *values: int) -> None:
    for value in values:
        writer.publish("dose", TOPICS.data("dose"), value, 1, (), {"save": True}).wait(patience(10))


def proof_text(folder: Path) -> str:
    with LedgerReader.open(folder) as reader:
        return str(prove(reader.outboxes(), reader.duplicates(), (), reader.conflicts(), reader.signed()))


@pytest.fixture
def recorded(rig: Rig, machines: Machines) -> Path:
    """A ledger with values that pi3 has signed."""
    machines.pair("pi3")
    machines.be("pc")
    recorder = rig.recorder()
    machines.be("pi3")
    writer = rig.record_writer("camera", topics=None)
    save(writer, *range(20))
    writer.close(patience(5))
    recorder.detach()
    return rig.folder / "recorder"


def test_what_a_device_sends_is_signed_and_verified(recorded: Path) -> None:
    assert proof_text(recorded).endswith("durable, 0 gaps, 0 duplicates, all signed")
    report = verify(recorded)
    assert report.ok, str(report)
    assert report.signed == report.entries >= 20
    assert len(report.signers) == 1
    assert report.signers[0].startswith("'pi3' of the lab ")
    assert "all signed by 'pi3' of the lab" in str(report)
    with LedgerReader.open(recorded) as reader:
        assert set(reader.signers().values()) == {"pi3"}
        assert [record.value for record in reader.records()] == list(range(20)), "no signature is a value"


def test_without_a_lab_nothing_is_signed_and_the_ledger_says_so(rig: Rig, machines: Machines) -> None:
    machines.be("alone")
    recorder = rig.recorder()
    writer = rig.record_writer("camera", topics=None)
    save(writer, 1, 2)
    writer.close(patience(5))
    recorder.detach()
    assert proof_text(rig.folder / "recorder").endswith("0 duplicates, unsigned")
    report = verify(rig.folder / "recorder")
    assert report.ok
    assert "unsigned" in str(report)


def test_a_source_in_no_lab_is_recorded_beside_one_that_is(rig: Rig, machines: Machines) -> None:
    """A program of before, or a machine that a password lets in."""
    machines.pair("pi3")
    machines.be("pc")
    recorder = rig.recorder()
    machines.be("elsewhere")
    save(rig.record_writer("old", topics=None), 1)
    machines.be("pi3")
    save(rig.record_writer("camera", topics=None), 2)
    recorder.detach()
    assert " signed" in proof_text(rig.folder / "recorder")
    report = verify(rig.folder / "recorder")
    assert report.ok, str(report)
    assert 0 < report.signed < report.entries


def test_nothing_of_certificates_is_loaded_without_a_lab(tmp_path: Path) -> None:
    program = (
        "import sys, ether.recording.signatures as s, ether.ledger.signatures;"
        "s.RecorderSignatures({}); s.SourceSignatures(); print('cryptography' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        env={"XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.stdout.strip() == "False", done.stderr


# -- what a recorder takes


@pytest.fixture
def signs(machines: Machines) -> dict[str, SourceSignatures]:
    """What signs on pi3 and on pi4 of the lab of pc, and on a device of another lab. This process is the PC."""
    machines.pair("pi3")
    machines.pair("pi4")
    machines.pair("foreign", "other-pc")
    found = {}
    for machine in ("pi3", "pi4", "foreign"):
        machines.be(machine)
        found[machine] = SourceSignatures()
    machines.be("pc")
    return found


def batch(signs: SourceSignatures | None, about: RecorderAbout, *entries: Entry, base: int = 0) -> bytes:
    sign = None if signs is None else signs.sign(about)
    return pack_batch(BOX, "camera", 99, [pack_entries(entries)] if entries else [], base, sign=sign)


@pytest.mark.attack(
    "S1",
    "a forged batch at a broker that gives everything away",
    "unsigned, signed by another device or lab, changed after it was signed",
)
def test_a_forged_batch_is_refused_by_a_sentence(signs: dict[str, SourceSignatures]) -> None:
    recorder = RecorderSignatures({})
    about = RecorderAbout("recorder", "1", None, devices=recorder.devices)
    genuine = batch(signs["pi3"], about, entry(1), entry(2))
    taken = recorder.checked(unpack_batch(genuine))
    assert taken.signature is not None
    assert recorder.checked(unpack_batch(genuine)).entries == taken.entries, "sent again"
    with pytest.raises(DecodeError, match=r"'camera' that nobody has signed is refused: 'pi3' has signed earlier"):
        recorder.checked(unpack_batch(batch(None, about, entry(3), base=90)))
    with pytest.raises(DecodeError, match=r"that 'pi4' has signed is refused: this outbox is that of 'pi3'"):
        recorder.checked(unpack_batch(batch(signs["pi4"], about, entry(3))))
    strange = RecorderAbout("recorder", "1", None, devices=OwnMemberships(_environment(signs["foreign"])).devices)
    assert signs["foreign"].sign(about) is None, "a device of another lab has nothing to sign with for this one"
    with pytest.raises(DecodeError, match="a device that is none of this lab's"):
        recorder.checked(unpack_batch(batch(signs["foreign"], strange, entry(3))))
    for changed in (genuine[:-1] + b"7", genuine.replace(b'"camera",99', b'"camera",98')):
        assert changed != genuine
        with pytest.raises(DecodeError, match="its signature is not that of 'pi3' for what was sent"):
            recorder.checked(unpack_batch(changed))
    again = RecorderSignatures({BOX: taken.signature.signer})
    with pytest.raises(DecodeError, match="nobody has signed"):
        again.checked(unpack_batch(batch(None, about)))


def _environment(signatures: SourceSignatures) -> dict[str, str]:
    (known,) = signatures._own._known.values()
    return {"XDG_CONFIG_HOME": str(Path(known.folder).parents[2])}


@pytest.mark.parametrize("cut", [3, 6, 20, 300, -1])
def test_a_signature_that_is_cut_off_is_no_batch(signs: dict[str, SourceSignatures], cut: int) -> None:
    about = RecorderAbout("recorder", "1", None, devices=RecorderSignatures({}).devices)
    whole = batch(signs["pi3"], about, entry(1))
    with pytest.raises(DecodeError):
        unpack_batch(whole[:cut])


@pytest.mark.attack(
    "S8", "another's outbox taken over", "signed by a device's own key, in the other's name and in its own"
)  # fmt: skip
def test_no_device_takes_anothers_outbox_over(
    rig: Rig, signs: dict[str, SourceSignatures], machines: Machines, caplog: pytest.LogCaptureFixture
) -> None:
    """One of which the recorder knows no signature: of a machine in no lab, or from a volume of before."""
    recorder = rig.recorder()
    machines.be("elsewhere")
    writer = rig.record_writer("camera", topics=None)
    save(writer, 1)
    with LedgerReader.open(rig.folder / "recorder") as reader:
        (facts,) = reader.outboxes()
    about = RecorderAbout("recorder", "1", None, devices=recorder._signatures.devices)
    evil, sign = rig.link("pi4"), signs["pi4"].sign(about)
    assert sign is not None
    for source in ("camera", "pi4"):
        forged = pack_batch(facts.outbox, source, 99, [pack_entries([entry(99)])], 98, sign=sign)
        evil.publish(TOPICS.record_by("recorder", "pi4"), forged, timeout_s=patience(5))
    refused = ("it says that it comes from 'camera'", "in the name of the outbox of 'camera' is refused")
    assert soon(lambda: all(each in caplog.text for each in refused), 10)
    save(writer, 2)
    assert [record.value for record in rig.records()] == [1, 2]


def test_outboxes_of_a_lab_that_is_no_more_are_recorded(signs: dict[str, SourceSignatures]) -> None:
    """The lab was made anew, or the ledger was carried to a machine of another one: nobody can verify the first."""
    kept = {BOX: json.dumps({"lab": "a" * 26, "device": "pi3"}).encode()}
    about = RecorderAbout("recorder", "1", None, devices=RecorderSignatures({}).devices)
    assert RecorderSignatures(kept).checked(unpack_batch(batch(None, about, entry(1)))).signature is None
    assert RecorderSignatures(kept).checked(unpack_batch(batch(signs["pi3"], about, entry(1)))).signature is not None


@pytest.mark.parametrize("name", ["device.key", "authority.pem"])
def test_a_lab_whose_files_cannot_be_used_is_not_announced(signs: dict[str, SourceSignatures], name: str) -> None:
    """Else sources would sign, and wait for receipts that are signed."""
    (lab, _), *_ = RecorderSignatures({}).devices
    Path(OwnMemberships()._known[lab].folder, name).write_bytes(b"damaged")
    assert RecorderSignatures({}).devices == ()


def test_sources_in_two_labs_go_on_with_the_one_of_before(machines: Machines) -> None:
    """Which lab was joined last, or whose certificate was renewed last, does not matter."""
    for machine in ("first", "second"):
        machines.pair("pc", machine)
    machines.be("pc")
    newest, oldest = (lab for lab, _ in OwnMemberships().devices)
    for lab in (newest, oldest):
        kept = {BOX: json.dumps({"lab": lab, "device": "pc"}).encode()}
        assert RecorderSignatures(kept).devices[0][0] == lab
    assert [lab for lab, _ in RecorderSignatures({}).devices] == sorted((newest, oldest))


@pytest.mark.attack("S7", "signatures given as entries", "a batch that holds one")
def test_no_source_gives_a_signature_as_an_entry() -> None:
    forged = pack_batch(BOX, "camera", 1, [pack_entries([entry(1)._replace(kind="signature")])])
    with pytest.raises(DecodeError):
        unpack_batch(forged)


def test_a_receipt_that_the_recorder_has_not_signed_is_not_believed(
    signs: dict[str, SourceSignatures], caplog: pytest.LogCaptureFixture
) -> None:
    recorder = RecorderSignatures({})
    about = RecorderAbout("recorder", "1", None, devices=recorder.devices)
    recorder.checked(unpack_batch(batch(signs["pi3"], about, entry(1))))
    receipt: dict[str, Any] = {"outbox": BOX, "recorder": "recorder", "birth": "1", "upto": 1}
    source = signs["pi3"]
    with caplog.at_level(logging.WARNING, "Ether"):
        assert not source.is_genuine(about, receipt)
    assert "a receipt in the name of recorder is not believed: nobody has signed it" in caplog.text
    signed = dict(receipt)
    recorder.sign_receipt(signed, "ff00")
    assert signed["link"] == "ff00"
    assert source.is_genuine(about, signed)
    for key, value in (("upto", 9), ("link", "00"), ("birth", "2"), ("signature", 7), ("by", "AAAA")):
        assert not source.is_genuine(about, {**signed, key: value}), key
    unsigned = RecorderAbout("recorder", "1", None)
    assert signs["pi4"].is_genuine(unsigned, receipt), "a recorder that knows no lab signs nothing"
    assert signs["pi4"].is_genuine(None, receipt)
    assert not source.is_genuine(None, receipt), "whoever empties a description has signed nothing"
    assert source.is_genuine(None, signed), "the last one of a recorder that has left"


@pytest.mark.attack("S2", "a stolen device's receipt", "signed by its own key, in the recorder's name")
def test_a_stolen_devices_receipt_counts_for_no_recorder(
    signs: dict[str, SourceSignatures], machines: Machines
) -> None:
    about = RecorderAbout("recorder", "1", None, devices=RecorderSignatures({}).devices)
    machines.be("pi4")
    stolen = RecorderSignatures({BOX: json.dumps({"lab": about.devices[0][0], "device": "pi3"}).encode()})
    receipt = {"outbox": BOX, "recorder": "recorder", "birth": "1", "upto": 50}
    stolen.sign_receipt(receipt, "00")
    assert "signature" in receipt
    assert not signs["pi3"].is_genuine(about, receipt)


@pytest.mark.attack(
    "S10", "another recorder under the first one's name",
    "announced and signed by a stolen device, and one that says that it cannot sign",
)  # fmt: skip
def test_a_recorder_that_goes_on_with_another_key_is_a_conflict(
    signs: dict[str, SourceSignatures], machines: Machines
) -> None:
    source, lab = signs["pi3"], RecorderSignatures({}).devices[0][0]
    said = {BOX: json.dumps({"lab": lab, "device": "pi3"}).encode()}

    def receipt(by: RecorderSignatures, upto: int) -> dict[str, Any]:
        made = {"outbox": BOX, "recorder": "recorder", "birth": "1", "upto": upto}
        by.sign_receipt(made, "00")
        return made

    first = RecorderSignatures(said)
    about = RecorderAbout("recorder", "1", None, devices=first.devices)
    assert source.is_genuine(about, receipt(first, 1))
    machines.be("pi4")
    stolen = RecorderSignatures(said)
    forged = RecorderAbout("recorder", "2", None, devices=stolen.devices)
    assert not source.is_genuine(forged, receipt(stolen, 50))
    assert "signs with another one, of 'pi4'" in source.conflicts["recorder"]
    assert not source.is_genuine(RecorderAbout("recorder", "3", None), receipt(RecorderSignatures({}), 50))
    assert "signs with none" in source.conflicts["recorder"]
    assert source.is_genuine(forged, receipt(first, 2)), "the first one is believed whatever is announced"
    assert not source.is_genuine(forged, receipt(stolen, 50))
    assert source.is_genuine(about, receipt(first, 2)), "as before"
    assert source.conflicts == {}
    other = RecorderAbout("second", "1", None, devices=stolen.devices)
    assert source.is_genuine(other, receipt(stolen, 2)), "under another name it is a recorder of its own"


def test_what_is_made_up_does_not_use_up_the_line_of_a_conflict(
    signs: dict[str, SourceSignatures], machines: Machines, caplog: pytest.LogCaptureFixture
) -> None:
    source, lab = signs["pi3"], RecorderSignatures({}).devices[0][0]
    said = {BOX: json.dumps({"lab": lab, "device": "pi3"}).encode()}
    receipt: dict[str, Any] = {"outbox": BOX, "recorder": "recorder", "birth": "1", "upto": 1}
    first, signed, stolen = RecorderSignatures(said), dict(receipt), dict(receipt)
    first.sign_receipt(signed, "00")
    about = RecorderAbout("recorder", "1", None, devices=first.devices)
    assert source.is_genuine(about, signed)
    machines.be("pi4")
    RecorderSignatures(said).sign_receipt(stolen, "00")
    with caplog.at_level(logging.WARNING, "Ether"):
        for number in range(300):
            made_up = RecorderAbout(f"recorder{number % 200}", "1", None, devices=((lab, f"no{number}"),))
            assert not source.is_genuine(made_up, {**receipt, "recorder": made_up.name})
            assert not source.is_genuine(about, {**stolen, "by": f"made up {number}"})
        assert len(caplog.records) == 100
        for _ in range(3):
            assert not source.is_genuine(RecorderAbout("recorder", "2", None, devices=((lab, "pi4"),)), stolen)
        assert len(caplog.records) == 101
    assert "signs with another one, of 'pi4'" in caplog.records[-1].getMessage()


@pytest.mark.attack(
    "S3", "a forged receipt at a broker that gives everything away", "unsigned, for what no recorder has"
)
def test_a_forged_receipt_makes_no_source_forget(rig: Rig, machines: Machines) -> None:
    machines.pair("pi3")
    machines.be("pc")
    recorder = rig.recorder()
    machines.be("pi3")
    writer = rig.record_writer("camera", topics=None)
    save(writer, 1)
    recorder.detach()
    about = RecorderAbout("recorder", recorder._incarnation, None, devices=recorder._signatures.devices)
    evil = rig.link("evil")
    evil.announce(TOPICS.recorder("recorder"), about.to_value())
    waits = writer.publish("dose", TOPICS.data("dose"), 2, 1, (), {"save": True})
    with LedgerReader.open(rig.folder / "recorder") as reader:
        outbox = reader.outboxes()[0].outbox
    forged = {"outbox": outbox, "recorder": "recorder", "birth": recorder._incarnation, "upto": 3}
    for _ in range(5):
        evil.publish(TOPICS.ack_by(outbox, "recorder"), forged, timeout_s=patience(5))
    machines.be("pc")
    rig.recorder("second")
    assert soon(lambda: 2 in [record.value for record in rig.records("second")], 10), "it was not forgotten"
    waits.wait(patience(5))


def test_a_conflict_is_told_no_more_when_its_recorder_has_gone(rig: Rig) -> None:
    recorder, writer = rig.recorder(), rig.record_writer("camera")
    save(writer, 1)
    sender = writer._sender
    assert sender is not None
    recorder.detach()
    sender._signatures.conflicts["recorder"] = "there are two of this name"
    sender.hurry()
    assert soon(lambda: not sender._signatures.conflicts, 10)


# -- a ledger that somebody has edited


def recomputed(folder: Path) -> None:
    """Compute checksums, chain and head anew, as somebody can who may write to the folder."""
    (folder / "seal").unlink(missing_ok=True)
    for left in folder.glob("seal*"):
        left.unlink()
    connection = sqlite3.connect(folder / "ledger.db")
    meta = meta_of(connection)
    link, last = first_link(meta["session"], meta["created"]), 0
    for row, *columns, body, _, _ in connection.execute(f"{_SELECT} ORDER BY row").fetchall():
        checksum = checksum_of(columns, body)
        link, last = link_of(link, checksum), row
        connection.execute("UPDATE records SET checksum = ?, link = ? WHERE row = ?", (checksum, link, row))
    connection.commit()
    connection.close()
    (folder / "head").unlink()
    head = HeadFile(folder)
    head.write(last, link)
    head.close()


def edited(folder: Path, statement: str, *values: object) -> None:
    connection = sqlite3.connect(folder / "ledger.db")
    connection.execute(statement, values)
    connection.commit()
    connection.close()
    recomputed(folder)


@pytest.mark.attack("S4", "an edited ledger", "a value changed, all hashes and the head computed anew")
def test_an_edited_value_is_named_though_the_chain_was_computed_anew(recorded: Path, tmp_path: Path) -> None:
    same = tmp_path / "same"
    shutil.copytree(recorded, same)
    recomputed(same)
    assert verify(same).ok, str(verify(same))
    edited(recorded, "UPDATE records SET payload = x'2d323733' WHERE payload = x'3134'")
    with LedgerReader.open(recorded) as reader:
        (row,) = [record.row for record in reader.records() if record.value == -273]
    report = verify(recorded)
    (finding,) = report.findings
    assert "entries of 'camera' are not what 'pi3' of the lab" in finding.what
    assert finding.harm
    assert any(first <= row <= last for first, last in finding.records)
    assert report.signed < report.entries


@pytest.mark.attack("S9", "signed values under another name", "source, run, outbox changed, all hashes computed anew")
@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE origins SET source = 'pump' WHERE source = 'camera'", "of what another source, or another outbox"),
        ("UPDATE origins SET source = 'pump' WHERE outbox != ''", "are not what 'pi3' of the lab"),
        ("UPDATE origins SET run = 'another' WHERE outbox != ''", "are not what 'pi3' of the lab"),
        ("UPDATE origins SET outbox = iif(outbox = '', '', 'z' || substr(outbox, 2)),"
         " topic = iif(kind = 'signature', 'z' || substr(topic, 2), topic)",
         "of what another source, or another outbox"),
    ],
)  # fmt: skip
def test_signed_values_are_those_of_their_source_and_run(recorded: Path, statement: str, said: str) -> None:
    edited(recorded, statement)
    report = verify(recorded)
    assert said in str(report), str(report)
    assert report.signed < report.entries


@pytest.mark.attack("S5", "signatures of a ledger", "cut, renamed, without certificate, without what they cover")
@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE records SET payload = CAST(substr(payload, 1, 40) || x'00' AS BLOB) WHERE row IN"
         " (SELECT max(row) FROM entries WHERE kind = 'signature')", r"are not signed|not what was written"),
        ("UPDATE origins SET kind = 'log' WHERE kind = 'signature'", "unsigned"),
        ("UPDATE contents SET payload = x'00' WHERE sha256 IN (SELECT context FROM origins WHERE kind = 'signature')",
         "it is not what its hash says"),
        ("UPDATE origins SET context = 'nothing' WHERE kind = 'signature'", "the certificate is damaged or gone"),
        ("UPDATE records SET more = '{}' WHERE row IN (SELECT row FROM entries WHERE kind = 'signature')",
         "it is no signature of a batch"),
    ],
)  # fmt: skip
def test_a_signature_that_was_touched_is_named(recorded: Path, statement: str, said: str) -> None:
    edited(recorded, statement)
    report = verify(recorded)
    assert re.search(said, str(report)), str(report)
    assert report.signed < report.entries


@pytest.mark.attack("S6", "entries added to a ledger", "in the numbers of a signed outbox")
def test_entries_that_were_added_are_named(recorded: Path) -> None:
    with LedgerReader.open(recorded) as reader:
        (facts,) = reader.outboxes()
    writer = LedgerWriter.open(recorded, "bench")
    writer.append([Batch(facts.outbox, facts.source, facts.highest + 1, (entry(facts.highest + 1),))], 2.0)
    writer.close()
    report = verify(recorded)
    assert not report.ok
    assert "entries of 'camera' are not signed, and others of its outbox are by 'pi3'" in str(report)


def test_a_ledger_that_was_signed_anew_by_another_lab_names_that_lab(
    recorded: Path, rig: Rig, machines: Machines, tmp_path: Path
) -> None:
    (first,) = verify(recorded).signers
    machines.pair("pi3", "evil-pc")
    machines.be("evil-pc")
    writer = LedgerWriter.open(tmp_path / "anew", "bench")
    recorder = RecorderSignatures({})
    source = SourceSignatures()
    about = RecorderAbout("recorder", "1", None, devices=recorder.devices)
    writer.append([recorder.checked(unpack_batch(batch(source, about, entry(1), entry(2))))], 1.0)
    writer.close()
    report = verify(tmp_path / "anew")
    assert report.ok, str(report)
    assert report.signers
    assert report.signers[0].rpartition(" ")[2] != first.rpartition(" ")[2]


def test_entries_that_came_in_parts_and_again_are_verified(signs: dict[str, SourceSignatures], tmp_path: Path) -> None:
    """A block of which a ledger has the beginning, a gap, a large payload, other outboxes in one transaction."""
    recorder = RecorderSignatures({})
    about = RecorderAbout("recorder", "1", None, devices=recorder.devices)
    source = signs["pi3"]
    large = entry(4)._replace(payload=b'"' + b"x" * 100_000 + b'"')
    gap = Entry(7, "gap", "", "", 0, 1.0, (), "", None, b"", {"first": 5, "last": 7, "why": "w", "topics": {}})
    sent = [(entry(1), entry(2)), (entry(1), entry(2), entry(3)), (large,), (gap,), (gap, entry(8)), (entry(9),)]
    writer = LedgerWriter.open(tmp_path / "l", "bench")
    other = Batch("f" * 16, "plain", 1, (entry(1, 3),))
    for entries in sent:
        writer.append([other, recorder.checked(unpack_batch(batch(source, about, *entries)))], 1.0)
    assert writer.signers().keys() == {BOX}
    writer.close()
    report = verify(tmp_path / "l")
    assert report.ok, str(report)
    assert (report.signed, report.entries) == (6, 7)
    with LedgerReader.open(tmp_path / "l") as reader:
        assert reader.signed() == (6, 7)
    connection = open_ledger(tmp_path / "l", write=False)
    rows = connection.execute("SELECT count(*) FROM entries WHERE kind = 'artifact' AND topic = 'signer'").fetchone()
    connection.close()
    assert rows == (1,), "who has signed is kept once"
