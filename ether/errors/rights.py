"""The error of what a device has no right to; the whole tree is drawn in `ether.errors`."""

from __future__ import annotations

from ether.errors.base import EtherError

_KEYS = {"publish": "publishes", "hear": "hears", "call": "calls"}
_DONE = {"publish": "publish on", "hear": "hear", "call": "call"}


class NotAllowed(EtherError, PermissionError):
    """An instance on another device does what neither its decorators nor the configuration say. `action` is `publish`,
    `hear` or `call`, `what` the topic, `service.method` or (for a lease) `service`; or it is `command`, `what` the call
    of Ether's that speaks to all instances."""

    def __init__(self, instance: str, action: str, what: str) -> None:
        self.instance, self.action, self.what = instance, action, what
        Exception.__init__(self, instance, action, what)

    @property
    def line(self) -> str:
        """What to add to the configuration; "" where nothing gives that right."""
        return "" if self.action == "command" else f"{_KEYS[self.action]}: [{self.what}]"

    def __str__(self) -> str:
        if self.action == "command":
            return (
                f"{self.instance} may not call {self.what}: it speaks to other devices' instances, which only programs"
                " of the machine that leads may. Publish a topic that an instance there hears, and let that do it."
            )
        return (
            f"{self.instance} may not {_DONE[self.action]} {self.what!r}: neither its decorators nor the configuration"
            f" say so. Add to instances.{self.instance}, beside class_path: `{self.line}`."
        )
