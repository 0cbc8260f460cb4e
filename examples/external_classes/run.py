"""Run classes that contain no Ether import as a pipeline of processes: the YAML stands in for the decorators."""

import sys
from pathlib import Path

from external_classes import Collector, Generator, Processor

from ether import ether

# "amqtt", "mosquitto" or the URL of a broker may be given; by default, Ether takes mosquitto where it is installed
given = sys.argv[1] if len(sys.argv) > 1 else None
broker = {"engine": given} if given in ("amqtt", "mosquitto") else given

ether.tap(Path(__file__).parent / "pipeline.yaml", broker=broker)
with ether.subscribe("summarize") as summaries:
    ether.start()
    for _ in range(2):
        summaries.get(timeout_s=10)
ether.shutdown()

print("\nThe same by hand, untouched:")
generator, collector = Generator(), Collector()
for processor in (Processor("double", 2), Processor("quadruple", 4)):
    collector.collect(**processor.process(**generator.generate()))
collector.summarize()
