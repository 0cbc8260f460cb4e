"""Runs the amqtt engine: an event loop from the first listener to the last connection.

Promise: at the ready line the listener is open, in this process. When the lifeline asks for the end, listener and
connections are closed within milliseconds, without output on stderr.
The trap: importing amqtt takes longer than everything else together, so the settings are checked before, and the
import is late.
"""

import asyncio
import contextlib
import errno
import os
from types import ModuleType

from broker.events import EventWriter
from broker.failures import AddressInUse, EngineFailed, EngineMissing
from broker.lifeline import SIGNALS_S, Lifeline
from broker.settings import Settings


def serve(settings: Settings, events: EventWriter, lifeline: Lifeline) -> None:
    """Run amqtt until the lifeline asks for the end; raises `BrokerFailure` when it cannot start."""
    asyncio.run(_serve(settings, events, lifeline, _load()))


def _load() -> ModuleType:
    try:
        from broker.engines import amqtt_broker
    except ImportError as error:
        raise EngineMissing(f"The package amqtt cannot be imported: {error}.") from error
    require_tested(amqtt_broker.VERSION, amqtt_broker.is_tested(amqtt_broker.VERSION))
    return amqtt_broker


def require_tested(version: str, tested: bool) -> None:
    """Raise `EngineMissing` for an amqtt whose private methods may differ from those that are overridden here."""
    if not tested:
        raise EngineMissing(f"amqtt {version} was never tested here: install amqtt>=0.12.1,<0.13, or mosquitto.")


async def _serve(settings: Settings, events: EventWriter, lifeline: Lifeline, engine: ModuleType) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def on_end() -> None:
        loop.call_soon_threadsafe(stop.set)

    lifeline.watch(on_end)
    broker = engine.MendedBroker(settings, events.warning)
    try:
        await broker.start()
    except engine.BrokerError as error:
        raise _translated(error, settings) from error
    events.ready(
        engine="amqtt",
        version=engine.VERSION,
        host=settings.host,
        port=broker.port,
        unix_socket=None,
        protocols=["3.1.1"],
        max_packet_bytes=settings.max_packet_bytes,
        pid=os.getpid(),
        lan_host=None,
        lan_port=None,
        websocket_port=None,
    )
    while not stop.is_set():  # in short waits: see `lifeline.SIGNALS_S`
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), SIGNALS_S)
    await broker.shutdown()


def _translated(error: Exception, settings: Settings) -> AddressInUse | EngineFailed:
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE:
        return AddressInUse(settings.host, settings.port)
    return EngineFailed(f"amqtt would not start: {cause or error}.")
