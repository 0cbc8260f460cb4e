"""What a program tells an instance's process: put together out of configuration, session and this life of it."""

from __future__ import annotations

from typing import Any, NamedTuple

from ether.config import EtherConfig, EtherInstanceConfig
from ether.instance.registry import registry_options
from ether.launch.child import changed_environment, import_path, running_script
from ether.launch.child_settings import InstanceSettings
from ether.launch.recording_setup import RecordingSetup
from ether.launch.simulated_lab import Simulation
from ether.transport.endpoint import Endpoint


class Life(NamedTuple):
    """One life of an instance; `holding` is announced beside its state."""

    name: str
    birth: str
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
        birth=life.birth,
        epoch=life.epoch,
        holding=life.holding | ({"simulated": True} if simulation.wanted else {}),
        saving=saving.options().to_value(),
        configuration=saving.configuration(),
        leader=saving.leader,
        twins=simulation.twins,
    )
