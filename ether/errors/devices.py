"""Errors of instances that drive a device; the whole tree is drawn in `ether.errors`."""

from __future__ import annotations

from ether.errors.base import EtherError


class InSafeState(EtherError, RuntimeError):
    """A message, call or tick that an instance does not carry out because its device is in the safe state.

    `method` is what was to be called, `why` what is gone, `instance` whose device it is.
    """

    def __init__(self, instance: str, method: str, why: str) -> None:
        self.instance, self.method, self.why = instance, method, why
        super().__init__(
            f"{instance} is in its safe state ({why}) and does not run {method!r}."
            " What may run even then is listed in safe_state.allow."
        )
