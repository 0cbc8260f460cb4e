"""Breaks the code on purpose, one small edit at a time, and says which breaks no test notices.

    python tests/mutants.py --list
    python tests/mutants.py --count 20 --seed 1      # the fast lane (docs/testing.md)
    python tests/mutants.py --whole                  # all of them, against the whole suite: hours

Each mutant is a named edit of one file: the exact text, which stands there once, and what takes its place. It is
applied to a copy of the tree, never to the checkout; the copy has an environment of its own, so that child processes
and the isolated broker run the changed code, too.

To be quick without being weaker, a mutant goes through stages and ends with the first that kills it: the fast lane of the
files that import the broken module, of the rooms that it concerns, the whole fast lane, and with `--whole` all tests of
these files, of these rooms, then all tests. The test that kills has to fail twice, and to pass on the unchanged copy:
where it does not, the hunt ends.

The exit code is 1 where more survived than `--at-least` allows, 2 where one is stale: its text is not there any more, or more than once.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from house_rules import Tree

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = {"fast": 900, "all": 7200}
"""What takes longer hangs, which counts as noticed."""
FOLDERS = {"broker": "brokers", "hardware_adapters": "adapters", "api": "session", "decorators": "spec"}
"""Where the tests of a room are, where its name is another one."""


@dataclass(frozen=True)
class Mutant:
    """`promise` is what the edit breaks; `operator` is how: skip a step, force a condition, forget a state, drop a
    part, reorder two steps."""

    name: str
    operator: str
    promise: str
    path: str
    old: str
    new: str

    def applied(self, text: str) -> str:
        """The changed text; raises `Stale`."""
        found = text.count(self.old)
        if found != 1:
            raise Stale(f"{self.name}: its text stands {found} times in {self.path}, not once")
        return text.replace(self.old, self.new)


class Stale(Exception):
    """The text of a mutant is not there: the code has changed, and the mutant has to follow."""


def _(name: str, operator: str, promise: str, path: str, old: str, new: str) -> Mutant:
    return Mutant(name, operator, promise, path, old, new)


MUTANTS: Sequence[Mutant] = (
    # -- what is on the disk is on the disk
    _("no-fsync", "skip", "what was acknowledged is on the disk", "ether/ledger/durable.py",
      "    os.fsync(descriptor)\n", "    pass\n"),
    _("whole-file-not-synced", "skip", "a file is whole after a power loss", "ether/ledger/durable.py",
      "            sync_descriptor(file.fileno())\n        os.replace(part, path)", "        os.replace(part, path)"),
    _("folder-not-synced", "skip", "the name of a new file is on the disk", "ether/ledger/durable.py",
      "    try:\n        sync_descriptor(descriptor)\n    finally:", "    try:\n        pass\n    finally:"),
    _("receipt-before-the-disk", "reorder", "a receipt comes after the sync", "ether/recording/recorder.py",
      "        try:\n            upto = self._written(work)\n",
      "        for batch in work.batches:\n            self._acknowledge(batch.outbox, batch.head)\n"
      "        try:\n            upto = self._written(work)\n"),
    _("receipt-although-not-written", "force", "what the disk did not take is not acknowledged",
      "ether/recording/recorder.py", "self._writer.highest(batch.outbox) for batch", "batch.head for batch"),
    _("repeated-entry-stored-again", "force", "exactly once", "ether/ledger/rows.py",
      "            elif entry.number == highest + 1:\n", "            elif entry.number <= highest + 1:\n"),
    _("hole-in-an-outbox-skipped", "skip", "a receipt covers every number before it", "ether/ledger/rows.py",
      "            elif entry.number > highest:\n                break\n",
      "            elif entry.number > highest:\n                highest = entry.number\n"),
    _("cut-rows-unnoticed", "force", "what is missing is named", "ether/ledger/writer.py",
      "        return max(0, head.records - self._rows) if head else 0", "        return 0"),
    _("what-is-on-its-way-unnamed", "drop", "what is missing is named", "ether/recording/completeness_rules.py",
      "    if head > upto:\n", "    if False:\n"),
    _("lost-counts-as-saved", "force", "`wait()` raises where a value was given up", "ether/recording/receipt_rules.py",
      "        return there and not self.why_lost(number)", "        return there"),
    _("saved-without-a-receipt", "force", "`wait()` returns after the sync", "ether/recording/receipt_rules.py",
      "any(number <= upto and takes(", "any(number <= upto + 1 and takes("),
    _("receipt-of-the-dead-believed", "force", "a receipt is one of the recorder that runs",
      "ether/recording/send_window_rules.py",
      "        if incarnation != self._recorder:\n            return False\n",
      "        if incarnation != self._recorder:\n            self._recorder = incarnation\n"),
    _("batch-never-sent-again", "skip", "what was not acknowledged is sent again", "ether/recording/send_window_rules.py",
      "        self.silences += 1\n        self._rewind(now)\n        return None", "        return None"),
    _("refused-value-kept", "skip", "a value that the broker does not take does not hold up the others",
      "ether/recording/batch_publisher.py", "                yield RefusedValue(sent.outbox, doubt.refused.first, doubt.why)\n",
      ""),
    # -- checksums and seals
    _("object-not-compared", "force", "a changed payload is not handed out", "ether/ledger/objects.py",
      "        if hashlib.sha256(payload).hexdigest() != sha256:", "        if False:"),
    _("seal-believed", "force", "a changed seal is noticed", "ether/ledger/seal.py",
      "whole = bool(found) and digest == hashlib.sha256(text).hexdigest().encode() + b\"\\n\"", "whole = bool(found)"),
    _("sealed-file-not-compared", "force", "a changed file is found", "ether/ledger/verify.py",
      "return None if found == sha256 else", "return None if found else"),
    _("link-forgets-the-row-before", "drop", "a row that was taken out is found", "ether/ledger/rows.py",
      "    return _sha256(before + checksum).digest()", "    return _sha256(checksum).digest()"),
    # -- once, and in order
    _("filter-remembers-nothing", "forget", "a message is handed on once", "ether/protocol/dedup_window.py",
      "        self._ids[message_id] = None\n", ""),
    _("request-runs-again", "forget", "a request that is delivered twice runs once", "ether/protocol/request_table.py",
      "        entry = self._entries.get(key)\n", "        entry: _Entry[A] | None = None\n"),
    _("answer-not-kept", "forget", "a second delivery has the first answer", "ether/protocol/request_table.py",
      "            entry.answer, entry.size = answer, size\n", "            entry.size = size\n"),
    _("answer-counts-twice", "forget", "a request is settled once", "ether/protocol/request_table.py",
      "        found = self._pending.pop(correlation, None) if correlation is not None else None\n        if found is None or",
      "        found = self._pending.get(correlation) if correlation is not None else None\n        if found is None or"),
    _("number-handed-on-twice", "force", "a message is handed on once", "ether/protocol/reorder_buffer.py",
      "        if number in row.held or (row.last is not None and number <= row.last and not row.takes_back(number)):\n",
      "        if number in row.held:\n"),
    _("hole-handed-on", "force", "messages of one source come in order", "ether/protocol/reorder_buffer.py",
      "        while row.last is not None and row.last + 1 in row.held:\n            row.last += 1\n",
      "        while row.last is not None and row.held:\n            row.last = min(row.held)\n"),
    _("done-trials-again", "force", "a run that goes on repeats no trial that is done", "ether/runs/trial_rules.py",
      "        if attempts.counts is None:\n", "        if attempts.counts is None or attempts.tried:\n"),
    _("row-found-by-the-order-of-calls", "force", "a nested trial belongs to the trial it is inside of",
      "ether/protocol/run_record.py", "None if self.within is None else self.within[0], self.nth", "None, self.nth"),
    _("dead-programs-condition-believed", "force", "the recorded condition is the one that was acted upon",
      "ether/protocol/run_record.py",
      "said[\"trial\"] not in self._drawn or self._drawn[said[\"trial\"]][0] < turn", "True"),
    _("drawn-not-recorded", "skip", "a condition is on disk before its trial begins", "ether/runs/trials.py",
      "        self._run.note(\"draw\", {**place, \"trial\": number, \"condition\": condition})\n", ""),
    _("results-not-told-again", "drop", "a resumed strategy knows the results", "ether/runs/conditions.py",
      "                self.tell(condition, attempts.result)\n", "                pass\n"),
    _("inner-death-disturbs-the-outer-trial", "drop", "a death belongs to the innermost trial", "ether/runs/trials.py",
      "            self._outer.left_by(died)\n", "            pass\n"),
    # -- deadlines and ends
    _("deadline-ignored", "force", "a request whose deadline has passed is not run", "ether/calls/server.py",
      "        if request.deadline is not None and time.monotonic() >= request.deadline:\n", "        if False:\n"),
    _("deadline-never-passes", "force", "nothing waits for ever", "ether/connection/deadline.py",
      "        return self.left() == 0.0", "        return False"),
    _("death-not-told-to-callers", "drop", "a call of a dead instance ends at once", "ether/protocol/request_table.py",
      "if asked == instance]", "if asked == instance and not instance]"),
    _("silence-is-consent", "drop", "a sync says who is missing", "ether/protocol/barrier.py",
      "        return {**failed, **self.lost, **silent}", "        return {**failed, **self.lost}"),
    _("dead-participant-unnamed", "drop", "a sync says who died", "ether/protocol/barrier.py",
      "        self.lost[participant] = why\n", ""),
    _("restarts-never-stop", "force", "what dies again and again is left alone", "ether/launch/restart_rules.py",
      "        if len(self._begun) >= self.policy.limit:\n", "        if False:\n"),
    _("restart-after-an-orderly-end", "force", "`on-failure` means a failure", "ether/launch/restart_rules.py",
      '(self.when == "on-failure" and failed)', '(self.when == "on-failure")'),
    _("pause-does-not-grow", "force", "repeated failures are tried ever more rarely", "ether/system/backoff.py",
      "        self._attempt = min(self._attempt + 1, _CAPPED_FROM)\n", "        self._attempt = 1\n"),
    _("orphaned-engine-lives-on", "skip", "a broker dies with the process that started it", "broker/orphans_linux.py",
      "    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)\n", ""),
    _("broker-outlives-its-program", "skip", "a broker ends with its session", "broker/lifeline.py",
      "would pass unseen\n            self.pull()\n", "would pass unseen\n            pass\n"),
    # -- who is there, and who holds what
    _("lease-not-released", "skip", "a lease that was given back is free", "ether/calls/lease_rules.py",
      "            self.holder = None\n        return self.holder is None", "            pass\n        return self.holder is None"),
    _("lease-of-two", "force", "an instance has one holder", "ether/calls/lease_rules.py",
      "        if self.holder is not None and self.holder.key != holder.key:\n", "        if False:\n"),
    _("lease-of-the-dead", "force", "the lease of a silent holder ends", "ether/calls/lease_rules.py",
      "        return self.holder is not None and now - self._renewed > LEASE_TIMEOUT_S", "        return False"),
    _("heartbeat-of-the-dead", "drop", "a heartbeat is one of the incarnation that runs",
      "ether/protocol/failure_detector.py",
      "        if watched is not None and watched.incarnation == heartbeat.incarnation:\n", "        if watched is not None:\n"),
    _("deaf-watcher-judges", "skip", "an outage of the watcher makes nobody hung", "ether/protocol/failure_detector.py",
      "        self._deaf = True\n", "        self._deaf = False\n"),
    _("old-incarnation-comes-back", "force", "what an earlier incarnation says is outdated", "ether/protocol/presence.py",
      "            return new.epoch < known.epoch\n", "            return False\n"),
    _("epoch-used-again", "forget", "an epoch is used once", "ether/protocol/presence.py",
      "            self._last_epochs[name] = known.epoch\n", "            pass\n"),
    # -- what is said, and to whom
    _("headers-dropped", "drop", "every message says where it is from", "ether/wire/envelope.py",
      "        return Packed(body.payload, pack_headers(headers, content_type))", "        return Packed(body.payload, content_type)"),
    _("root-not-marked", "drop", "a value comes back as it was sent", "ether/wire/envelope.py",
      "            fields[_ROOT] = True\n", ""),
    _("remote-traceback-dropped", "drop", "a remote error has its traceback", "ether/protocol/answers.py",
      "        if self.traceback:\n            report", "        if False:\n            report"),
    _("refusal-counts-as-sent", "force", "what the broker refused is an error", "ether/transport/send_queue.py",
      "                if reason < _FIRST_FAILURE:\n", "                if True:\n"),
    _("poison-sent-for-ever", "force", "a message at which the broker closes the connection is given up",
      "ether/transport/cut_rules.py", "        if self._strikes[message] < STRIKES:\n", "        if True:\n"),
    _("innocent-condemned", "force", "no message is given up for a broker that closes every connection",
      "ether/transport/cut_rules.py",
      "        controlled = self._proven or (alone and self.has_held(self.written_at))\n", "        controlled = True\n"),
    _("refused-number-awaited", "skip", "receivers do not wait for a message that the broker has refused",
      "ether/connection/link.py", "            self.retransmitter.refused(refusal.topic, headers.seq)\n", "            pass\n"),
    _("cut-records-not-counted", "skip", "records that were cut are counted", "ether/logs/shipping.py",
      "                if not admitted:\n                    self._cuts.note(band)\n", ""),
    _("secrets-not-masked", "force", "no secret is recorded", "ether/provenance/secrets.py",
      "    if secret:\n        return MASK\n", ""),
    _("url-passwords-not-masked", "force", "no secret is recorded", "ether/provenance/secrets.py",
      '    return _URL_PASSWORD.sub(rf"\\g<before>{MASK}@", text) if "://" in text else text', "    return text"),
    _("key-that-others-read", "force", "a key that others can read is refused", "ether/security/lab_key.py",
      "or stat.S_IMODE(status.st_mode) & 0o077)", "or False)"),
    _("any-password-will-do", "force", "nobody comes in without the password", "broker/core/rights.py",
      "return SUCCESS if same and known is not None else BAD_LOGIN", "return SUCCESS"),
)  # fmt: skip


def copy_tree(folder: Path) -> Path:
    """A copy of the checkout, in whose environment the copy comes before the installed packages; its interpreter."""
    tree = folder / "tree"
    skipped = shutil.ignore_patterns(".git", ".venv*", ".*_cache", ".hypothesis", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, tree, ignore=skipped)
    venv.create(tree / ".venv", symlinks=os.name != "nt")
    paths = sysconfig.get_paths(vars={"base": str(tree / ".venv"), "platbase": str(tree / ".venv")})
    for kind in ("purelib", "scripts"):
        for entry in Path(sysconfig.get_path(kind)).iterdir():
            link = Path(paths[kind]) / entry.name
            if not (link.exists() or _leads_to_a_checkout(entry)):
                link.symlink_to(entry)
    (Path(paths["purelib"]) / "tree.pth").write_text(f"{tree}\n")
    return Path(paths["scripts"]) / Path(sys.executable).name


def _leads_to_a_checkout(entry: Path) -> bool:
    """Whether it is the path file of an editable installation."""
    lines = entry.read_text(errors="replace").splitlines() if entry.suffix == ".pth" else []
    return any((Path(line) / "ether" / "__init__.py").is_file() for line in lines)


@dataclass(frozen=True)
class Stage:
    """A part of the tests against which a mutant is run: a lane, and files or folders (all of them where none are
    named). A mutant goes through its stages until one kills it."""

    lane: str
    places: tuple[str, ...] = ()

    def __str__(self) -> str:
        named = " ".join(place.removeprefix("tests/") for place in self.places[:4])
        more = f" and {len(self.places) - 4} more" if len(self.places) > 4 else ""
        return f"{self.lane}{' ' if named else ''}{named}{more}"


class Copy:
    """A copy of the checkout, in which mutants are tested one after the other."""

    def __init__(self, python: Path, arguments: Sequence[str]) -> None:
        self.python, self.arguments = python, arguments
        self.tree = python.parent.parent.parent
        self._house, self._tests = Tree(ROOT), Tree(ROOT, ("tests",))
        self._sound: set[Stage] = set()

    def stages(self, mutant: Mutant, lane: str) -> list[Stage]:
        """The tests that are most likely to notice come first; the last stage is the whole lane."""
        places = [each for each in (self._nearest(mutant.path), self._near(mutant.path)) if each]
        lanes = ["fast"] if lane == "fast" else ["fast", "all"]
        return [Stage(lane, place) for lane in lanes for place in (*places, ())]

    def _nearest(self, path: str) -> tuple[str, ...]:
        """The files of tests that import a module."""
        module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        files = [
            self._tests.files[test]
            for test, names in self._tests.names.items()
            if test.rpartition(".")[2].startswith("test_")
            and any(f"{name}.".startswith(f"{module}.") for name, _, _ in names)
        ]
        return tuple(str(file.relative_to(ROOT)) for file in files)

    def _near(self, path: str) -> tuple[str, ...]:
        """The folders of tests for the room of a module, and for the rooms that import it."""
        module = path.removesuffix(".py").replace("/", ".")
        importers = sorted(each.importer for each in self._house.imports if each.imported == module)
        folders = [FOLDERS.get(folder, folder) for folder in map(_room_of, [module, *importers])]
        return tuple(f"tests/{folder}" for folder in dict.fromkeys(folders) if (ROOT / "tests" / folder).is_dir())

    def check_unchanged(self, stage: Stage) -> None:
        """A test that fails without a mutant proves nothing. Raises `RuntimeError`."""
        if stage in self._sound:
            return
        passed, why, _ = self.tested(stage)
        if not passed:
            raise RuntimeError(f"the unchanged copy fails ({stage}): {why}")
        self._sound.add(stage)

    def kills(self, mutant: Mutant, stage: Stage) -> str:
        """What notices the mutant in this stage; "" where nothing does. A test that fails only once has not noticed it:
        it is run a second time; and then on the unchanged copy."""
        path = self.tree / mutant.path
        right = path.read_text()
        path.write_text(mutant.applied(right))
        try:
            passed, why, test = self.tested(stage)
            if passed:
                return ""
            if test:
                stage = Stage(stage.lane, (test,))
            if test and self.tested(stage)[0]:
                print(f"         {mutant.name}: failed once and passed then: {test}", flush=True)
                return ""
        finally:
            path.write_text(right)
        self.check_unchanged(stage)
        return why

    def tested(self, stage: Stage) -> tuple[bool, str, str]:
        """Whether the tests pass, what was said of the first that does not, and its name ("" where no test was run).
        Raises `RuntimeError` where pytest did not run."""
        named = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTEST_ADDOPTS")}
        command = [str(self.python), "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--lane", stage.lane]
        with (self.tree.parent / "output").open("w+") as output:
            try:
                code = subprocess.run(
                    [*command, *stage.places, *self.arguments], cwd=self.tree, env=named, stdout=output,
                    stderr=subprocess.STDOUT, timeout=LIMIT_S[stage.lane], check=False,
                ).returncode  # fmt: skip
            except subprocess.TimeoutExpired:
                return False, f"hangs for more than {LIMIT_S[stage.lane]} s", ""
            output.seek(0)
            text = output.read()
        if code in (0, 5):  # 5: none of these tests is in the lane
            return True, "", ""
        if code not in (1, 2):
            raise RuntimeError(f"pytest ended with {code}:\n{text[-3000:]}")
        # A captured log record begins with its level, too, and then with more than one space.
        first = next((line for line in text.splitlines() if re.match("(FAILED|ERROR) [^ ]", line)), "")
        found = re.match(r"FAILED (\S+::\S+)(?: - |$)", first)  # a name with spaces in it is not told from what follows
        return False, first[:160] or "no test could be run", found[1] if found else ""


def _room_of(module: str) -> str:
    package, _, rest = module.partition(".")
    return rest.partition(".")[0] if package == "ether" else package


def hunt(mutants: Sequence[Mutant], lane: str, arguments: Sequence[str]) -> list[Mutant]:
    """Test each mutant in turn; returns those that survived."""
    survivors = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Copy(copy_tree(Path(folder)), arguments)
        for mutant in mutants:
            began = time.monotonic()
            for stage in copy.stages(mutant, lane):
                why = copy.kills(mutant, stage)
                if why:
                    print(f"killed   {mutant.name} ({time.monotonic() - began:.0f} s, {stage}) {why}", flush=True)
                    break
            else:
                survivors.append(mutant)
                print(f"SURVIVED {mutant.name} ({time.monotonic() - began:.0f} s): {mutant.promise}", flush=True)
    return survivors


def main() -> int:
    """Draw, hunt and report."""
    parser = argparse.ArgumentParser(description="Which breaks of the code does no test notice?")
    parser.add_argument("--list", action="store_true", help="say what there is, and run nothing")
    parser.add_argument("--count", type=int, help="how many are drawn; all without it")
    parser.add_argument("--seed", type=int, default=0, help="draws the same ones again")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these")
    parser.add_argument("--whole", action="store_true", help="the whole suite instead of the fast lane")
    parser.add_argument("--at-least", type=float, default=100.0, metavar="PERCENT", help="so many must be killed")
    parser.add_argument("pytest", nargs="*", metavar="-- ARGUMENT", help="further arguments of pytest")
    told = parser.parse_args()
    try:
        for mutant in MUTANTS:
            mutant.applied((ROOT / mutant.path).read_text())
    except (Stale, OSError) as error:
        print(f"stale: {error}", file=sys.stderr)
        return 2
    chosen = [mutant for mutant in MUTANTS if told.only is None or mutant.name in told.only]
    if told.count is not None:
        chosen = random.Random(told.seed).sample(chosen, min(told.count, len(chosen)))
    if told.list:
        for mutant in chosen:
            print(f"{mutant.name:32} {mutant.operator:8} {mutant.path:40} {mutant.promise}")
        return 0
    survivors = hunt(chosen, "all" if told.whole else "fast", told.pytest)
    killed = len(chosen) - len(survivors)
    print(f"{killed} of {len(chosen)} killed")
    for mutant in survivors:
        print(f"  survived: {mutant.name}: {mutant.promise} ({mutant.path})")
    return 0 if killed * 100 >= told.at_least * len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
