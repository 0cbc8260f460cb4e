"""Services: units that systemd accepts and finds tight, and what is written, run and taken away for them.

systemctl and journalctl are programs on PATH that write down how they were called. Run as a program, with tests/parts/
on the import path, this module writes the examples in systemd/ anew.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from patience import patience

from ether.errors import ServiceFailed
from ether.system import services
from ether.system.services import Machine, Places
from ether.system.systemd_units import FIRST_WITH_STEPS, MARK, Kind, Scope, Service, render

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "systemd"
EXAMPLE_PYTHON = "/opt/ether/bin/python"

VARIANTS = [
    Service("broker"),
    Service("agent"),
    Service("agent", serial=True),
    Service("instance", name="sensor"),
    Service("instance", name="sensor", file=Path("/srv/lab/lab.yaml")),
    Service("instance", name="cam_1.left", file=Path("/home/pi/my lab/50% $x.yaml"), serial=True),
    Service("instance", name="sensor", writes=(Path("/srv/data"), Path("/home/pi/my data"))),
    Service("agent", user="pi", reads=(Path("/home/pi/venv"), Path("/usr"), Path("/home/pi/venv"))),
]
USERS_OWN = [
    Service("broker", "user"),
    Service("agent", "user", serial=True),
    Service("instance", "user", name="sensor", file=Path("/home/pi/my lab/lab.yaml")),
]

no_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed: apt install systemd"
)


def analyze(folder: Path, service: Service, *words: str) -> subprocess.CompletedProcess[str]:
    """systemd-analyze over the files of a service, written as `install` would."""
    for path, text in render(service).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    if service.unit != service.unit_file:  # the tool takes drop-ins of an instance only where the instance is a file
        (folder / service.unit).symlink_to(service.unit_file)
    return subprocess.run(
        ["systemd-analyze", *words, str(folder / service.unit)],
        env={**os.environ, "XDG_RUNTIME_DIR": str(folder), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=patience(60),
        check=False,
    )


def with_python(service: Service, python: str) -> Service:
    """The same service, run by an interpreter that exists here: the tool looks for it."""
    return Service(**{name: getattr(service, name) for name in Service.__slots__} | {"python": python})


def systemd_version() -> int:
    said = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True, check=True).stdout
    return int(said.split()[1])


@no_systemd
@pytest.mark.parametrize("service", VARIANTS + USERS_OWN, ids=str)
def test_systemd_finds_nothing_wrong(service: Service, tmp_path: Path) -> None:
    words = ("--user", "verify") if service.scope == "user" else ("verify",)
    done = analyze(tmp_path, with_python(service, sys.executable), *words)
    assert done.stdout + done.stderr == ""
    assert done.returncode == 0


@no_systemd
@pytest.mark.parametrize("service", VARIANTS, ids=str)
def test_systemd_finds_them_tight(service: Service, tmp_path: Path) -> None:
    limit = "25" if service.serial else "20"
    done = analyze(tmp_path, service, "security", "--offline=yes", "--no-pager", f"--threshold={limit}")
    level = re.search(r"exposure level for .*: ([\d.]+)", done.stdout)
    assert level is not None, done.stderr
    assert float(level[1]) * 10 <= float(limit)
    assert done.returncode == 0


@no_systemd
def test_the_threshold_means_something(tmp_path: Path) -> None:
    (tmp_path / "open.service").write_text("[Service]\nExecStart=/bin/true\n")
    words = ["systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold=25"]
    done = subprocess.run([*words, str(tmp_path / "open.service")], capture_output=True, check=False)
    assert done.returncode != 0


@no_systemd
@pytest.mark.parametrize("folder", ["with space", "50%", "a$b", "a$$b", "käse;x"])
def test_systemd_reads_a_path_as_it_was_meant(folder: str, tmp_path: Path) -> None:
    """It complains about an interpreter that is not there, so silence means that it found this one."""
    python = tmp_path / folder / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    units = tmp_path / "units"
    assert analyze(units, Service("agent", python=str(python)), "verify").stderr == ""
    elsewhere = analyze(tmp_path / "others", Service("agent", python=f"{python}x"), "verify")
    assert "not executable" in elsewhere.stderr


@no_systemd
def test_newer_settings_only_where_they_are_known(tmp_path: Path) -> None:
    old, new = Service("agent", systemd=FIRST_WITH_STEPS - 1), Service("agent", systemd=FIRST_WITH_STEPS)
    assert "RestartSteps" not in render(old)[Path("ether-agent.service")]
    assert "RestartSteps" in render(new)[Path("ether-agent.service")]
    here = Service("agent", python=sys.executable, systemd=systemd_version())
    assert analyze(tmp_path, here, "verify").stderr == ""


@pytest.mark.parametrize("service", VARIANTS + USERS_OWN, ids=str)
def test_every_service_is_ready_when_it_says_so_and_never_given_up(service: Service) -> None:
    lines = render(service)[Path(service.unit_file)].splitlines()
    for line in ("Type=notify", "Restart=always", "StartLimitIntervalSec=0", "WatchdogSec=30", "NoNewPrivileges=yes"):
        assert line in lines
    assert lines.index("StartLimitIntervalSec=0") < lines.index("[Service]")
    assert lines[0] == MARK


def test_a_users_service_asks_for_nothing_that_needs_privileges() -> None:
    for service in USERS_OWN:
        for text in render(service).values():
            keys = {line.partition("=")[0] for line in text.splitlines()}
            assert not {
                key for key in keys if key.startswith(("Private", "Protect", "Capability", "Bind", "IPAddress"))
            }
            assert not keys & {"User", "SupplementaryGroups", "DeviceAllow", "StateDirectory"}


def test_serial_ports_are_opened_by_a_drop_in_of_one_instance() -> None:
    files = render(Service("instance", serial=True, name="pump"))
    assert "PrivateDevices=yes" in files[Path("ether-instance@.service")]
    serial = files[Path("ether-instance@pump.service.d/20-serial.conf")]
    assert "PrivateDevices=no" in serial
    assert "SupplementaryGroups=dialout" in serial


def test_homes_are_hidden_but_for_what_is_needed() -> None:
    service = Service("agent", reads=(Path("/home/pi/venv"), Path("/opt/x")))
    text = render(service)[Path("ether-agent.service")]
    assert "ProtectHome=tmpfs\nBindReadOnlyPaths=/home/pi/venv\n" in text
    assert "/opt/x" not in text
    assert "ProtectHome=yes" in render(Service("agent"))[Path("ether-agent.service")]


@pytest.mark.parametrize(
    ("kind", "scope", "more", "says"),
    [
        ("instance", "system", {}, "needs the instance's name"),
        ("agent", "system", {"name": "x"}, "no other has one"),
        ("instance", "system", {"name": "two words"}, "cannot be the name of a service"),
        ("instance", "system", {"name": "a/../../b"}, "cannot be the name of a service"),
        ("agent", "user", {"user": "pi"}, "runs as this user"),
        ("broker", "system", {"serial": True}, "opens no serial port"),
        ("agent", "system", {"user": "pi\nExecStart=/bin/sh"}, "not the name of a user"),
        ("agent", "system", {"python": '/a "b"/python'}, "a quote or a backslash"),
        ("agent", "system", {"python": "/a\\b/python"}, "a quote or a backslash"),
        ("instance", "system", {"name": "x", "file": Path("/a\n[Service]/b.yaml")}, "cannot stand in a systemd unit"),
    ],
)
def test_what_cannot_be_a_service(kind: Kind, scope: Scope, more: dict[str, object], says: str) -> None:
    with pytest.raises(ServiceFailed, match=says):
        render(Service(kind, scope, **more))  # type: ignore[arg-type]


def test_the_examples_are_what_is_render() -> None:
    written = {path: (EXAMPLES / path).read_text() for path in examples()}
    assert written == examples(), f"run: PYTHONPATH=.:tests/parts python {Path(__file__).relative_to(ROOT)}"
    there = {path.relative_to(EXAMPLES) for path in EXAMPLES.rglob("*") if path.suffix in (".service", ".conf")}
    assert there == set(examples())


def examples() -> dict[Path, str]:
    """The files in systemd/."""
    found: dict[Path, str] = {}
    for scope in ("system", "user"):
        for service in (
            Service("broker", scope, EXAMPLE_PYTHON),
            Service("agent", scope, EXAMPLE_PYTHON),
            Service("instance", scope, EXAMPLE_PYTHON, name="sensor", file=Path("/srv/lab/lab.yaml")),
        ):
            found |= {Path(scope) / path: text for path, text in render(service).items()}
    serial = Service("instance", "system", EXAMPLE_PYTHON, serial=True, name="pump", file=Path("/srv/lab/lab.yaml"))
    return found | {Path("system") / path: text for path, text in render(serial).items()}


TOOL = """#!/bin/sh
printf '%s' "${0##*/}" >> "$RECORD"
for word in "$@"; do printf ' [%s]' "$word" >> "$RECORD"; done
echo >> "$RECORD"
case "$*" in
    --version) echo "systemd ${VERSION:-252} (252.38-1~deb12u1)" ;;
    *show*) cat "$ANSWERS/show" ;;
    *list-units*) cat "$ANSWERS/list" ;;
    *restart*) [ -z "$FAILS" ] || { echo "Job for x failed." >&2; exit 1; } ;;
esac
"""

SHOWN = """\
Id=ether-instance@sensor.service
LoadState=loaded
ActiveState=active
SubState=running
StatusText=ready: 3 = three
MainPID=4711
NRestarts=2
Result=success
ActiveEnterTimestamp=Mon 2026-11-23 08:00:00 UTC

Id=ether-broker.service
LoadState=not-found
ActiveState=inactive
SubState=dead
StatusText=
MainPID=0
NRestarts=0
Result=success
ActiveEnterTimestamp=
"""


class Bench:
    """A machine of which systemd's programs only write down how they were called."""

    def __init__(self, folder: Path, scope: Scope) -> None:
        self.folder = folder
        tools = folder / "bin"
        tools.mkdir()
        for name in ("systemctl", "journalctl", "systemd-sysusers", "loginctl"):
            (tools / name).write_text(TOOL)
            (tools / name).chmod(0o755)
        (folder / "show").write_text(SHOWN)
        (folder / "list").write_text("ether-instance@sensor.service loaded active running Ether\n")
        self.record = folder / "record"
        self.environ = {"PATH": f"{tools}:/usr/bin:/bin", "RECORD": str(self.record), "ANSWERS": str(folder)}
        sysusers = folder / "sysusers.d" / "ether.conf" if scope == "system" else None
        self.places = Places(folder / "units", folder / "ether" / "environment", sysusers)
        self.machine = Machine(scope, self.places, self.environ)
        self.yaml = folder / "lab.yaml"
        self.yaml.write_text("instances: {}\n")

    def called(self) -> list[str]:
        """The calls since the last question."""
        said = self.record.read_text().splitlines() if self.record.exists() else []
        self.record.unlink(missing_ok=True)
        return said

    def plan(self, name: str = "sensor", **more: object) -> services.ServicePlan:
        wanted = Service("instance", self.machine.scope, sys.executable, name=name, file=self.yaml, **more)  # type: ignore[arg-type]
        plan = services.plan(wanted, self.machine)
        self.called()
        return plan


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, "system")


pytestmark = pytest.mark.skipif(os.name != "posix", reason="the recording tools are shell scripts")


def test_a_dry_run_changes_nothing_and_says_everything(bench: Bench) -> None:
    before = sorted(bench.folder.rglob("*"))
    said = str(bench.plan(serial=True))
    assert sorted(bench.folder.rglob("*")) == before
    for expected in (
        f"### {bench.places.units}/ether-instance@.service  (mode 0644)",
        f"### {bench.places.units}/ether-instance@sensor.service.d/20-serial.conf",
        "(mode 0600, unless it exists)",
        f"ETHER_FILE={bench.yaml}",
        "systemctl restart ether-instance@sensor.service",
    ):
        assert expected in said


def test_a_dry_run_where_there_is_no_systemd(bench: Bench) -> None:
    bare = Machine("system", bench.places, {"PATH": str(bench.folder / "nothing")})
    planned = services.plan(Service("agent", python=sys.executable), bare)
    assert "ether-agent.service" in str(planned)
    with pytest.raises(ServiceFailed, match="there is no systemctl here: services need systemd"):
        services.install(planned, bare)
    assert not bench.places.units.exists()


def test_install(bench: Bench) -> None:
    said = services.install(bench.plan(serial=True), bench.machine)
    assert bench.called() == [
        f"systemd-sysusers [{bench.places.sysusers}]",
        "systemctl [daemon-reload]",
        "systemctl [enable] [ether-instance@sensor.service]",
        "systemctl [restart] [ether-instance@sensor.service]",
        "systemctl [show] [--property=Id,LoadState,ActiveState,SubState,StatusText,MainPID,NRestarts,Result,"
        "ActiveEnterTimestamp] [ether-instance@sensor.service]",
    ]
    assert (said.unit, said.ready, said.pid, said.restarts) == ("ether-instance@sensor.service", True, 4711, 2)
    assert said.says == "ready: 3 = three"
    assert stat.S_IMODE(bench.places.environment.stat().st_mode) == 0o600
    unit = bench.places.units / "ether-instance@.service"
    assert stat.S_IMODE(unit.stat().st_mode) == 0o644
    assert f"ExecStart={sys.executable} -P" in unit.read_text()
    assert not list(bench.folder.rglob("*.new"))


def test_install_again_keeps_what_a_person_wrote(bench: Bench) -> None:
    services.install(bench.plan(), bench.machine)
    bench.places.environment.write_text("ETHER_SESSION=lab\n")
    services.install(bench.plan(), bench.machine)
    assert bench.places.environment.read_text() == "ETHER_SESSION=lab\n"


def test_install_for_oneself(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "user")
    services.install(bench.plan(), bench.machine)
    assert bench.called()[:3] == [
        "loginctl [enable-linger]",
        "systemctl [--user] [daemon-reload]",
        "systemctl [--user] [enable] [ether-instance@sensor.service]",
    ]


def test_a_service_that_does_not_start_says_what_systemd_said(bench: Bench) -> None:
    failing = Machine("system", bench.places, {**bench.environ, "FAILS": "1"})
    with pytest.raises(ServiceFailed, match=r"restart ether-instance@sensor.service` ended with code 1: Job for x"):
        services.install(bench.plan(), failing)


def test_install_without_the_file_or_the_rights(bench: Bench) -> None:
    planned = bench.plan()
    bench.yaml.unlink()
    with pytest.raises(ServiceFailed, match="there is no file"):
        services.install(planned, bench.machine)
    bench.yaml.touch()
    nobodys = Path("/sys/kernel")  # where not even root may make a file
    bench.places = replace(bench.places, units=nobodys / "units", environment=nobodys / "environment")
    bench.machine = Machine(bench.machine.scope, bench.places, bench.environ)
    advice = "could not be written" if os.geteuid() == 0 else "run it again with sudo, or with --user"
    with pytest.raises(ServiceFailed, match=advice):
        services.install(bench.plan(), bench.machine)


def test_status_of_all(bench: Bench) -> None:
    found = services.status(None, bench.machine)
    assert [each.unit for each in found] == ["ether-instance@sensor.service", "ether-broker.service"]
    assert found[1].pid is None
    assert not found[1].ready
    (bench.folder / "list").write_text("")
    assert services.status(None, bench.machine) == []


def test_logs(bench: Bench, tmp_path: Path) -> None:
    assert services.logs("ether-agent.service", bench.machine, since="-1h", lines=5) == 0
    assert services.logs(None, bench.machine, follow=True) == 0
    assert services.logs(None, Machine("user", bench.places, bench.environ)) == 0
    assert bench.called() == [
        "journalctl [--unit=ether-agent.service] [--output=short-iso] [--no-pager] [--since=-1h] [--lines=5]",
        "journalctl [--unit=ether-*] [--output=short-iso] [--follow]",
        "journalctl [--user-unit=ether-*] [--output=short-iso] [--no-pager]",
    ]


def test_remove_takes_only_what_was_written_for_it(bench: Bench) -> None:
    services.install(bench.plan("one", serial=True), bench.machine)
    services.install(bench.plan("two"), bench.machine)
    own_words = bench.places.units / "ether-instance@one.service.d" / "override.conf"
    own_words.write_text("[Service]\nNice=5\n")
    bench.called()

    gone = services.remove("instance", "one", bench.machine)
    assert bench.called() == [
        "systemctl [disable] [--now] [ether-instance@one.service]",
        "systemctl [daemon-reload]",
        "systemctl [reset-failed] [ether-instance@one.service]",
    ]
    assert {path.name for path in gone} == {"10-ether.conf", "20-serial.conf"}
    assert own_words.exists()
    assert (bench.places.units / "ether-instance@.service").exists()

    own_words.unlink()
    own_words.parent.rmdir()
    services.remove("instance", "two", bench.machine)
    assert list(bench.places.units.iterdir()) == []
    assert bench.places.environment.exists()
    with pytest.raises(ServiceFailed, match="was not installed"):
        services.remove("instance", "two", bench.machine)


def test_a_unit_that_somebody_else_wrote_stays(bench: Bench) -> None:
    bench.places.units.mkdir()
    (bench.places.units / "ether-agent.service").write_text("[Service]\nExecStart=/bin/true\n")
    with pytest.raises(ServiceFailed, match="was not installed by"):
        services.remove("agent", None, bench.machine)
    assert bench.called() == []


def test_units_by_kind() -> None:
    assert services.unit_of("instance", "cam") == "ether-instance@cam.service"
    assert services.unit_of("broker", None) == "ether-broker.service"
    with pytest.raises(ServiceFailed, match="there are: broker, agent, instance"):
        services.unit_of("brocker", None)


def test_the_places_of_a_scope(tmp_path: Path) -> None:
    assert Machine.here("system", {}).places.units == Path("/etc/systemd/system")
    own = Machine.here("user", {"XDG_CONFIG_HOME": str(tmp_path)}).places
    assert own.units == tmp_path / "systemd" / "user"
    assert own.environment == tmp_path / "ether" / "environment"
    assert own.sysusers is None


if __name__ == "__main__":
    for path, text in examples().items():
        (EXAMPLES / path).parent.mkdir(parents=True, exist_ok=True)
        (EXAMPLES / path).write_text(text)
