"""Errors of instances that drive a device; the whole tree is drawn in `ether.errors`."""

from __future__ import annotations

from ether.errors.base import EtherError


class InSafeState(EtherError, RuntimeError):
    """A message, call or scheduled call that an instance refuses because its device is in the safe state.

    `method` was to be called on `instance`; `why` says which connection or controller was lost.
    """

    def __init__(self, instance: str, method: str, why: str) -> None:
        self.instance, self.method, self.why = instance, method, why
        super().__init__(
            f"{instance} is in its safe state ({why}) and does not run {method!r}."
            " What may run even then is listed in safe_state.allow."
        )


class ReplayRefused(EtherError, RuntimeError):
    """Something that would move a device, or reach one of another program, and that a replayed recording has caused.

    `instance` is the device, instance or topic; `what` was to be done with it.
    """

    def __init__(self, instance: str, what: str) -> None:
        self.instance, self.what = instance, what
        super().__init__(
            f"{what} on {instance} was refused: it could move a device, and its cause is a replay of a recording. Play"
            " into a session without devices (`ether play --in NAME`), or where it is meant, with --onto-devices"
            " (ether.play(…, onto_devices=True))."
        )
