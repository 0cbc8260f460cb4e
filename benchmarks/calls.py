"""Request and reply: round trips and calls per second of `ether.get`, beside other ways to call another process.

    python benchmarks/calls.py [--brokers amqtt mosquitto mosquitto-unix mosquitto-stock] [--rounds 5] [--calls 2000]

One caller and sixteen (threads of one process) send 64 characters, distinct in each call; one caller sends an array of
1 MB; a single server gives them back, and every answer is checked. The ways are measured in turns in the same run, each
figure of all ways before the next figure. Medians over the rounds; a ratio is the median of the rounds' own ratios.

Ether's figures include what the others lack: JSON, headers, deadlines, validation of typed arguments, and the hand-over
to a worker. Bare paho, ZeroMQ and the raw socket carry bytes and nothing else; Pyro5 serializes. `untuned` is paho
without TCP_NODELAY, as its defaults leave it; over a Unix socket it is the same as tuned. The raw socket is
the floor (`calls_socket.py`). Pyro5 and pyzmq are measured where they are installed, and do not use the MQTT broker:
their figures stand in every table only to be from the same run.

`mosquitto-stock` is a Mosquitto with nothing but a port in its configuration. Beside it stands Ether on an embedded one
over TCP and over the Unix socket that an embedded one's own instances use. The ratio is for a machine with a processor
to spare: on a busy one the caller is read late, and a broker without TCP_NODELAY waits for that.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "parts")]

from calls_rig import START_WITHIN_S, Conversation, Setup, process  # noqa: E402
from figures import table  # noqa: E402
from running_brokers import STOCK, RunningBroker, mosquitto_missing, running_broker  # noqa: E402

STOCK_BROKER = "mosquitto-stock"
BROKERS = ("amqtt", "mosquitto", "mosquitto-unix", STOCK_BROKER)
CALLERS = 16
CALLS_PER_ARRAY = 40
ANSWER_WITHIN_S = 60.0

ETHER, BASELINE = "Ether", "paho, QoS 1"
PAHO_QOS_0 = "paho, QoS 0"
EMBEDDED = {False: "Ether, embedded Mosquitto, TCP", True: "Ether, embedded Mosquitto, Unix"}
UNTUNED = ("paho untuned, QoS 1", "paho untuned, QoS 0")

ROUND_TRIP_AIM = 1.25
RATE_AIM = 2.5
ARRAY_AIM_MS = 15.0
STOCK_AIM = 1.5

HEADER = ["", "p50 µs", "p99 µs", "calls/s", "p50 ratio", "16: p50 µs", "16: p99 µs", "16: calls/s", "16: ratio"]
ARRAY_HEADER = "1 MB p50 ms"


@dataclass(slots=True)
class Way:
    """One row: how it is set up, its process, and what each round brought."""

    name: str
    setup: Setup
    conversation: Conversation | None = None
    why_not: str = ""
    rounds: list[dict[str, float]] = field(default_factory=list)

    def ask(self, question: dict[str, Any], within_s: float) -> dict[str, Any]:
        """Its answer; empty where there is none, now and ever after."""
        if self.conversation is None or self.why_not:
            return {}
        answer = self.conversation.ask(question, within_s)
        reasons = [f"{word}: {answer[word]}" for word in ("skipped", "failed") if word in answer]
        self.why_not = "".join(reasons)
        return {} if reasons else answer

    @property
    def measured(self) -> bool:
        return bool(self.rounds) and not self.why_not


def ways(broker: RunningBroker, unix: bool) -> list[Way]:
    """The rows of one table."""
    chosen: list[tuple[str, str, dict[str, Any]]] = [
        (ETHER, "calls_ether.py", {}),
        (BASELINE, "calls_paho.py", {}),
        (PAHO_QOS_0, "calls_paho.py", {"qos": 0}),
        (UNTUNED[0], "calls_paho.py", {"nodelay": False}),
        (UNTUNED[1], "calls_paho.py", {"nodelay": False, "qos": 0}),
        ("raw socket, QoS 1", "calls_socket.py", {}),
        ("raw socket, QoS 0", "calls_socket.py", {"qos": 0}),
        ("Pyro5, direct", "calls_pyro.py", {}),
        ("pyzmq, through a proxy", "calls_zmq.py", {}),
    ]
    shared = shared_setup(broker, unix)
    return [
        Way(name, Setup(script=script, topic=f"bench/{number}", **shared, **details))
        for number, (name, script, details) in enumerate(chosen)
        if not (unix and name in UNTUNED)
    ]


def shared_setup(broker: RunningBroker, unix: bool) -> dict[str, Any]:
    """What all ways on a broker have in common."""
    shared: dict[str, Any] = {
        "host": broker.host,
        "port": broker.port,
        "unix_socket": broker.unix_socket if unix else None,
    }
    url = broker.url_unix if unix else broker.url_tcp
    user = {"username": broker.username or "nobody", "password": broker.password or "nothing"}  # stock takes anybody
    return shared | user | {"url": url, "v5": "5" in broker.protocols, "folder": str(broker.private_dir)}


def measure(compared: Sequence[Way], rounds: int, calls: int) -> None:
    """Every way's rounds, in turns."""
    with ExitStack() as running:
        for way in compared:
            way.conversation = running.enter_context(process(way.setup.script))
            way.ask(asdict(way.setup), START_WITHIN_S + ANSWER_WITHIN_S)
        for number in range(rounds):
            results: dict[str, dict[str, float]] = {way.name: {} for way in compared}
            for callers, count in ((1, calls), (CALLERS, calls), (0, max(calls // CALLS_PER_ARRAY, 1))):
                for way in compared if number % 2 == 0 else reversed(compared):
                    answer = way.ask({"callers": callers, "count": count}, ANSWER_WITHIN_S)
                    results[way.name] |= {f"{key} {callers}": value for key, value in answer.items()}
            for way in compared:
                if not way.why_not:
                    way.rounds.append(results[way.name])
            print(f"round {number + 1} of {rounds}", file=sys.stderr)


def figure(way: Way, key: str) -> float:
    """The median of one figure over the rounds."""
    return statistics.median(row[key] for row in way.rounds)


def ratio(way: Way, base: Way | None, key: str) -> float | None:
    """The median of the rounds' ratios; None where one of the two was not measured."""
    if base is None or not base.measured or not way.measured:
        return None
    return statistics.median(ours[key] / theirs[key] for ours, theirs in zip(way.rounds, base.rounds, strict=True))


def shown(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def row(way: Way, base: Way) -> list[str]:
    if not way.measured:
        return [f"{way.name} (see below)", *[""] * len(HEADER)]
    cells = [way.name]
    for callers, key in ((1, "p50_us 1"), (CALLERS, f"rate {CALLERS}")):
        figures = [figure(way, f"{name} {callers}") for name in ("p50_us", "p99_us", "rate")]
        cells += [*(f"{value:,.0f}" for value in figures), shown(ratio(way, base, key))]
    return [*cells, f"{figure(way, 'p50_ms 0'):.1f}"]


def aims(by_name: dict[str, Way]) -> list[list[str]]:
    """What was aimed at, beside what came out."""
    ether, base = by_name[ETHER], by_name[BASELINE]
    if not ether.measured:
        return []
    untuned = [by_name[name] for name in UNTUNED if name in by_name] or [base, by_name[PAHO_QOS_0]]
    if EMBEDDED[False] in by_name:
        embedded = [(name, ratio(ether, by_name[name], "p50_us 1")) for name in EMBEDDED.values()]
        return [aim(f"round trip, ratio to {name}", found, "at most", STOCK_AIM) for name, found in embedded]
    rows = [aim(f"round trip, ratio to {BASELINE}", ratio(ether, base, "p50_us 1"), "at most", ROUND_TRIP_AIM)]
    for other in untuned:
        quotient = ratio(ether, other, f"rate {CALLERS}")
        rows.append(aim(f"calls/s of {CALLERS} callers, ratio to {other.name}", quotient, "at least", RATE_AIM))
    return [*rows, aim("1 MB array, ms", figure(ether, "p50_ms 0"), "at most", ARRAY_AIM_MS)]


def aim(what: str, value: float | None, relation: str, limit: float) -> list[str]:
    """One row; what is judged is the value as it is shown."""
    if value is None:
        return [what, "", f"{relation} {limit:g}", ""]
    met = round(value, 2) <= limit if relation == "at most" else round(value, 2) >= limit
    return [what, shown(value), f"{relation} {limit:g}", "yes" if met else "no"]


def compare(name: str, rounds: int, calls: int) -> None:
    """Print the tables of one broker."""
    engine, unix, stock = name.partition("-")[0], name == "mosquitto-unix", name == STOCK_BROKER
    if engine == "mosquitto" and mosquitto_missing:
        print(f"\n{name}: skipped: {mosquitto_missing}")
        return
    with ExitStack() as brokers:
        embedded = brokers.enter_context(running_broker(engine, max_packet_bytes=64 << 20))
        if (unix or stock) and embedded.unix_socket is None:
            print(f"\n{name}: skipped: this mosquitto has no Unix sockets")
            return
        broker = brokers.enter_context(running_broker(STOCK)) if stock else embedded
        compared = ways(broker, unix)
        for over_unix, row_name in EMBEDDED.items() if stock else ():
            details = shared_setup(embedded, over_unix)
            compared.append(Way(row_name, Setup(script="calls_ether.py", topic="bench/embedded", **details)))
        by_name = {way.name: way for way in compared}
        measure(compared, rounds, calls)
        protocol = "MQTT 5" if "5" in broker.protocols else "MQTT 3.1.1"
        where = "Unix socket" if unix else "TCP"
        title = f"{broker.engine} {broker.version}, {where}, {protocol}, {rounds} rounds, medians"
    table(f"{title}; ratios to {BASELINE}", [*HEADER, ARRAY_HEADER], [row(way, by_name[BASELINE]) for way in compared])
    for way in compared:
        if not way.measured:
            print(f"\n{way.name}: {way.why_not or 'no round was measured'}")
    if rows := aims(by_name):
        table("Ether's aims", ["figure", "measured", "aim", "met"], rows)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--brokers", nargs="+", default=BROKERS, choices=BROKERS, metavar="BROKER", help=str(BROKERS))
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--calls", type=int, default=2000, help="calls of one round, by one caller and by sixteen")
    given = options.parse_args()
    for name in given.brokers:
        compare(name, given.rounds, given.calls)


if __name__ == "__main__":
    main()
