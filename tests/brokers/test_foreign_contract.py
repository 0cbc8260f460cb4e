"""The transport's contract (tests/transport/test_transport_contract.py) over brokers that are not ours, as they come.

What one of them does not do stands in `KNOWN_LIMITS`, with the reason; such a test has to fail. A limit of the broker
alone is no fault of Ether's: the transport's users must not rely on it, and `ether doctor --broker` shows it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from foreign_brokers import AEDES, LONG, NATS, RABBITMQ, running_foreign
from known_limits import KnownLimit, expect_known_limit, foreign_parameters

from ether.transport import Endpoint
from tests.transport.backends import V311, Backend
from tests.transport.test_transport_contract import *  # noqa: F403  the tests themselves

if not LONG:
    pytest.skip("RabbitMQ, NATS and Aedes are for .ci/long: ETHER_LONG=1", allow_module_level=True)

VERSIONS = {RABBITMQ.name: V311, NATS.name: V311, AEDES.name: V311}

QOS_0_OVERTAKES = "a message at QoS 0 overtakes those at QoS 1 on its topic; MQTT promises order within one QoS"
DOLLAR_TOPICS = "a wildcard at the start hears topics that begin with $"

KNOWN_LIMITS = {
    (RABBITMQ.name, "test_sizes_around_every_boundary"): KnownLimit(QOS_0_OVERTAKES, race=True),
    (RABBITMQ.name, "test_wildcard_at_the_start_hears_no_dollar_topics"): KnownLimit(DOLLAR_TOPICS),
    (NATS.name, "test_sizes_around_every_boundary"): KnownLimit(QOS_0_OVERTAKES, race=True),
    (NATS.name, "test_wildcard_at_the_start_hears_no_dollar_topics"): KnownLimit(DOLLAR_TOPICS),
    (NATS.name, "test_wildcards"): KnownLimit("messages to different topics overtake each other", race=True),
    (NATS.name, "test_reader_that_sleeps_loses_nothing"): KnownLimit("not in order, now and then", race=True),
    (NATS.name, "test_unicode_topics[a b/c  d]"): KnownLimit("2.9 takes no space in a topic"),
    (NATS.name, "test_many_filters_at_once"): KnownLimit(
        "a client has at most 63 subscriptions at QoS 1: 1,024 unacknowledged messages each, 65,535 for all"
    ),
    (AEDES.name, "test_sizes_around_every_boundary"): KnownLimit(QOS_0_OVERTAKES, race=True),
    (AEDES.name, "test_reader_that_sleeps_loses_nothing"): KnownLimit(
        "it sends on without acknowledgements: the receiver's memory holds what the broker should"
    ),
    (AEDES.name, "test_will_is_not_published_after_close"): KnownLimit(
        "the end of the connection may be seen before the DISCONNECT", race=True
    ),
}


@pytest.fixture(scope="module", params=foreign_parameters(*VERSIONS))
def lasting_backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Each broker in turn, for all tests of this module."""
    name = str(request.param)
    with running_foreign(name) as broker:
        yield Backend(name, VERSIONS[name], Endpoint.from_url(broker.url), broker)


@pytest.fixture
def backend(lasting_backend: Backend, request: pytest.FixtureRequest) -> Iterator[Backend]:
    """The same, without the connections of the test before."""
    expect_known_limit(request, KNOWN_LIMITS, lasting_backend.name)
    yield lasting_backend
    lasting_backend.close()


@pytest.fixture
def topic() -> str:
    """A topic that no other test uses."""
    return f"test/{uuid.uuid4().hex}"
