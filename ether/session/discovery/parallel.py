"""Several questions at the same time, and no longer than one may take.

The trap: a question may be stuck where nothing can interrupt it (a name that is being resolved). It is left behind on
its daemon thread, and its answer is not waited for; a thread pool would wait for it when the program ends.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from ether.connection.deadline import Deadline

Answer = TypeVar("Answer")


def in_parallel(questions: Sequence[Callable[[], Answer]], timeout_s: float) -> list[Answer | Exception]:
    """The answers in the order of the questions; instead of one the exception that it raised, `TimeoutError` where none
    came in time."""
    answers: queue.SimpleQueue[tuple[int, Answer | Exception]] = queue.SimpleQueue()
    for number, question in enumerate(questions):
        ask = partial(_ask, number, question, answers)
        threading.Thread(target=ask, name=f"ether-ask-{number}", daemon=True).start()
    deadline = Deadline(timeout_s)
    given: dict[int, Answer | Exception] = {}
    while len(given) < len(questions):
        try:
            number, answer = answers.get(timeout=deadline.left())
        except queue.Empty:
            break
        given[number] = answer
    late = TimeoutError(f"no answer within {timeout_s:g} s")
    return [given.get(number, late) for number in range(len(questions))]


def _ask(
    number: int,
    question: Callable[[], Answer],
    answers: queue.SimpleQueue[tuple[int, Answer | Exception]],
) -> None:
    try:
        answers.put((number, question()))
    except Exception as error:  # noqa: BLE001 (whatever it is, it belongs to who asked)
        answers.put((number, error))
