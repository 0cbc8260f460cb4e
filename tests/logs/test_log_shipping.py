"""Every record reaches the session, whatever it holds and however many there are; nobody who logs is kept waiting."""

from __future__ import annotations

import logging
import logging.config
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from log_rig import ENGINES, TOPICS, Listener, alone, levels, links, texts, times_s
from patience import patience
from running_brokers import RunningBroker, running_broker, soon

from ether import ether_sub
from ether.connection.assembly import describe_with_registry
from ether.connection.link import Link
from ether.connection.worker import Worker
from ether.instance.hosted import HostedInstance
from ether.log import UnseenHandler
from ether.logs.budget_rules import Band, cut_sentence
from ether.logs.records import EXCEPTION_MAX, MESSAGE_MAX
from ether.logs.shipping import QUEUE_MAX, LogShipper
from ether.session.client import Client
from ether.transport.base import Receipt
from ether.transport.loopback import LoopbackBroker, LoopbackTransport

log = logging.getLogger("user.code")


@pytest.fixture(params=ENGINES)
def broker(request: pytest.FixtureRequest) -> Iterator[RunningBroker]:
    with running_broker(request.param) as running:
        yield running


@pytest.fixture
def open_link(broker: RunningBroker) -> Iterator[Callable[[str], Link]]:
    with links(broker) as open_one:
        yield open_one


@pytest.fixture
def listener(open_link: Callable[[str], Link]) -> Listener:
    return Listener(open_link("listener"))


@pytest.fixture
def shipper(listener: Listener, open_link: Callable[[str], Link]) -> Iterator[LogShipper]:
    """`cam`, at debug, from the root down."""
    with levels(logging.DEBUG):
        made = LogShipper(open_link("cam"), TOPICS, "cam")
        yield made
        made.close()


def test_a_record_arrives_with_everything(shipper: LogShipper, listener: Listener) -> None:
    log.info("focused at %d mm", 12)
    (record,) = listener.wait_for(lambda records: len(records) == 1)
    assert {key: record[key] for key in ("level", "logger", "instance", "message", "message_id", "trace")} == {
        "level": "INFO",
        "logger": "user.code",
        "instance": "cam",
        "message": "focused at 12 mm",
        "message_id": None,
        "trace": None,
    }
    assert listener.values[0][0] == "cam"
    assert "exception" not in record


class Unlucky:
    @ether_sub(topic="frames")
    def take(self, n: int) -> None:
        log.info("taking %d", n)
        raise ZeroDivisionError(f"no frame {n}")


def test_a_failed_handler_is_told_with_its_cause(
    shipper: LogShipper, listener: Listener, open_link: Callable[[str], Link]
) -> None:
    worker = Worker()
    spec = describe_with_registry(Unlucky, "test.Unlucky", {})
    instance = HostedInstance("unlucky", Unlucky(), spec, open_link("unlucky"), TOPICS, worker, "birth")
    instance.subscribe()
    worker.start()
    client = Client(open_link("sender"), TOPICS)
    client.publish({"n": 7}, "frames")
    inside, told = listener.wait_for(lambda records: any("exception" in record for record in records))[-2:]
    worker.stop()
    worker.join()
    instance.close()
    assert inside["message"] == "taking 7"
    assert told["level"] == "ERROR"
    assert "ZeroDivisionError: no frame 7" in told["message"]
    assert told["exception"].startswith("Traceback (most recent call last):")
    assert told["exception"].endswith("ZeroDivisionError: no frame 7")
    assert told["cause"] == {"method": "Unlucky.take", "topic": "frames", "source": "sender"}
    assert told["message_id"] == inside["message_id"] is not None
    assert len(inside["trace"]) == 32


class Rude:
    def __str__(self) -> str:
        raise KeyError("no text")


class Chatty:
    def __str__(self) -> str:
        log.warning("being shown")
        return "chatty"


def test_whatever_was_logged_arrives_somehow(shipper: LogShipper, listener: Listener) -> None:
    with alone():
        log.info(42)
        log.info({"a": object})
        log.info("%d", "not a number")
        log.info("%s %s", "one")
        log.info(Rude())
        log.info("%s", Rude())
        log.info("%s", Chatty())
        log.info("lone \udcff surrogate, NUL \x00, and 日本")
        log.log(25, "between")
        log.info("stack", stack_info=True)
    records = listener.wait_for(lambda records: len(records) == 11)
    said = texts(records)
    assert said[:2] == ["42", "{'a': <class 'object'>}"]
    assert said[2].startswith("%d (its arguments do not fit: TypeError: ")
    assert said[3].startswith("%s %s (its arguments do not fit: TypeError: ")
    assert said[4] == "(Rude, which cannot be shown) (its arguments do not fit: KeyError: 'no text')"
    assert said[5] == "%s (its arguments do not fit: KeyError: 'no text')"
    assert said[6:9] == ["being shown", "chatty", "lone \udcff surrogate, NUL \x00, and 日本"]
    assert (records[9]["level"], records[9]["level_number"]) == ("Level 25", 25)
    assert records[10]["exception"].startswith("Stack (most recent call last):")
    assert shipper.cut == {"debug": 0, "info": 0, "warning": 0, "error": 0}


def test_huge_texts_are_cut_at_the_stated_size(shipper: LogShipper, listener: Listener) -> None:
    log.info("%s", "x" * 5_000_000)
    try:
        raise ValueError("y" * 5_000_000 + " the end")
    except ValueError:
        log.exception("failed")
    first, second = listener.wait_for(lambda records: len(records) == 2)
    assert first["message"] == "x" * MESSAGE_MAX + "... (cut: 5,000,000 characters in all)"
    assert len(second["exception"]) < EXCEPTION_MAX + 100
    assert second["exception"].startswith("Traceback (most recent call last):")
    assert second["exception"].endswith("y the end")


def test_a_flood_is_cut_and_counted_and_no_error_is_missing(shipper: LogShipper, listener: Listener) -> None:
    with alone():
        for number in range(100_000):
            log.debug("debug %d", number)
            if number % 1000 == 999:
                log.error("error %d", number)
    shipper.close(patience(10))
    emitted = 100_100
    records = listener.wait_for(lambda records: len(records) >= shipper.shipped)
    assert soon(lambda: listener.said_cut == {name: count for name, count in shipper.cut.items() if count}, 10)
    errors = [record["message"] for record in records if record["level"] == "ERROR"]
    assert errors == [f"error {number}" for number in range(999, 100_000, 1000)]
    assert shipper.shipped + sum(shipper.cut.values()) == emitted
    assert len(records) == shipper.shipped
    assert shipper.cut["debug"] > 50_000
    assert shipper.cut["error"] == 0


def test_a_flood_from_many_threads_is_counted_exactly(shipper: LogShipper, listener: Listener) -> None:
    def flood(thread: int) -> None:
        for number in range(5000):
            log.log((10, 20, 30, 40)[number % 4], "%d %d", thread, number)

    threads = [threading.Thread(target=flood, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shipper.close(patience(10))
    records = listener.wait_for(lambda records: len(records) >= shipper.shipped)
    assert len(records) == shipper.shipped
    assert shipper.shipped + sum(shipper.cut.values()) == 20_000
    cut = shipper.cut
    assert cut["debug"] >= cut["info"] >= cut["warning"] >= cut["error"]


def test_what_was_cut_is_said_while_the_flood_goes_on(shipper: LogShipper, listener: Listener) -> None:
    for number in range(3000):
        log.debug("debug %d", number)
    assert soon(lambda: bool(listener.said_cut), 10)
    report = next(value for _, value in listener.values if "cut" in value)
    assert (report["level"], report["logger"], report["instance"]) == ("WARNING", "Ether.logs", "cam")
    # How many the first report tells of is chance: one, where the publishing thread runs just after the first cut.
    assert report["message"] == cut_sentence({Band.DEBUG: report["cut"]["debug"]})


class Emitted(UnseenHandler):
    """Counts everything that is for the shipper: of the network layer, which speaks of the outage, the warnings."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        logging.getLogger().addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.count += record.levelno >= logging.WARNING or record.name != "Ether.transport"


def test_without_a_broker_nobody_waits_and_errors_are_kept(
    shipper: LogShipper, listener: Listener, broker: RunningBroker
) -> None:
    emitted = Emitted()
    log.info("before")
    listener.wait_for(lambda records: len(records) == 1)
    broker.kill()
    # What is written before the death is noticed is on its way to nobody (QoS 0); the next test counts such a record.
    assert soon(lambda: not shipper._link.transport.connected, 10)
    log.error("the first while nobody listens")
    with alone():
        took_s = times_s(lambda number: log.debug("debug %d", number), 20_000)
    # One attempt to publish takes 0.5 s, and nearly each record would make one. (A busy machine may hold up a few.)
    assert took_s[-5] < 0.4  # bare: below what an attempt takes
    log.error("the last while nobody listens")
    broker.restart()
    records = listener.wait_for(lambda records: "the last while nobody listens" in texts(records), 30)
    shipper.close(patience(10))
    assert "the first while nobody listens" in texts(records)
    assert shipper.shipped + sum(shipper.cut.values()) == emitted.count


def test_closing_without_a_broker_takes_no_time_and_says_what_is_lost(
    shipper: LogShipper, broker: RunningBroker, caplog: pytest.LogCaptureFixture
) -> None:
    broker.kill()
    assert soon(lambda: not shipper._link.transport.connected, 10)
    for number in range(10):
        log.error("lost %d", number)
    assert times_s(lambda _: shipper.close(patience(30)), 1)[-1] < patience(2)
    lost = shipper.cut["error"]
    assert lost >= 9  # one may have been on its way when the broker died
    (said,) = [text for record in caplog.records if "left before" in (text := record.getMessage())]
    assert said.startswith("cam left before all of its log was sent; ")
    assert said.endswith(f" {lost} error")


def test_a_record_from_under_the_transports_own_lock(shipper: LogShipper, listener: Listener) -> None:
    transport: Any = shipper._link.transport
    with transport._send_queue.lock:
        log.error("the lock is held")
    listener.wait_for(lambda records: texts(records) == ["the lock is held"])


def test_what_libraries_and_the_network_layer_say_below_warning_stays_here(
    shipper: LogShipper, listener: Listener
) -> None:
    def say(name: str, level: int, path: str) -> None:
        logging.getLogger(name).handle(logging.LogRecord(name, level, path, 1, f"{name} {level}", (), None))

    say("lib", logging.INFO, pytest.__file__)
    say("Ether.transport", logging.INFO, __file__)
    say("lib", logging.WARNING, pytest.__file__)
    say("Ether.transport", logging.WARNING, __file__)
    assert texts(listener.wait_for(lambda records: len(records) == 2)) == ["lib 30", "Ether.transport 30"]


class NoisyTransport(LoopbackTransport):
    """Logs while it publishes, as a network library may."""

    def publish(self, *args: Any, **options: Any) -> Receipt:
        log.error("publishing")
        logging.getLogger("Ether.transport").error("publishing")
        return super().publish(*args, **options)


def test_a_logger_inside_of_the_transport_does_not_loop() -> None:
    link = Link(NoisyTransport(LoopbackBroker(), client_id="cam"), "cam")
    link.open(patience(10))
    with levels(logging.DEBUG):
        shipper = LogShipper(link, TOPICS, "cam")
        log.info("one")
        assert soon(lambda: shipper.shipped == 1, 5)
        link.publish(TOPICS.data("x"), 1)  # somebody else's publishing is logged as everything
        assert soon(lambda: shipper.shipped == 3, 5)
        shipper.close()
    link.close()
    assert shipper.shipped == 3


def test_a_record_out_of_the_middle_of_the_shippers_own_code_is_not_lost() -> None:
    """As a signal handler or a finalizer would log it."""
    link = Link(LoopbackTransport(LoopbackBroker(), client_id="cam"), "cam")
    link.open(patience(10))
    listener = Listener(link)
    with levels(logging.DEBUG):
        shipper = LogShipper(link, TOPICS, "cam")
        admits, interrupted = shipper._budget.admits, []

        def admits_interrupted(*args: Any) -> bool:
            if not interrupted:
                interrupted.append(True)
                log.error("out of a finalizer")
            return admits(*args)

        shipper._budget.admits = admits_interrupted  # type: ignore[method-assign]
        log.info("ordinary")
        assert sorted(texts(listener.wait_for(lambda records: len(records) == 2))) == ["ordinary", "out of a finalizer"]
        shipper.close()
    link.close()


def test_an_interrupt_in_the_middle_of_the_shippers_own_code_is_survived() -> None:
    link = Link(LoopbackTransport(LoopbackBroker(), client_id="cam"), "cam")
    link.open(patience(10))
    listener = Listener(link)
    with levels(logging.DEBUG):
        shipper = LogShipper(link, TOPICS, "cam")
        admits = shipper._budget.admits

        def interrupt(*_: Any) -> bool:
            raise KeyboardInterrupt

        shipper._budget.admits = interrupt  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            log.info("never taken")
        shipper._budget.admits = admits  # type: ignore[method-assign]
        log.info("taken")
        assert texts(listener.wait_for(lambda records: len(records) == 1)) == ["taken"]
        shipper.close()
    link.close()


class DeafTransport(LoopbackTransport):
    """Takes nothing and says nothing, as a connection whose other side is gone."""

    connected = False


def test_the_queue_is_bounded_while_nothing_can_be_sent() -> None:
    link = Link(DeafTransport(LoopbackBroker(), client_id="cam"), "cam")
    link.open(patience(10))
    with levels(logging.DEBUG):
        shipper = LogShipper(link, TOPICS, "cam")
        for number in range(3 * QUEUE_MAX):
            log.debug("debug %d", number)
            log.error("error %d", number)
        assert len(shipper._queue) <= QUEUE_MAX
        shipper.close()
    link.close()
    assert shipper.shipped == 0
    assert sum(shipper.cut.values()) == 6 * QUEUE_MAX


@pytest.mark.parametrize(
    "configure",
    [
        "logging.basicConfig(force=True, level='DEBUG', format='MINE %(message)s')",
        "logging.config.dictConfig({'version': 1, 'disable_existing_loggers': False, 'root': {'level': 'DEBUG'}})",
    ],
)
def test_user_code_that_replaces_all_handlers_does_not_end_the_shipping(configure: str) -> None:
    run(f"""
        shipper = LogShipper(link, TOPICS, "cam")
        {configure}
        assert soon(lambda: shipper._handler in logging.getLogger().handlers, 5)
        logging.getLogger("user").info("still heard")
        assert texts(listener.wait_for(lambda records: len(records) == 1)) == ["still heard"]
    """)


def test_in_a_users_program_logging_stays_the_users() -> None:
    said = run("""
        from ether.log import get_ether_logger, install_console
        install_console()
        shipper = LogShipper(link, TOPICS, "main", own_process=False)
        get_ether_logger().info("to the console, and shipped")
        logging.getLogger("user").warning("to the last resort")
        logging.basicConfig(format="MINE %(message)s", level="INFO")
        assert soon(lambda: shipper._handler in logging.getLogger().handlers, 5)
        assert shipper._handler not in logging.getLogger("Ether").handlers
        logging.getLogger("user").info("to the user, and shipped")
        get_ether_logger().info("to the user, and shipped once")
        heard = texts(listener.wait_for(lambda records: len(records) == 3))
        assert heard == ["to the console, and shipped", "to the user, and shipped", "to the user, and shipped once"]
    """)
    first, *rest = said.splitlines()
    assert first.endswith("INFO - to the console, and shipped")
    assert rest == ["to the last resort", "MINE to the user, and shipped", "MINE to the user, and shipped once"]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")
def test_a_forked_child_neither_ships_nor_hangs() -> None:
    run("""
        import os, threading
        shipper = LogShipper(link, TOPICS, "cam")
        held, done = threading.Event(), threading.Event()
        def hold():
            with shipper._wake:
                held.set()
                done.wait(20)
        holder = threading.Thread(target=hold)
        holder.start()
        held.wait(5)
        child = os.fork()
        if not child:
            logging.getLogger("user").error("from the child")
            os._exit(0)
        assert soon(lambda: os.waitpid(child, os.WNOHANG)[0] == child, 10)
        done.set()
        holder.join()
        logging.getLogger("user").error("from the parent")
        assert texts(listener.wait_for(lambda records: len(records) == 1)) == ["from the parent"]
    """)


def run(body: str) -> str:
    """Run with a loopback link in an interpreter of its own, whose logging nobody has touched; what it says."""
    program = f"""
import logging, logging.config, sys, warnings
sys.path[:0] = {[str(Path(__file__).parents[1] / "parts"), str(Path(__file__).parents[2])]!r}
warnings.simplefilter("ignore")
from running_brokers import soon
from log_rig import Listener, TOPICS, texts
from ether.connection.link import Link
from ether.logs.shipping import LogShipper
from ether.transport.loopback import LoopbackBroker, LoopbackTransport
link = Link(LoopbackTransport(LoopbackBroker(), client_id="cam"), "cam")
link.open(10)
listener = Listener(link)
{textwrap.dedent(body)}
shipper.close()
link.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=patience(60), check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stderr
