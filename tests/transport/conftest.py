"""The fixtures of the transport tests.

The brokers of `backend` are shared, so a test there uses a topic of its own (`topic`) and kills nobody;
`fragile` is a broker of the test's own, which it may kill and start again.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from running_brokers import running_broker

from tests.transport.backends import BACKENDS, Backend, make_backend, settings_of


@pytest.fixture(scope="session", params=BACKENDS)
def lasting_backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A backend over a broker that lives while tests of its kind run."""
    with ExitStack() as stack:
        own = settings_of(request.param)
        yield make_backend(request.param, lambda engine: stack.enter_context(running_broker(engine, **own)))


@pytest.fixture
def backend(lasting_backend: Backend) -> Iterator[Backend]:
    """Every backend in turn, over a broker that must not be killed."""
    yield lasting_backend
    lasting_backend.close()


@pytest.fixture(params=BACKENDS)
def fragile(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Every backend in turn, over a broker of its own that may be killed and started again."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ether-"))
        settings = settings_of(request.param)
        if "mosquitto" in request.param or "amqtt" in request.param:
            settings["unix_socket"] = str(Path(folder) / "b.sock")
        made = make_backend(request.param, lambda engine: stack.enter_context(running_broker(engine, **settings)))
        stack.callback(made.close)
        yield made


@pytest.fixture
def topic() -> str:
    """A topic that no other test uses."""
    return f"test/{uuid.uuid4().hex}"
