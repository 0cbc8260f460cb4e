"""Run the pipeline as four processes, then use the same classes by hand, in this one."""

import sys
from pathlib import Path

from dual_processors import DataCollector, DataGenerator, DataProcessor

from ether import ether

HERE = Path(__file__).parent
# "amqtt", "mosquitto" or the URL of a broker may be given; by default, Ether takes mosquitto where it is installed
given = sys.argv[1] if len(sys.argv) > 1 else None
broker = {"engine": given} if given in ("amqtt", "mosquitto") else given

ether.tap(HERE / "pipeline.yaml", broker=broker)
with ether.subscribe("summarize") as summaries:
    ether.start()
    for _ in range(2):  # one summary after each processor's result
        summaries.get(timeout_s=10)
ether.shutdown()

print("\nThe same by hand:")
generator, collector = DataGenerator(), DataCollector()
for processor in (DataProcessor("double", 2), DataProcessor("quadruple", 4)):
    collector.collect_result(**processor.process_data(**generator.generate_data()))
collector.summarize()
