"""What a configuration may say, and how it is read.

The models are the only description of the configuration: names, defaults, limits and texts. All faults of a
configuration are raised as one `ConfigError`, which names file, line, what was found and the nearest valid key.

The names below are imported on first use, so that `ether.config.names`, which every process needs, does not import
pydantic.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ether.config.broker import BrokerAddress, BrokerConfig, EmbeddedBroker, ExternalBroker
    from ether.config.loading import changed, digest_of, load_config
    from ether.config.models import EtherConfig, EtherInstanceConfig, RegistryEntry, RegistryMethod

__all__ = [
    "BrokerAddress",
    "BrokerConfig",
    "EmbeddedBroker",
    "EtherConfig",
    "EtherInstanceConfig",
    "ExternalBroker",
    "RegistryEntry",
    "RegistryMethod",
    "changed",
    "digest_of",
    "load_config",
]

_HOMES = {
    "BrokerAddress": "ether.config.broker",
    "BrokerConfig": "ether.config.broker",
    "EmbeddedBroker": "ether.config.broker",
    "EtherConfig": "ether.config.models",
    "EtherInstanceConfig": "ether.config.models",
    "ExternalBroker": "ether.config.broker",
    "RegistryEntry": "ether.config.models",
    "RegistryMethod": "ether.config.models",
    "changed": "ether.config.loading",
    "digest_of": "ether.config.loading",
    "load_config": "ether.config.loading",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
