"""Which session a program means: the one that its configuration names, that its environment names, or that runs.

A configuration that names neither session nor broker and describes instances starts a session of its own, so that two
pipelines on one machine do not run into each other. A program without instances looks for a session to join.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ether.config import EtherConfig, load_config
from ether.config.broker import EmbeddedBroker, ExternalBroker
from ether.config.broker_url import complete_url

if TYPE_CHECKING:
    from ether.process.discovery import FoundSession


def running_session(config: EtherConfig, environment: Mapping[str, str]) -> tuple[EtherConfig, FoundSession | None]:
    """The configuration with what the environment adds, and the session to join; None where one is to be started.
    Raises `SeveralSessions`, `BrokerUnreachable`."""
    config = _with_environment(config, environment)
    embedded = isinstance(config.broker, EmbeddedBroker)
    own = embedded and config.broker != EmbeddedBroker()  # it says how the broker is to be: it wants one of its own
    if own or (config.session is None and embedded and config.instances):
        return config, None
    if config.session is None and not embedded and config.instances:
        return config, None
    from ether.process.discovery import find

    broker = config.broker.url if isinstance(config.broker, ExternalBroker) else None
    return config, find(session=config.session, broker=broker, environment=environment)


def _with_environment(config: EtherConfig, environment: Mapping[str, str]) -> EtherConfig:
    added: dict[str, str] = {}
    if config.session is None and (session := environment.get("ETHER_SESSION")):
        added["session"] = session
    if config.broker == EmbeddedBroker() and (broker := environment.get("ETHER_BROKER")):
        added["broker"] = complete_url(broker)
    return load_config({**dict(config), **added}) if added else config
