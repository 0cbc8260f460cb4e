"""Which frame answers which question, on a line whose messages carry no ids. No I/O, no clock: `now` is an argument.

Serial ports, VISA and sockets follow this one rule: what was on its way before the question is never its answer.

    in step ──a question fails──> out of step ──proof──> in step
       one frame for each question      nothing is asked, but what proves

How it works. A question that fails still owes its answer (`_owed`), which may come up to `late_s` seconds after the
time-out. Until then the line is out of step, and no other question is sent. Proof is any of these: as many frames came
as are owed; nothing came for `late_s`; a sync question was answered (its answer fits no other question); the
interface was cleared. After the first two, the line must also be quiet for `settle_s`.

A frame that comes in the time of a question is its answer, if it is not one of these: unsolicited, as the user's
function says; the echo of a command; late, because an answer is owed. Two different frames for one question are an
error, because which one is the answer cannot be told. Where there is a reason to expect a second frame (an answer that
never came, something unasked, the first question after a write), the answer is held for `settle_s` before it is given
out.

The trap: the rule counts frames. An instrument that speaks unasked needs `unsolicited`, and one whose answers come
later than `late_s` needs a longer time-out or a sync question.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

LATE_FACTOR = 2.0
"""An owed answer is waited for so many time-outs after its own, or for `settle_s` where that is longer."""

SETTLE_S = 0.05
"""A line that was quiet for so long has nothing more to say to what was asked before."""

GUARD_S = 10.0
"""After something that nobody asked for, answers are held for `settle_s` during this time."""

DISTINCT_BYTES = 4
"""A shorter answer to a sync question (`1`) may also be that of another question."""

_WRITTEN_LIMIT = 16
_ACKS = 2


class Fate(Enum):
    """What a frame is."""

    ANSWER = auto()
    INPUT = auto()
    LATE = auto()
    ECHO = auto()
    DOUBLE = auto()
    SURPLUS = auto()


@dataclass(frozen=True, slots=True)
class LineRules:
    """What the user knows of the instrument. `echo`: whether it sends each command back (None: not told, then it is
    noticed)."""

    settle_s: float = SETTLE_S
    unsolicited: Callable[[bytes], bool] | None = None
    echo: bool | None = None

    def late_s(self, timeout_s: float) -> float:
        """How long after its time-out an answer is waited for."""
        return max(LATE_FACTOR * timeout_s, self.settle_s)


class StepCounts(NamedTuple):
    """Answers after their time-out, returns to being in step, echoes, and frames too many."""

    late: int = 0
    resynchronised: int = 0
    echoes: int = 0
    surplus: int = 0


class Owed(NamedTuple):
    """A message that may still come, until that time: the answer to a question, or the acknowledgement of a command
    (`ack`). `late_s` is the time that it was given."""

    message: bytes
    until: float
    late_s: float
    ack: bool = False


@dataclass(slots=True)
class _Asked:
    """The question that waits. `fits` is there for a sync question."""

    message: bytes
    timeout_s: float
    deadline: float
    fits: Callable[[bytes], bool] | None
    answer: bytes | None = None
    second: bytes | None = None
    echo: bytes | None = None
    before_echo: bytes | None = None
    dropped: bytes | None = None
    proven: bool = False


class LineStep:
    """Whether one line is in step. Not thread-safe: its connection guards it."""

    def __init__(self, rules: LineRules, owed: Sequence[Owed] = ()) -> None:
        """`owed` is what an earlier connection to the same device has left: a new one does not stop an old answer."""
        self.rules = rules
        self._echo, self._echo_is_told = rules.echo, rules.echo is not None
        self._asked: _Asked | None = None
        self._owed: deque[Owed] = deque()
        self._failed: list[bytes] = []  # the questions that put the line out of step
        self._until, self._unproven, self._must_be_quiet = 0.0, False, False
        self._moved, self._timeout_s = 0.0, 0.0
        self._held = True  # what an earlier program has asked may still be on its way
        self._stray: _Asked | None = None  # a sync question whose own answer may still come
        self._stray_until, self._muddled = 0.0, False
        self._lost, self._lost_s = False, 0.0  # an owed answer never came: it may be late beyond all bounds
        self._guarded_until, self._speaks = 0.0, False  # it has sent something that nobody asked for
        self._written: deque[bytes] = deque(maxlen=_WRITTEN_LIMIT)
        self._wrote, self._ack_came, self._writes_are_silent, self._acks = False, False, False, 0
        self._late = self._resynchronised = self._echoes = self._surplus = 0
        for each in owed:
            self._owe(each)

    @property
    def counts(self) -> StepCounts:
        """What happened so far."""
        return StepCounts(self._late, self._resynchronised, self._echoes, self._surplus)

    @property
    def in_step(self) -> bool:
        """Whether a question may be sent now, as far as frames tell."""
        return not self._unproven

    def owed(self, now: float) -> tuple[Owed, ...]:
        """The answers that may still come, with that to the question that waits."""
        asked = self._asked
        waiting = (self._owes(asked, now),) if asked is not None and asked.answer is None else ()
        return tuple(each for each in (*self._owed, *waiting) if each.until > now and not each.ack)

    def _owes(self, asked: _Asked, now: float) -> Owed:
        late_s = self.rules.late_s(asked.timeout_s)
        return Owed(asked.message, now + late_s, late_s)

    def _owe(self, owed: Owed) -> None:
        self._owed.append(owed)
        self._until = max(self._until, owed.until)
        self._unproven = True
        if not owed.ack:
            self._failed.append(owed.message)
            self._must_be_quiet = True

    def _may_not_count(self, now: float) -> bool:
        """Whether as many frames as are owed prove nothing: some of the frames may be doubles, unasked, or the answers
        to questions that are thought lost."""
        return self._lost or len(self._failed) > 1 or now < self._guarded_until

    def ready_at(self, now: float) -> float:
        """When the line is in step if nothing more comes; 0 where it is."""
        if not self._unproven:
            return 0.0
        if self._owed or (self._must_be_quiet and self._may_not_count(now)):
            return max(self.quiet_at, self._until)
        return self.quiet_at if self._must_be_quiet else 0.0

    @property
    def quiet_at(self) -> float:
        """When the line has been quiet for `settle_s`, if nothing more comes."""
        return self._moved + self.rules.settle_s

    def settled(self) -> None:
        """`ready_at` has passed. An owed answer that never came may still be before the next one."""
        if not self._unproven:
            return
        if any(each.ack for each in self._owed):
            self._acks -= 1  # it does not acknowledge each command
        if lost := [each.late_s / LATE_FACTOR for each in self._owed if not each.ack]:
            self._lost, self._lost_s = True, max(lost)
        self.proven()

    def proven(self) -> None:
        """The line is in step: it settled, or the interface was cleared."""
        self._resynchronised += self._must_be_quiet
        self._until, self._unproven, self._must_be_quiet, self._muddled = 0.0, False, False, False
        self._owed.clear()
        self._failed.clear()

    def moved(self, now: float) -> None:
        """Bytes have come, other than unsolicited frames."""
        self._moved = now

    def torn(self, now: float) -> None:
        """The beginning of a message was lost: its rest may still come, and is none."""
        self._moved = now
        self._unproven = self._must_be_quiet = self._held = True
        if self._asked is not None and self._asked.answer is not None:
            self._asked.second = b""

    def wrote(self, message: bytes, now: float) -> None:
        """A command without an answer was sent; some instruments acknowledge or echo it."""
        self._written.append(message.strip())
        self._wrote, self._ack_came = True, False
        if self._acks >= _ACKS:
            late_s = self.rules.late_s(self._timeout_s)
            self._owe(Owed(b"", now + late_s, late_s, ack=True))

    def begin(
        self, message: bytes, timeout_s: float, deadline: float, fits: Callable[[bytes], bool] | None = None
    ) -> None:
        """A question is about to be sent; with `fits`, a sync question."""
        self._timeout_s = timeout_s
        self._asked = _Asked(message, timeout_s, deadline, fits)

    @property
    def asks(self) -> bool:
        """Whether a question waits."""
        return self._asked is not None

    @property
    def answer(self) -> bytes | None:
        """The answer to the question that waits."""
        return self._asked.answer if self._asked else None

    @property
    def second(self) -> bytes | None:
        """Another frame that came for the same question."""
        return self._asked.second if self._asked and not self._asked.proven else None

    @property
    def echoed(self) -> bytes | None:
        """The echo, where nothing but it has come."""
        return self._asked.echo if self._asked else None

    @property
    def dropped(self) -> bytes | None:
        """The last frame that came before the answer and was dropped."""
        return (self._asked.dropped or self._asked.before_echo) if self._asked else None

    @property
    def needs_no_hold(self) -> bool:
        """Whether the answer can be given out without a look at the time."""
        asked = self._asked
        return (
            asked is not None
            and asked.answer is not None
            and asked.second is None
            and not (self._held or self._lost or self._guarded_until or self._wrote)
        )

    def hold_until(self, now: float) -> float:
        """Until when the answer is held, because a second one may follow; 0: not at all. Where an owed answer never
        came, this may be it; a device that works in order sends its own answer within a time-out from then on."""
        asked = self._asked
        if asked is None or asked.proven:
            return 0.0
        if self._lost:
            return max(min(asked.deadline, asked.deadline - asked.timeout_s + self._lost_s), self.quiet_at)
        if self._held or now < self._guarded_until or (self._wrote and not self._writes_are_silent):
            return self.quiet_at
        return 0.0

    def answered(self) -> None:
        """The answer is given out."""
        asked, self._asked = self._asked, None
        if asked is None or asked.fits is not None:
            return
        if asked.echo is not None and self._echo is None:
            self._echo = True  # an echo and then an answer: from now on each command is taken to be sent back
        if self._wrote:
            self._writes_are_silent = True
            if not self._ack_came:
                self._acks = max(self._acks - 1, 0)
        self._held = self._wrote = self._lost = False
        self._written.clear()

    def failed(self, now: float) -> None:
        """The question is not answered: its answer is owed."""
        asked, self._asked = self._asked, None
        if asked is None:
            return
        self._owe(self._owes(asked, now))
        if asked.fits is not None:
            self._stray, self._stray_until = asked, now + GUARD_S
        elif now < self._stray_until:
            self._muddled = True  # the sync question's answer may come before this one's
        if asked.before_echo is not None and not self._echo_is_told:
            self._echo = None  # it has stopped to send commands back

    def refused(self, message: bytes, now: float, until: float) -> None:
        """What came in the place of the answer is none (damaged, two frames, refused by the user). It may have been
        something else: then the answer may come until `until`."""
        self._asked = None
        self._unproven = self._must_be_quiet = self._held = True
        if until > now:
            self._owe(Owed(message, until, until - now))

    @property
    def speaks(self) -> bool:
        """Whether it has sent something that nobody asked for."""
        return self._speaks

    def take(self, frame: bytes, now: float) -> Fate:
        """What this frame is."""
        if self.rules.unsolicited is not None and self.rules.unsolicited(frame):
            self._speaks = True
            return Fate.INPUT
        self._moved = now
        if self._is_plain(frame):
            self._asked.answer = frame  # type: ignore[union-attr]
            return Fate.ANSWER
        fate = self._fate(frame, now)
        self._late += fate is Fate.LATE
        self._echoes += fate is Fate.ECHO
        if fate is Fate.SURPLUS or fate is Fate.DOUBLE:
            self._surplus += 1
        return fate

    def _is_plain(self, frame: bytes) -> bool:
        """Whether it can only be the answer: nothing is known or expected that makes it something else."""
        asked = self._asked
        return (
            asked is not None
            and asked.answer is None
            and asked.fits is None
            and self._stray is None
            and not (self._echo or self._written or frame.endswith(b"?"))
        )

    def _fate(self, frame: bytes, now: float) -> Fate:
        asked = self._asked
        if asked is None:
            return self._unasked(frame, now)
        if asked.answer is not None:
            return self._after_answer(asked, frame, now)
        if self._echo is not False and (fate := self._echo_of(asked, frame)) is not None:
            return fate
        if asked.fits is not None:
            return self._sync(asked, frame, now)
        if self._is_stray(asked.message, frame):
            asked.dropped = frame
            return Fate.LATE
        asked.answer = frame
        return Fate.ANSWER

    def _is_stray(self, asked: bytes | None, frame: bytes) -> bool:
        """Whether this is the answer of a sync question, which no other question has, however late it comes."""
        stray = self._stray
        if stray is None or stray.fits is None or stray.message == asked:
            return False
        return len(frame.strip()) >= DISTINCT_BYTES and stray.fits(frame)

    def _unasked(self, frame: bytes, now: float) -> Fate:
        if self._is_stray(None, frame):
            return Fate.LATE
        if self._owed:
            owed = self._owed.popleft()
            if not owed.ack:
                return Fate.LATE
            self._count_ack()
            return Fate.INPUT
        if self._echo and frame.strip() in self._written:
            return Fate.ECHO
        self._speaks, self._guarded_until = True, now + GUARD_S
        self._count_ack()
        return Fate.INPUT

    def _count_ack(self) -> None:
        """A frame came after a command without an answer: after two such commands, it is taken to acknowledge them."""
        if self._wrote and not self._ack_came:
            self._ack_came = True
            self._acks = min(self._acks + 1, 2 * _ACKS)
            if self._acks >= _ACKS:
                self._guarded_until = 0.0

    def _after_answer(self, asked: _Asked, frame: bytes, now: float) -> Fate:
        self._guarded_until = now + GUARD_S
        if frame == asked.answer:
            return Fate.DOUBLE
        if asked.second is None:
            self._count_ack()
        asked.second = frame
        return Fate.SURPLUS

    def _echo_of(self, asked: _Asked, frame: bytes) -> Fate | None:
        """The echo of the question, or of a command before it; None where the frame is neither.

        Where commands are sent back, what comes before the question's own echo was on its way before the question.
        """
        text = frame.strip()
        if asked.echo is None and text == asked.message.strip() and (self._echo or text[-1:] == b"?"):
            asked.echo = frame
            return Fate.ECHO
        if text in self._written:
            return Fate.ECHO
        if self._echo and asked.echo is None:
            asked.before_echo = frame
            return Fate.LATE
        return None

    def _sync(self, asked: _Asked, frame: bytes, now: float) -> Fate:
        """A frame in the time of a sync question: its answer, an owed one, or (a stranger's) another answer.

        The answer proves that the line is in step, where no owed answer can be the same; else the owed ones are still
        waited for. That of an earlier sync question that failed proves as much, since its question was sent after all
        that are owed; then the answer to this one is still to come, and is recognised (`_is_stray`).
        """
        assert asked.fits is not None
        if not asked.fits(frame):
            if self._owed:
                self._owed.popleft()
                asked.dropped = frame
                return Fate.LATE
            asked.answer = frame
            return Fate.ANSWER
        asked.answer, asked.proven = frame, True
        same = asked.message in self._failed
        distinct = len(frame.strip()) >= DISTINCT_BYTES
        if same:  # it may be the answer to the earlier one
            self._stray, self._stray_until = asked, now + GUARD_S
        elif now >= self._stray_until:
            self._stray = None
        counted = not (same or self._owed or self._may_not_count(now))
        if not self._unproven or (distinct and not self._muddled) or counted:
            self._held, self._lost = self._unproven, False  # this answer, too, may come twice
            self.proven()
            return Fate.ANSWER
        if same:
            self._lost, self._lost_s = True, asked.timeout_s
        late_s = max((each.late_s for each in self._owed), default=self.rules.late_s(asked.timeout_s))
        self._until = max(self._until, now + late_s)
        return Fate.ANSWER
