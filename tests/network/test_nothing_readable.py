"""Two machines pair by the two commands, join, call, publish and record; whoever listens on the line reads nothing."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from journal import Journal
from namespaces import Network, namespaces_missing, running_network
from patience import patience
from running_brokers import engines, mosquitto_missing

from ether.ledger.reader import LedgerReader
from ether.ledger.verify import verify

LONG = os.environ.get("ETHER_LONG") == "1"
HERE = Path(__file__).parent
COMMAND, MEMBER, SNIFFER = (str(HERE / name) for name in ("command.py", "member.py", "sniffer.py"))
WAYS = ["token", "code", "token without multicast", "code without multicast"] if LONG else ["token"]
ENGINES = [engine for engine in engines if engine != "mosquitto" or mosquitto_missing is None]
WORDS = (
    b"whoami", b"numbers/", b"anvil", b"bell", b"ether/1/", b"bench/", b'{"n": ', b'{"n":', b"reply_to",
    b"\x00EB2", b"PASSWORD", b"BEGIN CERTIFICATE",
)  # fmt: skip
"""Of four bytes and more: among a hundred thousand random ones three are found by chance in one of 150 runs."""

pytestmark = pytest.mark.skipif(namespaces_missing is not None, reason=str(namespaces_missing))


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    with running_network(tmp_path) as network:
        yield network


@pytest.mark.timeout(120)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("engine", ENGINES if LONG else ENGINES[:1])
def test_two_machines_pair_and_work_and_nothing_can_be_read(
    network: Network, tmp_path: Path, engine: str, way: str
) -> None:
    pc, pi = network.machine("pc"), network.machine("pi")
    if "without" in way:
        for machine in (pc, pi):
            network.drop_multicast(machine)
    seen, ledger = tmp_path / "seen", tmp_path / "ledger"
    record = {"topics": "all", "folder": str(ledger)}
    settings = {"session": "bench", "broker": {"engine": engine, "listen": "lan"}, "record": record}
    with pi.run(SNIFFER, str(seen)) as sniffer:
        sniffer.wait_for("listening")
        began = time.monotonic()
        with pc.run(COMMAND, "pair", "pi", "--json") as pairing:
            pairing.wait_for('"token"')
            shown = json.loads(next(line for line in pairing.lines["out"] if '"token"' in line))
            secret = shown["token"] if "token" in way else shown["code"]
            at = ["--at", pc.address] if "without" in way else []
            with pi.run(COMMAND, "join", secret, *at) as joining:
                assert joining.finish().code == 0, joining.said()
            assert pairing.finish().code == 0, pairing.said()
        took_s = time.monotonic() - began
        with pc.run(MEMBER, "anvil", "bell", json.dumps({"config": settings})) as anvil:
            anvil.wait_for("hosting anvil in bench")
            with pi.run(MEMBER, "bell", "anvil", json.dumps({"broker": f"mqtts://{pc.address}"})) as bell:
                for program, other in ((anvil, "bell"), (bell, "anvil")):
                    journal = Journal(program)
                    journal.first("called", accept=other.__eq__)
                    journal.first("got", after=journal.first("subscribed"))
                bell.interrupt()
                assert bell.finish().code == 0, bell.said()
            anvil.interrupt()
            assert anvil.finish().code == 0, anvil.said()
        sniffer.interrupt()
        assert sniffer.finish().code == 0, sniffer.said()
    with LedgerReader.open(ledger) as reader:
        sources = {record.source for record in reader.records()}
        signed, count = reader.signed()
    report = verify(ledger)
    assert report.ok, str(report)
    assert len(sources) >= 2, "both machines are recorded"
    assert signed == count == report.signed > 0
    assert {re.split("'", signer)[1] for signer in report.signers} == {"pc", "pi"}
    frames = seen.read_bytes()
    assert len(frames) > 20_000
    assert frames.count(b"\x17\x03\x03") > 50, "records of TLS are what is seen"
    secrets = (shown["code"].encode(), shown["token"].split("@")[0].rpartition("-")[2].encode())
    for word in (*WORDS, *secrets):
        assert word not in frames, word
    print(f"pairing took {took_s:.1f} s, {len(frames):,} bytes seen")
    assert took_s < patience(10)
