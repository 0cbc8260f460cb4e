"""Save an item in another process, read it back, and see how errors arrive."""

import sys
from pathlib import Path

from ether import ether

# "amqtt", "mosquitto" or the URL of a broker may be given; by default, Ether takes mosquitto where it is installed
given = sys.argv[1] if len(sys.argv) > 1 else None
broker = {"engine": given} if given in ("amqtt", "mosquitto") else given

with ether.tap(Path(__file__).parent / "lab.yaml", broker=broker):
    item = {"id": 1, "name": "plate 7", "tags": ["pilot"]}
    print("saved:", ether.save("DataService", "save_item", item))
    print("read:", ether.get("DataService", "get_item", {"id": 1}))

    again = ether.save("DataService", "save_item", item)
    print("saved again:", again["status"], "-", again["message"])

    try:
        ether.get("DataService", "get_item", {"id": 2})
    except KeyError as error:  # a RemoteError that is also the KeyError that the method raised
        print("unknown:", type(error).__name__, "-", str(error).splitlines()[0])
