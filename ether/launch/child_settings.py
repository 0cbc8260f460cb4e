"""What an instance's process is told, once, through its standard input: never on a command line, where everybody on
the machine could read the broker's password."""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields
from typing import Any, BinaryIO, NamedTuple

from ether.config import EtherConfig, EtherInstanceConfig
from ether.connection.assembly import Registry
from ether.errors import EncodeError
from ether.instance.registry import RegistryOptions, registry_marks, registry_options
from ether.launch.child import changed_environment, import_path
from ether.launch.recording_setup import RecordingSetup
from ether.launch.simulated_lab import Simulation
from ether.system.processes import running_script
from ether.transport.endpoint import Endpoint
from ether.wire.codec import decode, encode

EXIT_REPLACED = 4
"""How an instance's process ends whose name another one has taken over."""

_LENGTH = struct.Struct(">Q")


@dataclass(frozen=True, slots=True)
class InstanceSettings:
    """One instance, and the process that it is to live in."""

    session: str
    name: str
    class_path: str
    args: list[Any]
    kwargs: dict[str, Any]
    concurrency: int
    registry: RegistryOptions
    endpoint: dict[str, Any]
    max_packet_bytes: int | None
    import_path: list[str]
    script: str | None
    environment: dict[str, str | None]
    """Variables that the launcher changed for the start of the process, with the values to give back."""
    connect_timeout_s: float
    incarnation: str
    epoch: int
    holding: dict[str, Any]
    """What is announced beside: who keeps it, whether it is started again."""
    saving: dict[str, Any]
    """How it saves: `ether.launch.recording_setup.options_to_value`."""
    configuration: dict[str, Any]
    """What the contexts of this session say of its configuration."""
    leader: str
    """The program that starts a recorder where there is none."""
    twins: list[dict[str, Any]] | None
    """The simulated instruments that stand for real ones; None where nothing is simulated."""

    def marks(self) -> Registry:
        """The registry as marks; raises `MarkError`."""
        return registry_marks(self.registry)

    def broker(self) -> Endpoint:
        """Where the broker is."""
        return Endpoint.from_dict(self.endpoint)

    def to_bytes(self) -> bytes:
        """As it is sent; raises `EncodeError` that names an argument which cannot cross to another process."""
        try:
            payload = encode({field.name: getattr(self, field.name) for field in fields(self)}).payload
        except EncodeError as error:
            raise EncodeError(f"instances.{self.name}.{error.path}", error.problem) from error
        return _LENGTH.pack(len(payload)) + payload

    @classmethod
    def read(cls, stream: BinaryIO) -> InstanceSettings | None:
        """What the launcher sent; None where it died before it had."""
        head = stream.read(_LENGTH.size)
        if len(head) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack(head)
        payload = stream.read(length)
        value = decode(payload, None) if len(payload) == length else None
        return cls(**value) if isinstance(value, dict) else None


class Life(NamedTuple):
    """One life of an instance; `holding` is announced beside its state."""

    name: str
    incarnation: str
    epoch: int
    holding: dict[str, Any]
    connect_timeout_s: float


def settings_of(
    config: EtherConfig, instance: EtherInstanceConfig, life: Life, broker: tuple[Endpoint, int | None], session: str,
    saving: RecordingSetup, simulation: Simulation,
) -> InstanceSettings:  # fmt: skip
    """The settings of one life; `broker` is where it is, and how many bytes a packet of it may have."""
    endpoint, limit = broker
    return InstanceSettings(
        session=session,
        name=life.name,
        class_path=instance.class_path,
        args=list(instance.args),
        kwargs=instance.constructor_kwargs,
        concurrency=instance.concurrency,
        registry=registry_options(config, instance),
        endpoint=dict(endpoint.to_dict()),
        max_packet_bytes=limit,
        import_path=import_path(),
        script=running_script(),
        environment={**changed_environment(), **simulation.environment},
        connect_timeout_s=life.connect_timeout_s,
        incarnation=life.incarnation,
        epoch=life.epoch,
        holding=life.holding | ({"simulated": True} if simulation.wanted else {}),
        saving=saving.options().to_value(),
        configuration=saving.configuration(),
        leader=saving.leader,
        twins=simulation.twins,
    )
