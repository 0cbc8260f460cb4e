"""What is due when: callbacks by the time of a clock that the caller reads.

Promise: adding and cancelling cost no search; a cancelled timer is dropped when its time comes, or when most timers
are cancelled ones. Pure: `now` is an argument.
"""

import heapq
from collections.abc import Callable


class Timer:
    """One callback; `cancel` makes it do nothing."""

    __slots__ = ("_owner", "callback", "due")

    def __init__(self, due: float, callback: Callable[[], None], owner: "Timers") -> None:
        self.due, self._owner = due, owner
        self.callback: Callable[[], None] | None = callback

    def __lt__(self, other: "Timer") -> bool:
        return self.due < other.due

    def cancel(self) -> None:
        """Forget the callback; twice is fine."""
        if self.callback is not None:
            self.callback = None
            self._owner.one_was_cancelled()


class Timers:
    """All timers of one broker."""

    def __init__(self) -> None:
        self._heap: list[Timer] = []
        self._cancelled = 0

    def at(self, due: float, callback: Callable[[], None]) -> Timer:
        """Call back at that time."""
        timer = Timer(due, callback, self)
        heapq.heappush(self._heap, timer)
        return timer

    def run(self, now: float) -> bool:
        """Call back what is due; whether anything was."""
        if not self._heap or self._heap[0].due > now:
            return False
        while self._heap and self._heap[0].due <= now:
            timer = heapq.heappop(self._heap)
            callback, timer.callback = timer.callback, None
            if callback is None:
                self._cancelled -= 1
            else:
                callback()
        return True

    def wait_s(self, now: float, longest_s: float) -> float:
        """Seconds until the next one is due, at most `longest_s`."""
        left_s = self._heap[0].due - now if self._heap else longest_s
        return longest_s if left_s > longest_s else max(0.0, left_s)

    def one_was_cancelled(self) -> None:
        """Keep the heap from filling with cancelled timers."""
        self._cancelled += 1
        if self._cancelled > 64 and self._cancelled * 2 > len(self._heap):
            self._heap = [timer for timer in self._heap if timer.callback is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0
