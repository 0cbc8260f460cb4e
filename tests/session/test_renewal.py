"""A device's certificate is renewed over the session that it is in, by the lab's clock alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from loopback_rig import TOPICS, Rig
from paired import pair
from patience import patience
from running_brokers import soon

from ether import Ether
from ether.security import certificates as certs
from ether.security.certificates import NotSigned
from ether.session.renewal import RENEW, DeviceRenewal, RenewalDesk, take_renewed
from ether.session.trust.broker_trust import BrokerTrust
from ether.session.trust.lab import LabAuthority, LabRefused
from ether.system.lab_folders import Membership, memberships

DAY_S = 86_400.0


class Lab:
    """The lab of a PC, as its broker's trust is one."""

    def __init__(self, environment: dict[str, str]) -> None:
        lab = LabAuthority.load(environment)
        assert lab is not None
        self._lab = lab
        self.refused: list[str] = []

    @property
    def id(self) -> str:
        return self._lab.id

    def due(self) -> Sequence[str]:
        return [name for name in self._lab.due(time.time()) if name == "pi3"]

    def sign(self, request_pem: bytes) -> tuple[str, bytes]:
        try:
            signed = self._lab.renew(request_pem, time.time())
        except LabRefused as error:
            self.refused.append(str(error))
            raise
        return certs.facts_of(signed).name, signed


@pytest.fixture
def pc(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path / "pc")}


@pytest.fixture
def pi(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path / "pi")}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with ExitStack() as stack:
        yield Rig(tmp_path, stack)


def ends(known: Membership) -> float:
    return certs.facts_of(Path(known.certificate).read_bytes()).ends


def desk(rig: Rig, lab: Lab) -> RenewalDesk:
    made = RenewalDesk(rig.link("main"), TOPICS, lab, look_s=0.05)
    rig._stack.callback(made.close)
    return made


@pytest.mark.parametrize("days", [61, 200])
def test_a_certificate_that_ends_soon_or_has_ended_is_renewed(
    rig: Rig, pc: dict[str, str], pi: dict[str, str], days: int
) -> None:
    """The device does not look at its clock, which may be in 1970."""
    known = pair(pc, pi, "pi3", time.time() - days * DAY_S)
    before, key = ends(known), Path(known.key).read_bytes()
    renewal = DeviceRenewal(rig.link("pi3"), TOPICS, pi)
    lab = Lab(pc)
    desk(rig, lab)
    assert soon(lambda: ends(known) > before, 10)
    assert ends(known) == pytest.approx(time.time() + (certs.DEVICE_DAYS + certs.GRACE_DAYS) * DAY_S, abs=60)
    assert Path(known.key).read_bytes() == key
    assert soon(lambda: not lab.due(), 5)
    assert lab.refused == []
    del renewal


def test_one_that_holds_for_long_is_left_alone(rig: Rig, pc: dict[str, str], pi: dict[str, str]) -> None:
    known = pair(pc, pi, "pi3", time.time() - 59 * DAY_S)
    before = Path(known.certificate).read_bytes()
    lab = Lab(pc)
    link = rig.link("pi3")
    renewal = DeviceRenewal(link, TOPICS, pi)
    desk(rig, lab)
    assert lab.due() == []
    rig.link("evil").publish(
        TOPICS.control_by(RENEW, "evil"), {"lab": lab.id, "devices": ["pi3"]}, timeout_s=patience(5)
    )
    assert soon(lambda: bool(lab.refused), 10), "it asks, since somebody says that it is due, and gets none"
    assert "needs no renewal yet" in lab.refused[0]
    assert Path(known.certificate).read_bytes() == before
    del renewal


def test_who_was_revoked_or_is_no_member_gets_nothing(rig: Rig, pc: dict[str, str], pi: dict[str, str]) -> None:
    known = pair(pc, pi, "pi3", time.time() - 80 * DAY_S)
    lab = Lab(pc)
    lab._lab.revoke("pi3", time.time())
    desk(rig, lab)
    assert lab.due() == []
    evil = rig.link("evil")
    for key in (Path(known.key).read_bytes(), certs.make_key()):
        request = certs.signing_request(key).decode()
        evil.publish(TOPICS.control_by(RENEW, "pi3"), {"request": request}, timeout_s=patience(5))
    for nonsense in ({"request": 7}, {"request": "x" * 30_000}, {}, [], b"\xff"):
        evil.publish(TOPICS.control_by(RENEW, "pi3"), nonsense, timeout_s=patience(5))
    assert soon(lambda: len(lab.refused) == 2, 10)
    assert "which was taken back" in lab.refused[0]
    assert "is of no member" in lab.refused[1]


def test_a_device_takes_only_a_certificate_of_its_lab_for_its_key_that_holds_longer(
    pc: dict[str, str], pi: dict[str, str], tmp_path: Path
) -> None:
    now = time.time()
    known = pair(pc, pi, "pi3", now - 70 * DAY_S)
    lab = LabAuthority.load(pc)
    assert lab is not None
    request, before = certs.signing_request(Path(known.key).read_bytes()), Path(known.certificate).read_bytes()
    other = certs.Authority.make("other", now)
    with pytest.raises(NotSigned, match="signed by another lab"):
        take_renewed(known, other.sign_device(request, "pi3", now))
    with pytest.raises(NotSigned, match="for another key"):
        take_renewed(known, lab.authority.sign_device(certs.signing_request(certs.make_key()), "pi3", now))
    with pytest.raises(NotSigned, match="it is for 'pi4'"):
        take_renewed(known, lab.authority.sign_device(request, "pi4", now))
    with pytest.raises(NotSigned):
        take_renewed(known, b"nonsense")
    assert not take_renewed(known, lab.authority.sign_device(request, "pi3", now - 90 * DAY_S)), "an older one"
    assert Path(known.certificate).read_bytes() == before
    assert take_renewed(known, lab.authority.sign_device(request, "pi3", now))


def test_the_machine_that_leads_renews_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    lab = LabAuthority.load_or_make(dict(os.environ), time.time() - 70 * DAY_S)
    (own,) = memberships(dict(os.environ))
    before = ends(own)
    trust = BrokerTrust(dict(os.environ), "127.0.0.1")
    assert lab.due(time.time()) == [own.name]
    assert trust.due() == []
    assert ends(own) > before
    assert lab.due(time.time()) == []


def test_the_others_are_renewed_where_ones_own_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    pair(dict(os.environ), {"HOME": str(tmp_path / "pi")}, "pi3", time.time() - 70 * DAY_S)
    (own,) = memberships(dict(os.environ))
    trust = BrokerTrust(dict(os.environ), "127.0.0.1")
    Path(own.key).unlink()
    with caplog.at_level("WARNING", "Ether"):
        assert [trust.due(), trust.due()] == [["pi3"], ["pi3"]]
    assert caplog.text.count("is not renewed") == 1


def test_one_that_was_renewed_while_the_clock_was_ahead_is_good_when_it_is_right(
    pc: dict[str, str], pi: dict[str, str]
) -> None:
    now = time.time()
    known = pair(pc, pi, "pi3", now)
    lab = LabAuthority.load(pc)
    assert lab is not None
    ahead = now + 3000 * DAY_S
    assert take_renewed(known, lab.renew(certs.signing_request(Path(known.key).read_bytes()), ahead))
    facts = certs.facts_of(Path(known.certificate).read_bytes())
    assert facts.begins < now < ahead < facts.ends


def test_all_certificates_that_a_key_was_given_are_taken_back(pc: dict[str, str], pi: dict[str, str]) -> None:
    """Whoever has the key cannot renew until an early certificate is forgotten."""
    now = time.time() - 500 * DAY_S
    known = pair(pc, pi, "pi3", now)
    lab = LabAuthority.load(pc)
    assert lab is not None
    request = certs.signing_request(Path(known.key).read_bytes())
    serials = [certs.facts_of(Path(known.certificate).read_bytes()).serial]
    for _ in range(8):
        now += 61 * DAY_S
        serials.append(certs.facts_of(lab.renew(request, now)).serial)
        with pytest.raises(LabRefused, match="needs no renewal yet"):
            lab.renew(request, now + DAY_S)
    assert set(serials) <= set(lab.revoke("pi3", now).serials)


def test_two_sessions_at_different_addresses_leave_each_other_their_certificate(pc: dict[str, str]) -> None:
    now = time.time()
    lab = LabAuthority.load_or_make(pc, now)

    def serial(*addresses: str) -> int:
        return certs.facts_of(Path(lab.server_files("pc", list(addresses), now).certificate).read_bytes()).serial

    serial("10.0.0.1")
    both = serial("10.0.0.2")
    assert [serial("10.0.0.1"), serial("10.0.0.2"), serial("10.0.0.2", "10.0.0.1")] == [both] * 3
    assert serial("10.0.0.3") != both
    for number in range(100):
        serial(f"10.1.0.{number}")
    assert len(lab._names()) <= 33


PROGRAM = """
import sys, time
from ether import Ether
from pathlib import Path
ether, certificate = Ether(), Path(sys.argv[2])
before = certificate.read_bytes()
ether.tap(broker=sys.argv[1])
number = 0
while certificate.read_bytes() == before:
    number += 1
    ether.pub(number, topic="traffic")
    time.sleep(0.01)
for _ in range(20):
    number += 1
    ether.pub(number, topic="traffic")
print(number, flush=True)
ether.shutdown()
"""


@pytest.mark.skipif(not Path("/proc").exists(), reason="only Linux has 127.0.0.2 without being told to")
def test_a_program_on_a_device_is_renewed_under_traffic_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "pc"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    pi = {**os.environ, "HOME": str(tmp_path / "pi"), "XDG_RUNTIME_DIR": str(tmp_path / "pi")}
    (tmp_path / "pi").mkdir()
    known = pair(dict(os.environ), pi, "pi3", time.time() - 70 * DAY_S)
    own = Ether()
    own.tap({"session": "renewed", "broker": {"listen": "127.0.0.2"}}, timeout_s=patience(20))
    try:
        broker = own._launch._broker  # type: ignore[union-attr]
        assert broker is not None
        desk = own._launch._renewal_desk  # type: ignore[union-attr]
        assert desk is not None
        with own.subscribe("traffic") as heard:
            program = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, f"mqtts://127.0.0.2:{broker.lan_port}", known.certificate],
                env=pi, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            try:
                assert heard.get(timeout_s=patience(20)).value == 1
                desk._look()  # the leader's next look would come within a minute
                out, _ = program.communicate(timeout=patience(20))
            finally:
                program.kill()
                program.communicate()
            last = json.loads(out)
            assert [heard.get(timeout_s=patience(10)).value for _ in range(last - 1)] == list(range(2, last + 1))
        assert ends(known) > time.time() + 400 * DAY_S
    finally:
        own.shutdown()
