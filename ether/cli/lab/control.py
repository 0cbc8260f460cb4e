"""Asks the program that supervises a session's instances to do something: the client side of the session's `keep` verb.

The program acts on its own machine, with its own configuration; nothing is killed from here.
"""

from __future__ import annotations

from ether.errors import EtherError
from ether.session.client import Client
from ether.session.session import KEEP


class NotDone(EtherError, RuntimeError):
    """The program that was asked did not do it; `why` is its answer."""

    def __init__(self, what: str, who: str, why: str) -> None:
        self.what, self.who, self.why = what, who, why
        super().__init__(f"could not {what}: {who} answered: {why}")


def ask_program(client: Client, program: str, request: dict[str, str], what: str, timeout_s: float) -> None:
    """Send `request` (`do`: the verb, `name`: the instance, empty for the session) and wait until it is done.

    `what` describes the request in the message of `NotDone`, which is raised for a refusal and for silence."""
    barrier = client.session.ask(KEEP, [program], timeout_s, request)
    answer = barrier.answers.get(program)
    if answer is None:
        raise NotDone(what, program, barrier.reasons(timeout_s).get(program, f"nothing within {timeout_s:g} s"))
    if answer.failed:
        raise NotDone(what, program, "; ".join(answer.failed.values()))
