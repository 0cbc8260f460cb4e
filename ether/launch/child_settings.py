"""The settings that an instance's process receives from its launcher, once, through its standard input.

Never on a command line, where every user of the machine could read the broker's password. Both sides are here: the
launcher makes the settings (`settings_of`) and sends them (`to_bytes`), the process reads them (`read`). Promise: an
argument that cannot cross to another process is named by its place in the configuration. The trap: the fields of
`InstanceSettings` are the format, so launcher and process must be of the same version; they always are, because the
process imports `ether` from where the launcher did.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, BinaryIO

from ether.connection.assembly import Registry
from ether.errors import EncodeError
from ether.instance.notebook_cells import notebook_text
from ether.instance.registry import RegistryOptions, registry_marks, registry_options
from ether.launch.child import changed_environment, import_path
from ether.secret_values import secrets_in
from ether.system.processes import running_script
from ether.transport.endpoint import Endpoint
from ether.wire.codec import decode, encode

if TYPE_CHECKING:
    from ether.config import EtherConfig, EtherInstanceConfig

EXIT_REPLACED = 4
"""The exit code of an instance's process whose name another process has taken over."""

BEGIN = b"b"
"""What the launcher sends behind the settings: the instance's ticks begin."""

_LENGTH = struct.Struct(">Q")


@dataclass(frozen=True, slots=True)
class InstanceSettings:
    """One instance, and the process in which it is to live."""

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
    cells: str | None
    """The cells of the notebook that starts it, of which the class may be one."""
    environment: dict[str, str | None]
    """Variables to set when the process has started; None removes one. Among them are those that the launcher changed
    for the start itself, with their earlier values."""
    connect_timeout_s: float
    incarnation: str
    epoch: int
    announced: dict[str, Any]
    """Facts that the instance announces beside its state: which program supervises it, whether it is started again."""
    saving: dict[str, Any]
    """How it saves: `SavingOptions.to_value()`."""
    configuration: dict[str, Any]
    """What the contexts of this session say of its configuration."""
    leader: str
    """The program that starts a recorder where there is none."""
    simulated_devices: list[dict[str, Any]] | None
    """The simulated devices that stand for real ones; None where nothing is simulated."""
    broker_traits: dict[str, Any]
    """What the launcher has found out about the broker and the way to other members: `Link.traits`."""
    positions: str
    """The file in which it notes what it has handled, for its next incarnation."""
    together: list[str]
    """The instances that are started together with it, whose first values it is to get; empty where it starts alone."""
    began: float
    """When that start began, by the steady clock, which is one for all processes of the machine."""
    waits: bool
    """Whether its ticks begin when the launcher says so (`BEGIN`), and not as soon as it is ready."""
    build: dict[str, Any] | None = None
    """The factory that makes the object, as the configuration says it; None where the class itself does."""
    succeeds: bool = False
    """Whether another process serves under its name until its turn comes (`ether.launch.reload.succession`)."""
    rights: dict[str, list[str]] | None = None
    """On another device than the leader's: what it may do beside what its decorators say; None: everything."""
    secrets: list[str] | None = None
    """The values among its arguments, those of its factory and of its calls, that are recorded, logged and shown
    nowhere."""

    def marks(self) -> Registry:
        """The registry as marks; raises `MarkError`."""
        return registry_marks(self.registry)

    def broker(self) -> Endpoint:
        """Where the broker is."""
        return Endpoint.from_dict(self.endpoint)

    def to_bytes(self) -> bytes:
        """The settings as they are sent: 8 bytes of length, then the value. Raises `EncodeError`, which names an
        argument that cannot cross to another process."""
        try:
            payload = encode({field.name: getattr(self, field.name) for field in fields(self)}).payload
        except EncodeError as error:
            raise EncodeError(f"instances.{self.name}.{error.path}", error.problem) from error
        return _LENGTH.pack(len(payload)) + payload

    @classmethod
    def read(cls, stream: BinaryIO) -> InstanceSettings | None:
        """The settings that the launcher sent; None where it died before it had sent all of them."""
        head = stream.read(_LENGTH.size)
        if len(head) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack(head)
        payload = stream.read(length)
        value = decode(payload, None) if len(payload) == length else None
        return cls(**value) if isinstance(value, dict) else None


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What is the same for every instance that one program starts. Fields as in `InstanceSettings`."""

    session: str
    endpoint: Endpoint
    max_packet_bytes: int | None
    saving: dict[str, Any]
    configuration: dict[str, Any]
    leader: str
    environment: Mapping[str, str | None]
    simulated_devices: list[dict[str, Any]] | None
    broker_traits: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Incarnation:
    """What differs from one start of an instance to the next. Fields as in `InstanceSettings`; `id` is its
    `incarnation`."""

    name: str
    id: str
    epoch: int
    announced: dict[str, Any]
    connect_timeout_s: float
    positions: str
    together: list[str]
    began: float
    waits: bool


def settings_of(
    config: EtherConfig, instance: EtherInstanceConfig, incarnation: Incarnation, common: SessionSettings
) -> InstanceSettings:
    """The settings for one start of an instance."""
    build = None if instance.build is None else instance.build.model_dump(by_alias=True)
    registry = registry_options(config, instance)
    return InstanceSettings(
        session=common.session,
        name=incarnation.name,
        class_path=instance.class_path,
        args=list(instance.args),
        kwargs=instance.constructor_kwargs,
        build=build,
        concurrency=instance.concurrency,
        registry=registry,
        endpoint=dict(common.endpoint.to_dict()),
        max_packet_bytes=common.max_packet_bytes,
        import_path=import_path(),
        script=running_script(),
        cells=notebook_text() if instance.class_path.startswith("__main__.") else None,
        environment={**changed_environment(), **common.environment, **instance.env},
        connect_timeout_s=incarnation.connect_timeout_s,
        incarnation=incarnation.id,
        epoch=incarnation.epoch,
        announced=incarnation.announced,
        saving=common.saving,
        configuration=common.configuration,
        leader=common.leader,
        simulated_devices=common.simulated_devices,
        broker_traits=common.broker_traits,
        positions=incarnation.positions,
        together=incarnation.together,
        began=incarnation.began,
        waits=incarnation.waits,
        secrets=secrets_in([instance.args, instance.constructor_kwargs, build, registry, instance.env]),
    )
